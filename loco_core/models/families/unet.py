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
# How a LoRA's metadata name those models, by whether they predict v: `ss_base_model_version` of kohya's scripts, the
# architecture in Stability AI's ModelSpec, and the size of their images.
METADATA_NAMES = {
    ("SD 1.5", False): ("sd_v1", "stable-diffusion-v1", 512),
    ("SD 1.5", True): ("sd_v1_v", "stable-diffusion-v1", 512),
    ("SD 2.1", False): ("sd_v2", "stable-diffusion-v2-512", 512),
    ("SD 2.1", True): ("sd_v2_v", "stable-diffusion-v2-768-v", 768),
    ("SDXL", False): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024),
    ("SDXL", True): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base", 1024),
}
# The size of the images of other models, by the width of their embeddings: the demo model's and SDXL's refiner's.
OTHER_SIZES, USUAL_SIZE = {128: 128, 1280: 1024}, 512
# Whose modules a LoRA's keys name, as ModelSpec says it.
ORIGINAL_CODE = "https://github.com/Stability-AI/generative-models"
DIFFUSERS_CODE = "diffusers"
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
        block = (
            self._original_block(layer) if self._is_original(layers, naming) else self._diffusers_block(layer, layers)
        )
        name, weight = f"{block}.transformer_blocks.{layer.inner}.attn2", self.projections[projection]
        if naming is Naming.DIFFUSERS:
            return f"unet.{name}.processor.{weight}_lora"
        return f"lora_unet_{name.replace('.', '_')}_{weight}"

    def _is_original(self, layers: ModelLayers, naming: Naming) -> bool:
        """Whether keys name the original U-Net's modules. kohya's scripts train that one from SDXL on, whose generation
        stacks several transformer blocks in a block; before, there is one.
        """
        return naming is Naming.KOHYA and any(layer.inner for layer in layers)

    def _original_block(self, layer: TextLayer) -> str:
        if layer.block == "middle":
            return "middle_block.1"
        return f"{layer.block}_blocks.{layer.block_number}.1"

    def _diffusers_block(self, layer: TextLayer, layers: ModelLayers) -> str:
        """Each of diffusers' blocks is a level: its ResNets with their attentions, and one block more for the
        down-sampling on the way down, for the ResNet that follows it on the way up. The original's input block 0 is the
        first convolution.
        """
        if layer.block == "middle":
            return "mid_block.attentions.0"
        down = layer.block == "input"
        place = layer.block_number - down
        for number, resnets in enumerate(layers.levels if down else reversed(layers.levels)):
            if place <= resnets:
                return f"{'down' if down else 'up'}_blocks.{number}.attentions.{place}"
            place -= resnets + 1
        raise ValueError(f"model: its layer {layer} is in none of its levels, of {layers.levels} ResNets")

    def pooled_lora_key(self, naming: Naming) -> str:
        """Of SDXL's label_emb.0.0, whose first inputs are the pooled embedding."""
        return "lora_unet_label_emb_0_0" if naming is Naming.KOHYA else "unet.add_embedding.linear_1.lora"

    def lora_metadata(self, layers: ModelLayers, naming: Naming) -> dict[str, str]:
        names = METADATA_NAMES.get((layers.model_name, layers.predicts_v))
        if names is None:
            return {}
        version, architecture, size = names
        return {
            "ss_base_model_version": version,
            "ss_v2": str(version.startswith("sd_v2")),
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.architecture": f"{architecture}/lora",
            "modelspec.implementation": ORIGINAL_CODE if self._is_original(layers, naming) else DIFFUSERS_CODE,
            "modelspec.resolution": f"{size}x{size}",
            "modelspec.prediction_type": "v" if layers.predicts_v else "epsilon",
        }

    def image_size(self, layers: ModelLayers) -> int:
        names = METADATA_NAMES.get((layers.model_name, layers.predicts_v))
        return names[2] if names else OTHER_SIZES.get(layers.width, USUAL_SIZE)

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
