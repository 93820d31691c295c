"""What the tests of full-size models, and benchmarks/full_size.py through them, measure."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management
import comfy.sample
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE

from .checkpoints import checkpoint

# Height and width of the latents: the smallest that an SD 1.5 U-Net halves three times.
LATENT = 8
PROC = Path("/proc/self")


@dataclass(frozen=True, eq=False)
class Loaded:
    """What the stock loader makes of a checkpoint."""

    model: ModelPatcher
    clip: CLIP
    vae: VAE


class OneAtATime:
    """Loads checkpoints with the stock loader, and lets the one before go first: two do not fit into memory."""

    def __init__(self) -> None:
        self._key: tuple[str, torch.dtype | None] | None = None
        self._loaded: Loaded | None = None

    def __call__(self, family: str, dtype: torch.dtype | None = None) -> Loaded:
        if self._key != (family, dtype):
            self.release()
            self._loaded = load(family, dtype)
            self._key = family, dtype
        return self._loaded

    def release(self) -> None:
        self._key = self._loaded = None
        comfy.model_management.unload_all_models()
        gc.collect()


def load(family: str, dtype: torch.dtype | None = None) -> Loaded:
    """A family's checkpoint; the U-Net's weights in the host's choice of type, or kept in `dtype`."""
    options = {"dtype": dtype} if dtype else {}
    return Loaded(*comfy.sd.load_checkpoint_guess_config(str(checkpoint(family)), model_options=options)[:3])


@torch.no_grad()
def sample(model: ModelPatcher, positive: list, rows: int = 1) -> torch.Tensor:
    """Latents [rows, 4, 8, 8], all from the same noise, by the host's sampler from one call of the denoiser."""
    noise = torch.randn(1, 4, LATENT, LATENT, generator=torch.Generator().manual_seed(2)).repeat(rows, 1, 1, 1)
    arguments = (1, 1.0, "euler", "normal", positive, positive, torch.zeros_like(noise))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=0)


def unet_output(model: ModelPatcher, positive: list, rows: int = 1) -> torch.Tensor:
    """What the U-Net says in the one call that `sample` makes of it: [rows, 4, 8, 8]."""
    outputs: list[torch.Tensor] = []
    unet = model.get_model_object("diffusion_model")
    hook = unet.register_forward_hook(lambda module, inputs, output: outputs.append(output.clone()))
    try:
        sample(model, positive, rows)
    finally:
        hook.remove()
    (output,) = outputs
    return output


def relative(change: torch.Tensor, to: torch.Tensor) -> float:
    """||change|| / ||to||."""
    return (torch.linalg.norm(change) / torch.linalg.norm(to)).item()


@dataclass(frozen=True)
class Agreement:
    """Of several ways to apply one edit: the largest ||x_a - x_b|| / ||x_a - x_unedited||, and the least effect
    ||x_a - x_unedited|| / ||x_unedited||.
    """

    difference: float
    effect: float


def agreement(unedited: torch.Tensor, *edited: torch.Tensor) -> Agreement:
    differences = [relative(one - other, one - unedited) for one in edited for other in edited if one is not other]
    return Agreement(max(differences), min(relative(one - unedited, unedited) for one in edited))


@dataclass
class Cost:
    """Wall seconds, and the peak of the process's memory beyond what it held before, in MB; None where the system
    does not tell it (Linux does).
    """

    seconds: float = 0.0
    extra_mb: float | None = None


@contextmanager
def cost() -> Iterator[Cost]:
    """Fills the Cost it yields when the block ends."""
    measured = Cost()
    before = _restart_peak()
    begun = time.perf_counter()
    yield measured
    measured.seconds = time.perf_counter() - begun
    if before is not None:
        measured.extra_mb = _memory("VmHWM") - before


def _restart_peak() -> float | None:
    try:
        (PROC / "clear_refs").write_text("5")  # makes the peak what is in memory now
    except OSError:
        return None
    return _memory("VmRSS")


def _memory(name: str) -> float:
    """VmRSS, what is in memory now, or VmHWM, the most there has been: in MB."""
    status = (PROC / "status").read_text()
    return int(status.split(f"{name}:", 1)[1].split(None, 1)[0]) / 1024
