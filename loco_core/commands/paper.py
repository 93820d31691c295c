"""`python -m loco_core paper`: the paper's table, repeated on a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from .. import Effort, SearchPlan
from ..files import write_text
from ..localization.plan import AUTO
from ..localization.report import FORMAT
from ..localization.search import check_scorer
from ..prompts import Attribute
from . import options
from .options import Settings
from .paper_concepts import CONCEPTS, PaperConcept
from .paper_page import paper_page
from .paper_table import Found, TableRow, table_csv, table_text
from .trace import RESULT, Workshop, find, paper_layers


@dataclass(frozen=True)
class PaperChoices:
    """Which concepts to search for, how, what scores the images, and where the table goes."""

    only: tuple[str, ...]
    exhaustive: bool
    seeds: int
    scorer: Path | None
    architecture: str | None
    out: Path

    @property
    def concepts(self) -> list[PaperConcept]:
        wanted = self.only or tuple(Attribute)
        return [concept for concept in CONCEPTS if concept.name in wanted or concept.attribute in wanted]

    @property
    def efforts(self) -> list[Effort]:
        return [Effort.PROBE, *([Effort.EXHAUSTIVE] if self.exhaustive else [])]


@click.command()
@click.option(
    "--only",
    type=click.Choice([*Attribute.words(), *(concept.name for concept in CONCEPTS)]),
    multiple=True,
    help="An attribute, or a concept of the paper. Repeat it for more. [default: all]",
)
@click.option("--exhaustive", is_flag=True, help="The paper's search too: every image of every window. Needs a scorer.")
@options.seeds_option(4)
@options.scorer_option()
@options.architecture_option()
@options.out_option("loco_paper", resumes=True)
@options.settings
def paper(settings: Settings, **given: Any) -> None:
    """Repeat the paper's table: find the layers of its styles, objects and facts in a model, and set them beside those
    that the paper found. Writes table.csv, table.json, index.html with all pictures, and what `trace` writes for each
    concept. Where it was stopped, the same command goes on.

    \b
    python -m loco_core paper --model FOLDER
    python -m loco_core paper --model FOLDER --exhaustive --scorer FILE
    """
    chosen = PaperChoices(**given)
    scorer = options.load_clip_if_given(settings.model, chosen.scorer, chosen.architecture)
    for effort in chosen.efforts:
        check_scorer(scorer, effort)
    workshop = Workshop(options.load_engine(settings), scorer, settings.rows)
    rows: list[TableRow] = []
    for concept in chosen.concepts:
        click.echo(f"{concept.attribute}: {concept.name}")
        rows.append(_row(workshop, concept, settings, chosen))
        _write(chosen.out, rows, workshop)
    click.echo(f"{table_text(rows)}\nlook at {chosen.out / 'index.html'}")


def _row(workshop: Workshop, concept: PaperConcept, settings: Settings, chosen: PaperChoices) -> TableRow:
    """Searches for a concept, or reads what an earlier run has found."""
    layers = paper_layers(workshop.engine.layers, concept.attribute)
    found = {}
    for effort in chosen.efforts:
        plan = SearchPlan(
            pairs=concept.pairs,
            seeds=settings.seeds(chosen.seeds),
            attribute=concept.attribute,
            sampling=settings.sampling,
            window_size=len(layers) if layers and effort is Effort.EXHAUSTIVE else AUTO,
            effort=effort,
        )
        folder = chosen.out / concept.slug / str(effort)
        content = _saved(folder / RESULT)
        if not _asked(plan, workshop).items() <= content.items():
            find(workshop, plan, folder)
            content = _saved(folder / RESULT)
        found[effort] = Found.read(content)
        click.echo(f"  {effort}: {found[effort].text}")
    return TableRow(concept, found, layers)


def _saved(file: Path) -> dict[str, Any]:
    """The result of a search; nothing where there is none, or none that can be read."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _asked(plan: SearchPlan, workshop: Workshop) -> Mapping[str, object]:
    """What a saved result says if it is the plan's."""
    return {
        "format": FORMAT,
        "effort": plan.effort,
        "window_size": plan.window_size,
        "part": plan.part,
        "pairs": [asdict(pair) for pair in plan.pairs],
        "seeds": list(plan.seeds),
        "sampling": asdict(plan.sampling),
        "provenance": workshop.provenance,
    }


def _write(out: Path, rows: Sequence[TableRow], workshop: Workshop) -> None:
    name = workshop.engine.layers.model_name
    content = {"model": name, "provenance": workshop.provenance, "rows": [row.content for row in rows]}
    write_text(out / "table.csv", table_csv(rows))
    write_text(out / "table.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    write_text(out / "index.html", paper_page(rows, name))
