"""`python -m loco_core trace`: which layers hold a concept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import diffusers

from .. import (
    DiffusersEngine,
    Effort,
    Journal,
    Part,
    Scorer,
    SearchPlan,
    SearchProgress,
    SearchResult,
    prompt_pairs,
    provenance,
    result_json,
    scores_csv,
    search,
    search_report,
    search_settings,
)
from ..files import write_picture, write_text
from ..localization.evaluation import Evaluation
from ..localization.localize import about_rows
from ..localization.pictures import contact_sheet, search_picture
from ..localization.plan import AUTO, LEVELS
from ..localization.probe_report import block_report
from ..localization.search import check_scorer, images_to_make
from ..models.layers import LayerSet, ModelLayers
from ..prompts import Attribute
from . import options
from .options import OneOf, Replacing, Settings

# In the output folder: where a search keeps what it has made.
JOURNALS = "journals"
# What a search writes: its result, what windows were compared by, the model with its layers coloured, the images.
RESULT, LAYERS, IMAGES = "result.json", "layers.png", "images.png"


@dataclass(frozen=True)
class TraceChoices:
    """How to search, what scores the images, and where the result goes."""

    window_size: int | None
    effort: Effort
    levels: int
    part: Part
    seeds: int
    scorer: Path | None
    architecture: str | None
    out: Path


@dataclass(frozen=True)
class Workshop:
    """What a search works with. `rows`: of the denoiser, at once."""

    engine: DiffusersEngine
    scorer: Scorer | None
    rows: int

    @cached_property
    def provenance(self) -> dict[str, str]:
        return provenance(self.engine, self.scorer, f"diffusers {diffusers.__version__}")


@click.command()
@options.replacing
@click.option(
    "--window-size",
    type=click.IntRange(AUTO),
    help="Adjacent layers that get the target together; 0 finds the fewest that have the effect. [default: 0; with "
    "--preset paper, the paper's for this model]",
)
@click.option(
    "--effort",
    type=OneOf(Effort),
    default=str(Effort.PROBE),
    show_default=True,
    help="'probe' measures windows in what the denoiser predicts, and confirms the best in images; 'exhaustive' makes "
    "every image of every window, and needs a scorer.",
)
@click.option("--levels", type=click.IntRange(1), default=LEVELS, show_default=True, help="Noise levels to probe at.")
@click.option(
    "--part", type=OneOf(Part), default=str(Part.BOTH), show_default=True, help="What gets the target prompt."
)
@options.seeds_option(4)
@options.scorer_option()
@options.architecture_option()
@options.out_option("loco_trace", resumes=True)
@options.settings
def trace(settings: Settings, replacing: Replacing, **given: Any) -> None:
    """LocoGen: find the layers. Writes result.json, images.csv (every image and its score), layers.png (the model with
    its layers coloured, above what windows were compared by) and images.png. Where it was stopped, the same command
    goes on.

    \b
    python -m loco_core trace --concept woodcut --target "a painting"

    The paper's experiment:

    \b
    python -m loco_core trace --concept "Van Gogh" --target "a painting" --effort exhaustive --preset paper
    --model FOLDER --scorer FILE
    """
    chosen = TraceChoices(**given)
    asked = prompt_pairs(replacing.concepts, replacing.targets, replacing.attribute, ("concept", "target"))
    scorer = options.load_clip_if_given(settings.model, chosen.scorer, chosen.architecture)
    check_scorer(scorer, chosen.effort)
    workshop = Workshop(options.load_engine(settings), scorer, settings.rows)
    size = chosen.window_size
    if size is None:
        size = paper_window_size(workshop.engine.layers, replacing.attribute) if settings.is_paper else AUTO
    plan = SearchPlan(
        pairs=asked.pairs,
        seeds=settings.seeds(chosen.seeds),
        attribute=replacing.attribute,
        sampling=settings.sampling,
        window_size=size,
        effort=chosen.effort,
        levels=chosen.levels,
        part=chosen.part,
        taken=asked.taken,
    )
    found = find(workshop, plan, chosen.out)
    report = search_report(found) + block_report(workshop.engine.layers, found.layers, found.smallest)
    click.echo(f"{report}\nsaved in {chosen.out}")


def paper_layers(layers: ModelLayers, attribute: Attribute) -> LayerSet | None:
    """The layers that the paper found for the attribute in such a model; None where it has not looked."""
    try:
        return layers.preset(attribute)[0]
    except ValueError:
        return None


def paper_window_size(layers: ModelLayers, attribute: Attribute) -> int:
    """That of the layers that the paper found for the attribute in such a model."""
    found = paper_layers(layers, attribute)
    if found is None:
        raise ValueError(
            f"preset: the paper has no window size for {layers.model_name}; give --window-size, or 0 to find it"
        )
    return len(found)


def find(workshop: Workshop, plan: SearchPlan, out: Path) -> SearchResult:
    """Searches, and writes what is found into a folder; goes on where an earlier run of the same search was stopped."""
    engine, came_from = workshop.engine, workshop.provenance
    rows = about_rows(plan.probe, engine.layers, plan.window_size) if plan.probe else 0
    images = images_to_make(plan, engine.layers)
    journal = Journal.open(out / JOURNALS, search_settings(plan, came_from["model_digest"], workshop.scorer))
    if len(journal):
        click.echo(f"{len(journal)} images of this search are known from before")
    with options.bar() as progress:
        probing = progress.add_task("probe", total=rows, visible=bool(rows))
        making = progress.add_task("unmodified", total=images)

        def on_rows(done: int) -> None:
            progress.update(probing, completed=min(done, rows))

        def on_batch(made: Evaluation) -> None:
            progress.update(probing, completed=rows)
            own = len(made.cells) - made.recalled  # the time left is told by what this run makes
            progress.update(making, completed=own, total=images - made.recalled, description=made.label)
            write_text(out / "images.csv", scores_csv(plan, made.cells, made.scores))

        result = search(engine, workshop.scorer, plan, workshop.rows, SearchProgress(on_rows, on_batch), journal)
    write_text(out / RESULT, result_json(result, came_from))
    write_picture(out / LAYERS, search_picture(result, engine.layers))
    write_picture(out / IMAGES, contact_sheet(result, every=True))
    return result
