"""The training loop that all parts share: cosine learning rate, log lines, checkpoints to resume from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

logger = logging.getLogger(__name__)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cosine(step: int, steps: int, warmup: int) -> float:
    """Learning-rate factor: linear over `warmup` steps, then half a cosine down to zero at `steps`."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    name: str,
    modules: torch.nn.ModuleDict,
    groups: list[dict],
    loss: Callable[[int], torch.Tensor],
    steps: int,
    directory: Path,
    average: float | None = None,
    save_every: int = 200,
) -> None:
    """Minimises `loss(step)` with AdamW, resuming from `directory`/`name`.resume.safetensors where it exists.

    `loss` draws its own batch from the step number, so a resumed run sees the batches that an uninterrupted one would.
    With `average` (a decay), the modules end as the running mean of their weights.
    """
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.01)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    parameters = dict(modules.named_parameters())
    mean = {key: value.detach().clone() for key, value in parameters.items()} if average else {}
    checkpoint = directory / f"{name}.resume.safetensors"
    start = _resume(checkpoint, parameters, optimizer, mean) if checkpoint.is_file() else 0
    begun, running = time.monotonic(), 0.0
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * cosine(step, steps, warmup=min(100, steps // 10))
        optimizer.zero_grad(set_to_none=True)
        value = loss(step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        with torch.no_grad():
            if average:
                decay = min(average, (step + 1) / (step + 10))
                torch._foreach_lerp_(list(mean.values()), list(parameters.values()), 1 - decay)
        running = 0.98 * running + 0.02 * value.item() if step > start else value.item()
        if (step + 1) % 50 == 0:
            seconds = (time.monotonic() - begun) / (step + 1 - start)
            logger.info("%s: step %d of %d, loss %.4f, %.2f s a step", name, step + 1, steps, running, seconds)
        if (step + 1) % save_every == 0 and step + 1 < steps:
            _checkpoint(checkpoint, step + 1, parameters, optimizer, mean)
    with torch.no_grad():
        for key, value in mean.items():
            parameters[key].copy_(value)
    checkpoint.unlink(missing_ok=True)


def _checkpoint(
    path: Path,
    step: int,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    mean: dict[str, torch.Tensor],
) -> None:
    tensors = {"step": torch.tensor(step)}
    for key, parameter in parameters.items():
        tensors[f"weight.{key}"] = parameter.detach().contiguous()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}.{key}"] = optimizer.state[parameter][moment].contiguous()
    tensors |= {f"mean.{key}": value for key, value in mean.items()}
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def _resume(
    path: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    mean: dict[str, torch.Tensor],
) -> int:
    tensors = load_file(path)
    step = int(tensors["step"])
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{key}"])
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg.{key}"].to(parameter.device),
                "exp_avg_sq": tensors[f"exp_avg_sq.{key}"].to(parameter.device),
            }
            if mean:
                mean[key].copy_(tensors[f"mean.{key}"])
    logger.info("%s: resumed at step %d", path.name, step)
    return step
