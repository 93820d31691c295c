"""`python -m loco_core trace`: which layers hold a concept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import diffusers

from ..files import write_picture, write_text
from ..localization.evaluation import Evaluation, SearchProgress
from ..localization.pictures import contact_sheet, model_figure, score_plot
from ..localization.plan import AUTO, SearchPlan
from ..localization.report import provenance, report_text, result_json, scores_csv
from ..localization.search import search
from ..localization.strategies import Effort
from ..models.layers import Part
from ..prompts import prompt_pairs
from .options import (
    OneOf,
    Replacing,
    Settings,
    bar,
    load_clip,
    load_engine,
    out_option,
    replacing,
    scorer_option,
    seeds_option,
    settings,
)


@dataclass(frozen=True)
class TraceOptions:
    """How to search, what scores the images, and where the result goes."""

    window_size: int
    effort: Effort
    part: Part
    seeds: int
    scorer: Path | None
    architecture: str | None
    out: Path


@click.command()
@replacing
@click.option(
    "--window-size",
    type=click.IntRange(AUTO),
    default=2,
    show_default=True,
    help="Adjacent layers tried at once; 0 to find the size at which the effect saturates.",
)
@click.option(
    "--effort",
    type=OneOf(Effort),
    default="balanced",
    show_default=True,
    help="'balanced' makes images where the answer is open: a fifth of 'exhaustive' or less, from 8 a window on.",
)
@click.option(
    "--part", type=OneOf(Part), default="keys and values", show_default=True, help="What gets the target prompt."
)
@seeds_option(4)
@scorer_option()
@click.option("--architecture", help="The scorer's open_clip architecture, where no configuration lies beside it.")
@out_option("loco_trace")
@settings
def trace(settings: Settings, replacing: Replacing, **given: Any) -> None:
    """LocoGen: find the layers. Writes result.json, scores.csv (every image), scores.png, model.png (the
    U-Net with its layers by effect) and windows.png.

    \b
    python -m loco_core trace --concept woodcut --target "a painting"
    """
    options = TraceOptions(**given)
    pairs = prompt_pairs(replacing.concepts, replacing.targets, replacing.attribute, ("concept", "target"))
    plan = SearchPlan(
        pairs=tuple(pairs),
        seeds=settings.seeds(options.seeds),
        attribute=replacing.attribute,
        window_size=options.window_size,
        sampling=settings.sampling,
        effort=options.effort,
        part=options.part,
    )
    clip = load_clip(settings.model, options.scorer, options.architecture)
    engine, out = load_engine(settings.model), options.out
    with bar() as progress:
        task = progress.add_task("unmodified", total=math.ceil(plan.most_images(engine.layers)))

        def on_batch(evaluation: Evaluation) -> None:
            progress.update(task, completed=round(evaluation.cost), description=evaluation.label)
            write_text(out / "scores.csv", scores_csv(plan, evaluation.cells, evaluation.scores))

        result = search(engine, clip, plan, settings.rows, SearchProgress(on_batch))
    came_from = provenance(engine, clip, f"diffusers {diffusers.__version__}")
    write_text(out / "result.json", result_json(result, came_from))
    write_picture(out / "scores.png", score_plot(result))
    write_picture(out / "model.png", model_figure(result, engine.layers))
    write_picture(out / "windows.png", contact_sheet(result))
    click.echo(f"{report_text(result)}\nsaved in {out}")
