"""What the commands of `python -m loco_core` share: which model makes the images, and how."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..diffusers_host.demo_model import SCORER as DEMO_SCORER
from ..diffusers_host.demo_model import demo_pipeline
from ..diffusers_host.engine import SAMPLERS, SPACINGS, VAE_FACTOR, DiffusersEngine, load_pipeline
from ..localization.evaluation import thumbnails
from ..models.engine import Row, Sampling
from ..scoring.clip_score import ClipScorer, load_scorer

DEMO = "demo"
SHEET_PICTURE = 256
"""Largest side, in pixels, of a picture on the before/after sheet."""


@dataclass(frozen=True)
class Settings:
    """Which model makes the images, and how; `rows` of them at once."""

    model: str
    sampling: Sampling
    seed: int
    rows: int


@dataclass(frozen=True)
class Preset:
    """Sampling settings that go together; size in pixels."""

    steps: int
    guidance: float
    size: int
    sampler: str
    spacing: str


PRESETS = {
    "demo": Preset(20, 2.0, 128, "euler", "linspace"),
    "paper": Preset(50, 7.5, 512, "pndm", "leading"),
}


def whole_latents(context: click.Context, option: click.Parameter, pixels: int | None) -> int | None:
    """Refuses a size that is not a whole number of latents."""
    if pixels and pixels % VAE_FACTOR:
        raise click.BadParameter(f"{pixels} is not a multiple of {VAE_FACTOR}", context, option)
    return pixels


SETTINGS = [
    click.option(
        "--model",
        default=DEMO,
        show_default=True,
        metavar="MODEL",
        help="'demo', or a local diffusers folder of Stable Diffusion 1.x, 2.x or SDXL.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="Sampling settings: 'paper' is 50 steps, guidance "
        "7.5, 512x512, PNDM. Without it: 'demo' for the demo model, 'paper' for others. The options below "
        "change them one by one.",
    ),
    click.option("--steps", type=click.IntRange(1), help="Sampler steps."),
    click.option("--guidance", type=click.FloatRange(1), help="Classifier-free guidance (CFG)."),
    click.option(
        "--size", type=click.IntRange(64), callback=whole_latents, help="Width and height in pixels; 1024 for SDXL."
    ),
    click.option("--sampler", type=click.Choice(list(SAMPLERS))),
    click.option("--spacing", type=click.Choice(SPACINGS), help="How the steps are spread over the noise levels."),
    click.option("--negative", default="", help="The negative prompt."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="The first seed."),
    click.option(
        "--rows",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Images made at once: as many as your memory takes is fastest.",
    ),
]


def settings(command: Callable) -> Callable:
    """Adds the options that say which model makes the images, and how; the command gets them as one Settings."""

    @functools.wraps(command)
    def run(model, preset, steps, guidance, size, sampler, spacing, negative, seed, rows, **own) -> None:
        base = PRESETS[preset or ("demo" if model == DEMO else "paper")]
        pixels = size or base.size
        sampling = Sampling(
            steps or base.steps,
            guidance or base.guidance,
            sampler or base.sampler,
            spacing or base.spacing,
            pixels,
            pixels,
            negative,
        )
        command(settings=Settings(model, sampling, seed, rows), **own)

    for option in reversed(SETTINGS):
        run = option(run)
    return run


def load_engine(model: str) -> DiffusersEngine:
    return DiffusersEngine(demo_pipeline() if model == DEMO else load_pipeline(Path(model)))


def bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True)


def load_clip(model: str, scorer: Path | None, architecture: str | None = None) -> ClipScorer:
    """The scorer in the file; the demo model brings its own."""
    if scorer is None and model != DEMO:
        raise ValueError("scorer: give --scorer, a .safetensors file of open_clip weights")
    clip = load_scorer(scorer or DEMO_SCORER, architecture)
    clip.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return clip


def make_pictures(
    engine: DiffusersEngine, rows: Sequence[Row], settings: Settings, advance: Callable[[int], None]
) -> np.ndarray:
    """The rows' images as a sheet shows them; `advance(images)` after each batch."""
    parts = []
    for start in range(0, len(rows), settings.rows):
        parts.append(thumbnails(engine.generate(rows[start : start + settings.rows], settings.sampling), SHEET_PICTURE))
        advance(len(parts[-1]))
    return np.concatenate(parts)
