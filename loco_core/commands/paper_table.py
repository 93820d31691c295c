"""The paper's table repeated: what searches found, beside the layers that the paper found."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..localization.plan import Effort
from ..localization.verdict import Kind
from ..models.layers import LayerSet
from .paper_concepts import PaperConcept


@dataclass(frozen=True)
class Found:
    """What a search says. share: of the effect of all layers; None where there is none. text: the verdict in words."""

    layers: LayerSet
    share: float | None
    kind: Kind
    text: str

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Found:
        """From the JSON that the search saved."""
        layers = LayerSet(tuple(content["layers"]), content["layer_count"])
        shares = dict(zip(map(tuple, content["windows"]), content["shares"], strict=True))
        verdict = content["verdict"]
        return cls(layers, shares.get(layers.indices), Kind(verdict["kind"]), verdict["text"])


@dataclass(frozen=True)
class TableRow:
    """A concept: what was found by each effort, and by the paper, if it has looked in such a model."""

    concept: PaperConcept
    found: Mapping[Effort, Found]
    paper: LayerSet | None

    def overlaps(self, effort: Effort) -> bool | None:
        """Whether a layer that was found is one of the paper's; None where there is nothing to compare."""
        layers = self.found[effort].layers
        return bool(set(layers) & set(self.paper)) if self.paper and layers else None

    @property
    def cells(self) -> dict[str, str]:
        """As text, by the name of the column."""
        cells = {"attribute": str(self.concept.attribute), "concept": self.concept.name, "target": self.concept.target}
        for effort, found in self.found.items():
            cells |= {
                f"{effort}": str(found.layers) or "none",
                f"{effort} share": "" if found.share is None else f"{found.share:.0%}",
                f"{effort} verdict": str(found.kind),
                f"{effort} overlaps": {True: "yes", False: "no", None: ""}[self.overlaps(effort)],
            }
        return cells | {"paper": str(self.paper or "")}

    @property
    def content(self) -> dict[str, object]:
        """As JSON."""
        found = {
            str(effort): {
                "layers": list(one.layers),
                "share": one.share,
                "verdict": one.kind,
                "overlaps_paper": self.overlaps(effort),
            }
            for effort, one in self.found.items()
        }
        own = {"attribute": self.concept.attribute, "concept": self.concept.name, "target": self.concept.target}
        return {**own, **found, "paper": self.paper and list(self.paper)}


def table_csv(rows: Sequence[TableRow]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0].cells), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.cells for row in rows)
    return out.getvalue()


def table_text(rows: Sequence[TableRow]) -> str:
    """In columns, and how often what was found overlaps with the paper's."""
    lines = [list(rows[0].cells), *(list(row.cells.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    told = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*told, *overlap_lines(rows)])


def overlap_lines(rows: Sequence[TableRow]) -> list[str]:
    """For each effort, how often what was found overlaps with the paper's, where both have layers."""
    lines = []
    for effort in rows[0].found:
        compared = [overlaps for row in rows if (overlaps := row.overlaps(effort)) is not None]
        if compared:
            lines.append(f"{effort}: {sum(compared)} of {len(compared)} overlap with the layers in the paper")
    return lines
