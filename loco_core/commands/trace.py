"""`python -m loco_core trace`: which layers hold a concept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import diffusers

from .. import (
    Effort,
    Journal,
    Part,
    SearchPlan,
    SearchProgress,
    prompt_pairs,
    provenance,
    report_text,
    result_json,
    scores_csv,
    search,
    search_settings,
)
from ..files import write_picture, write_text
from ..localization.evaluation import Evaluation
from ..localization.pictures import contact_sheet, model_figure, score_plot
from ..localization.plan import AUTO
from . import options
from .options import OneOf, Replacing, Settings

# In the output folder: where a search keeps what it has made.
JOURNALS = "journals"


@dataclass(frozen=True)
class TraceChoices:
    """How to search, what scores the images, and where the result goes."""

    window_size: int
    effort: Effort
    part: Part
    seeds: int
    scorer: Path | None
    architecture: str | None
    out: Path


@click.command()
@options.replacing
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
@options.seeds_option(4)
@options.scorer_option()
@click.option("--architecture", help="The scorer's open_clip architecture, where no configuration lies beside it.")
@options.out_option("loco_trace")
@options.settings
def trace(settings: Settings, replacing: Replacing, **given: Any) -> None:
    """LocoGen: find the layers. Writes result.json, scores.csv (every image), scores.png, model.png (the
    U-Net with its layers by effect) and windows.png. Where it was stopped, the same command goes on.

    \b
    python -m loco_core trace --concept woodcut --target "a painting"
    """
    chosen = TraceChoices(**given)
    asked = prompt_pairs(replacing.concepts, replacing.targets, replacing.attribute, ("concept", "target"))
    plan = SearchPlan(
        pairs=asked.pairs,
        seeds=settings.seeds(chosen.seeds),
        attribute=replacing.attribute,
        window_size=chosen.window_size,
        sampling=settings.sampling,
        effort=chosen.effort,
        part=chosen.part,
        taken=asked.taken,
    )
    clip = options.load_clip(settings.model, chosen.scorer, chosen.architecture)
    engine, out = options.load_engine(settings.model), chosen.out
    most = plan.most_images(engine.layers)
    came_from = provenance(engine, clip, f"diffusers {diffusers.__version__}")
    journal = Journal.open(out / JOURNALS, search_settings(plan, came_from["model_digest"], clip))
    if len(journal):
        click.echo(f"{len(journal)} images of this search are known from before")
    with options.bar() as progress:
        task = progress.add_task("unmodified", total=math.ceil(most))

        def on_batch(evaluation: Evaluation) -> None:
            own = round(evaluation.cost - evaluation.recalled)  # the time left is told by what this run makes
            left = math.ceil(most - evaluation.recalled)
            progress.update(task, completed=own, total=left, description=evaluation.label)
            write_text(out / "scores.csv", scores_csv(plan, evaluation.cells, evaluation.scores))

        result = search(engine, clip, plan, settings.rows, SearchProgress(on_batch), journal)
    write_text(out / "result.json", result_json(result, came_from))
    write_picture(out / "scores.png", score_plot(result))
    write_picture(out / "model.png", model_figure(result, engine.layers))
    write_picture(out / "windows.png", contact_sheet(result))
    click.echo(f"{report_text(result)}\nsaved in {out}")
