"""How long the solves take, and how much memory, on matrices shaped like SD 1.5's and SDXL's cross-attention.

Each method runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmarks import peers
from loco_core.editing.closed_form import solve
from loco_core.editing.lora import edit_lora
from loco_core.editing.recipe import EditRecipe, EditSettings
from loco_core.editing.solve import PAPER_LAMBDA, Edit, EditFigures
from loco_core.models.families.unet import UNET
from loco_core.models.layers import ModelLayers, TextLayer

CONCEPTS, TEMPLATES = 10, 4
# SPEED decomposes every matrix; so many are timed, and the rest are taken to be like them.
SPEED_MATRICES = 4
# Width of the text embeddings, and the output width of every cross-attention layer.
SHAPES = {
    "sd15": (768, [320] * 4 + [640] * 4 + [1280] * 8),
    "sdxl": (2048, [640] * 4 + [1280] * 60 + [640] * 6),
}


@dataclass(frozen=True)
class Cost:
    """seconds: of the solve for all matrices. extra_bytes: peak memory beyond what it returns."""

    seconds: float
    extra_bytes: int


@dataclass(frozen=True)
class Problem:
    weights: list[tuple[torch.Tensor, torch.Tensor]]
    originals: torch.Tensor
    targets: torch.Tensor


def problem(shape: str) -> Problem:
    """Random weights, and columns as alike within a concept as its templates are."""
    width, outputs = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    weights = [tuple(torch.randn(out, width, generator=generator) / width**0.5 for _ in range(2)) for out in outputs]
    names = torch.randn(width, CONCEPTS, 1, generator=generator)
    originals = (names + 0.3 * torch.randn(width, CONCEPTS, TEMPLATES, generator=generator)).flatten(1)
    targets = torch.randn(width, 1, generator=generator).expand(-1, CONCEPTS * TEMPLATES).contiguous()
    return Problem(weights, originals, targets)


def text_layers(count: int, width: int) -> ModelLayers:
    """A model with so many text layers, one in each block."""
    layers = tuple(TextLayer(number, "input", 1 + number, 0) for number in range(count))
    return ModelLayers(layers, tuple(map(str, layers)), width, UNET, levels=(count,))


def ours(given: Problem) -> tuple[dict[str, torch.Tensor], float]:
    """The operator and the LoRA's factors of every matrix."""
    operator = solve(given.originals, given.targets, PAPER_LAMBDA)
    layers = text_layers(len(given.weights), operator.width)
    recipe = EditRecipe((), (), EditSettings(), layers.all, "")
    figures = EditFigures(operator.rank, 0.0, 0.0, (), 0, 0.0, 0.0)
    edit = Edit(recipe, dict.fromkeys(layers.all, operator), operator.width, figures)
    return edit_lora(edit, layers, given.weights.__getitem__), 1.0


def d_by_d(given: Problem) -> tuple[dict[str, torch.Tensor], float]:
    return {
        f"{number}.{part}": peers.authors(weight, given.originals, given.targets)
        for number, pair in enumerate(given.weights)
        for part, weight in enumerate(pair)
    }, 1.0


def uce(given: Problem) -> tuple[dict[str, torch.Tensor], float]:
    return {
        f"{number}.{part}": peers.uce(weight, given.originals, given.targets, given.originals)
        for number, pair in enumerate(given.weights)
        for part, weight in enumerate(pair)
    }, 1.0


def speed(given: Problem) -> tuple[dict[str, torch.Tensor], float]:
    held = peers.SpeedInputs(
        torch.randn(len(given.originals), UNET.chunk_length, generator=torch.Generator().manual_seed(1))
    )
    chosen = given.weights[:: max(1, len(given.weights) // SPEED_MATRICES)][:SPEED_MATRICES]
    edited = {
        str(number): peers.speed(values, given.originals, given.targets, given.originals, held)
        for number, (_, values) in enumerate(chosen)
    }
    return edited, len(given.weights) / len(chosen)


METHODS: dict[str, Callable[[Problem], tuple[dict[str, torch.Tensor], float]]] = {
    "ours": ours,
    "authors": d_by_d,
    "uce": uce,
    "speed": speed,
}


def _measure(method: str, shape: str) -> Cost:
    torch.set_num_threads(2)
    given = problem(shape)
    METHODS[method](Problem(given.weights[:1], given.originals, given.targets))  # loads what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.perf_counter()
    results, share = METHODS[method](given)
    seconds = (time.perf_counter() - begun) * share
    peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    size = sum(tensor.numel() * tensor.element_size() for tensor in results.values())
    return Cost(round(seconds, 3), max(0, peak - size))


def measure(shape: str) -> dict[str, dict]:
    """The cost of each method, one after the other."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {method: asdict(pool.apply(_measure, (method, shape))) for method in METHODS}
