"""Stable Diffusion 1.x, 2.x and SDXL: U-Nets whose cross-attention gets the output of CLIP.

A text layer is one cross-attention (attn2) of one BasicTransformerBlock. W_K and W_V have no bias and every layer gets
the same embedding, so one operator edits them all.
"""

from __future__ import annotations

import re

from ...prompts import Attribute
from ..family import Family, FloorPlan, Heading, Naming, PlacedBlock, Preset
from ..layers import ModelLayers, Part, TextLayer, parse_range

# Models by their number of text layers and the width of the embeddings that these get.
SHAPES = {(16, 768): "SD 1.5", (16, 1024): "SD 2.1", (70, 2048): "SDXL"}
# Where a person's letters lead: down, middle and up.
SIDES = {"d": "input", "m": "middle", "u": "output"}
# Text layers of Stable Diffusion 1.x and 2.x, whose blocks hold three of diffusers' modules each.
SD_LAYERS = 16
# From this many on, the paper's windows have 3 layers, else 2.
LARGE = 24

# What other programs call the blocks, by the numbers of the original code.
ORIGINAL = {"in": "input", "mid": "middle", "out": "output"}

# After the blocks, those of the transformer blocks in them.
_INNER = r"(?:\.(?P<inner>\d+)(?:-(?P<inner_last>\d+))?)?"
_BLOCK = re.compile(rf"(?P<kind>[dmu])(?P<first>\d+)(?:-(?P<last>\d+))?{_INNER}")
_ORIGINAL = re.compile(
    r"(?P<name>(?P<kind>in|mid|out)(?:put|dle)?(?:_blocks?\.?|:)?)"
    rf"(?:(?P<first>\d+)(?:-(?:(?P=name))?(?P<last>\d+))?)?{_INNER}"
)


class UNet(Family):
    projections = {Part.KEYS: "to_k", Part.VALUES: "to_v"}
    chunk_length = 77
    end_of_text = 49407
    grammar = "give indices like '8-9' or '3, 8-9', blocks like 'd2.2-9, m0, u1' or 'OUT04', or 'all'"
    presets = (
        Preset("SD 1.5", Attribute.STYLE, 8, 2, "the paper, section 5.2"),
        Preset("SD 1.5", Attribute.OBJECT, 6, 2, "the paper, section 5.2"),
        Preset("SD 1.5", Attribute.FACT, 6, 2, "the paper, section 5.2"),
        Preset("SD 2.1", Attribute.STYLE, 8, 3, "the paper, figure 5b; its section 5.2 has two layers"),
        Preset("SD 2.1", Attribute.OBJECT, 8, 3, "the paper gives the first layer; three layers as for the style"),
        Preset("SD 2.1", Attribute.FACT, 7, 3, "the paper gives the first layer; three layers as for the style"),
        Preset("SDXL", Attribute.STYLE, 45, 3, "the paper, section 5.2"),
        Preset("SDXL", Attribute.OBJECT, 15, 5, "the paper, section 5.2"),
        Preset("SDXL", Attribute.FACT, 45, 5, "the paper, figure 5; its section 5.2 has three layers"),
    )

    def model_name(self, layer_count: int, width: int) -> str:
        return SHAPES.get(
            (layer_count, width), f"a model with {layer_count} cross-attention layers and embeddings {width} wide"
        )

    def parse_block(self, entry: str, layers: ModelLayers) -> list[int]:
        """A block entry is d, m or u (down, middle, up) and the number of the block, counting from 0 the blocks that
        have cross-attention; then, after a dot, the transformer blocks in it: "d2.2-9", "m0", "u1.4", "u0-2". Without
        the dot all of them are meant. The names of other programs count all blocks of the original code: "OUT04",
        "MID", "IN07-IN08", "output:0".
        """
        if match := _BLOCK.fullmatch(entry):
            block = SIDES[match["kind"]]
            numbers = self._block_numbers(block, layers)
            places = parse_range(entry, match["first"], match["last"], len(numbers), f"{match['kind']} blocks")
            chosen = [numbers[place] for place in places]
        elif match := _ORIGINAL.fullmatch(entry):
            block = ORIGINAL[match["kind"]]
            chosen = self._original_numbers(entry, match, layers)
        else:
            raise ValueError(f"layers: {entry!r} is not understood; {self.grammar}")
        indices = []
        for number in chosen:
            inside = [layer.index for layer in layers if (layer.block, layer.block_number) == (block, number)]
            if match["inner"]:
                what = f"transformer blocks in {self.block_name(layers[inside[0]], layers).partition('.')[0]}"
                inner = parse_range(entry, match["inner"], match["inner_last"], len(inside), what)
                inside = inside[inner.start : inner.stop]
            indices += inside
        return indices

    def _original_numbers(self, entry: str, match: re.Match[str], layers: ModelLayers) -> list[int]:
        """The numbers of the blocks that an entry of another program names, as far as they have text layers."""
        block = ORIGINAL[match["kind"]]
        numbers = self._block_numbers(block, layers)
        if block == "middle" or match["first"] is None:  # there is one middle block, whatever number it is given
            return numbers
        wanted = parse_range(entry, match["first"], match["last"], numbers[-1] + 1, f"{block} blocks")
        found = [number for number in numbers if number in wanted]
        if not found:
            raise ValueError(
                f"layers: {entry!r} has no cross-attention; the {block} blocks that have it in this model are "
                f"{', '.join(map(str, numbers))}"
            )
        return found

    def block_name(self, layer: TextLayer, layers: ModelLayers) -> str:
        letter = next(letter for letter, block in SIDES.items() if block == layer.block)
        place = self._block_numbers(layer.block, layers).index(layer.block_number)
        return f"{letter}{place}.{layer.inner}"

    def _block_numbers(self, block: str, layers: ModelLayers) -> list[int]:
        """The numbers of the blocks of a kind that have text layers."""
        return sorted({layer.block_number for layer in layers if layer.block == block})

    def lora_key(self, layer: TextLayer, projection: Part, layers: ModelLayers, naming: Naming) -> str:
        inside = f"transformer_blocks.{layer.inner}.attn2.{self.projections[projection]}"
        if naming is Naming.KOHYA and len(layers) != SD_LAYERS:
            name = f"{self._original_block(layer)}.{inside}"
        else:
            name = f"{self._diffusers_block(layer)}.{inside}"
        return f"unet.{name}" if naming is Naming.DIFFUSERS else f"lora_unet_{name.replace('.', '_')}"

    def _original_block(self, layer: TextLayer) -> str:
        if layer.block == "middle":
            return "middle_block.1"
        return f"{layer.block}_blocks.{layer.block_number}.1"

    def _diffusers_block(self, layer: TextLayer) -> str:
        """Block 0 of the original is the first convolution; each of diffusers' blocks holds three of the others."""
        if layer.block == "middle":
            return "mid_block.attentions.0"
        side, first = ("down", 1) if layer.block == "input" else ("up", 0)
        number, attention = divmod(layer.block_number - first, 3)
        return f"{side}_blocks.{number}.attentions.{attention}"

    def pooled_lora_key(self, naming: Naming) -> str:
        """Of SDXL's label_emb.0.0, whose first inputs are the pooled embedding."""
        return "lora_unet_label_emb_0_0" if naming is Naming.KOHYA else "unet.add_embedding.linear_1"

    def first_window_size(self, layer_count: int) -> int:
        return 3 if layer_count >= LARGE else 2

    def floor_plan(self, layers: ModelLayers) -> FloorPlan:
        """Down on the left, middle below, up on the right."""
        numbers = {side: self._block_numbers(block, layers) for side, block in SIDES.items()}
        rows = max(len(numbers["d"]), len(numbers["u"]))
        columns = {"d": 0.0, "m": 0.5, "u": 1.0}
        blocks = []
        for side, own in numbers.items():
            for place, number in enumerate(own):
                inside = [layer for layer in layers if (layer.block, layer.block_number) == (SIDES[side], number)]
                row = {"d": place, "m": rows + 0.6, "u": len(own) - 1 - place}[side]
                indices = tuple(layer.index for layer in inside)
                blocks.append(PlacedBlock(f"{side}{place}", indices, columns[side], row))
        headings = (Heading("down", 0, -1.1), Heading("up", 1, -1.1), Heading("middle", 0.5, rows - 0.3))
        return FloorPlan(tuple(blocks), headings, rows)


UNET = UNet()
