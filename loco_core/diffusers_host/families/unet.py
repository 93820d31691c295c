"""How diffusers' U-Nets are read."""

from __future__ import annotations

import itertools
import re

import diffusers
from diffusers.models.attention_processor import Attention

from ...models.families.unet import UNET
from ...models.family import Family
from ...models.layers import ModelLayers, Part, TextLayer

_LAYER_NAME = re.compile(
    r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.attentions\.(\d+)(?:\.transformer_blocks\.(\d+)\.attn2)?"
)
_FORWARD_ORDER = ("down_blocks", "mid_block", "up_blocks")


def read_layers(unet: diffusers.UNet2DConditionModel, family: Family = UNET, predicts_v: bool = False) -> ModelLayers:
    """The text layers of a U-Net, with their modules' names there.

    The blocks are counted as Stable Diffusion's own code does: input block 0 is the first convolution, and every
    down-sampling is a block.
    """
    found = []
    for name, module in unet.named_modules():
        match = _LAYER_NAME.fullmatch(name)
        if match and isinstance(module, Attention):
            part, block, attention, inner = match[1], int(match[2] or 0), int(match[3]), int(match[4] or 0)
            found.append((_FORWARD_ORDER.index(part), block, attention, inner, name))
    levels = tuple(len(block.resnets) for block in unet.down_blocks)
    # The number of the first block of each of diffusers' blocks: the one for the sampling is counted with its ResNets.
    firsts = (
        list(itertools.accumulate((resnets + 1 for resnets in levels), initial=1)),
        [0],
        list(itertools.accumulate((resnets + 1 for resnets in reversed(levels)), initial=0)),
    )
    layers: list[TextLayer] = []
    names: list[str] = []
    for part, block, attention, inner, name in sorted(found):
        place = firsts[part][block] + attention
        layers.append(TextLayer(len(layers), ("input", "middle", "output")[part], place, inner))
        names.append(name)
    if not layers:
        raise ValueError("model: its U-Net has no cross-attention layers that get the prompt")
    projection = unet.get_submodule(f"{names[0]}.{family.projections[Part.KEYS]}")
    return ModelLayers(tuple(layers), tuple(names), projection.in_features, family, levels, predicts_v)
