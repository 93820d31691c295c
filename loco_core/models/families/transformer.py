"""What diffusion transformers have in common: blocks one after the other, each of which reads the prompt once.

A text layer is a block. People name it by its kind and its number among those: "double 5", "single 30", or by its
index among all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..family import Family, FloorPlan, Naming, PlacedBlock
from ..layers import ModelLayers, Part, TextLayer, parse_range

# Blocks side by side in a picture of the model.
ROW = 10
_BLOCK = re.compile(r"(?P<kind>[a-z]+)[ _]?(?:blocks?)?[ ._]?(?P<first>\d+)(?:-(?P<last>\d+))?")


class Transformer(Family):
    grammar = "give indices like '8-9' or '3, 8-9', blocks like 'double 0-5' where there are several kinds, or 'all'"

    def parse_block(self, entry: str, layers: ModelLayers) -> list[int]:
        """The kind of a block, or how it begins, and its number among those of the kind: "double 5", "s0-9",
        "single_blocks.3".
        """
        match = _BLOCK.fullmatch(entry)
        kinds = [kind for kind in kinds_of(layers) if match and kind.startswith(match["kind"])]
        if match is None or not kinds:
            raise ValueError(f"layers: {entry!r} is not understood; {self.grammar}")
        own = [layer.index for layer in layers if layer.block == kinds[0]]
        what = "blocks" if len(kinds_of(layers)) == 1 else f"{kinds[0]} blocks"
        places = parse_range(entry, match["first"], match["last"], len(own), what)
        return own[places.start : places.stop]

    def block_name(self, layer: TextLayer, layers: ModelLayers) -> str:
        return f"{layer.block} {layer.block_number}"

    def block_names(self, chosen: Sequence[TextLayer], layers: ModelLayers) -> str:
        runs: list[list[TextLayer]] = []
        for layer in chosen:
            last = runs[-1][-1] if runs else None
            if last is not None and (last.block, last.block_number + 1) == (layer.block, layer.block_number):
                runs[-1].append(layer)
            else:
                runs.append([layer])
        return ", ".join(
            f"{run[0].block} {run[0].block_number}" + (f"-{run[-1].block_number}" if len(run) > 1 else "")
            for run in runs
        )

    def lora_key(self, layer: TextLayer, projection: Part, layers: ModelLayers, naming: Naming) -> str:
        return kohya_key(layers.projection(layer.index, projection).partition(".")[2], naming)

    def lora_metadata(self, layers: ModelLayers, naming: Naming) -> dict[str, str]:
        return {}

    def image_size(self, layers: ModelLayers) -> int:
        return 1024

    def first_window_size(self, layer_count: int) -> int:
        return 3

    def floor_plan(self, layers: ModelLayers) -> FloorPlan:
        """In rows of blocks of a kind, as one reads."""
        rows = [
            own[start : start + ROW]
            for kind in kinds_of(layers)
            for own in [[layer for layer in layers if layer.block == kind]]
            for start in range(0, len(own), ROW)
        ]
        blocks = [
            PlacedBlock(_row_name(row), tuple(layer.index for layer in row), 0.0, number)
            for number, row in enumerate(rows)
        ]
        return FloorPlan(tuple(blocks), (), len(rows))


def kohya_key(module: str, naming: Naming) -> str:
    """How kohya's scripts name the weight of a module of the original code."""
    if naming is Naming.DIFFUSERS:
        raise ValueError("naming: LoRAs of transformers have no other names than kohya's here; choose 'kohya'")
    return f"lora_unet_{module.replace('.', '_')}"


def _row_name(row: Sequence[TextLayer]) -> str:
    """Of blocks of a kind, one after the other, as a person can write it: "d0-9"."""
    first, last = row[0].block_number, row[-1].block_number
    return f"{row[0].block[0]}{first}" + (f"-{last}" if last > first else "")


def kinds_of(layers: ModelLayers) -> list[str]:
    """The kinds of blocks, in forward order."""
    return list(dict.fromkeys(layer.block for layer in layers))
