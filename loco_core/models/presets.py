"""The layers that the paper found, by model family and attribute (paper, sections 5.2 and 5.3)."""

from __future__ import annotations

from dataclasses import dataclass

from ..prompts import ATTRIBUTES
from .layers import LayerSet


@dataclass(frozen=True)
class ModelFamily:
    """Models that are told by their number of cross-attention layers and the width of the embedding these read."""

    name: str
    layer_count: int
    context_width: int


@dataclass(frozen=True)
class Preset:
    """A window of layers, and where it is from."""

    first: int
    window_size: int
    source: str


SD15 = ModelFamily("SD 1.5", 16, 768)
SD21 = ModelFamily("SD 2.1", 16, 1024)
SDXL = ModelFamily("SDXL", 70, 2048)

PRESETS: dict[tuple[ModelFamily, str], Preset] = {
    (SD15, "style"): Preset(8, 2, "the paper, section 5.2"),
    (SD15, "object"): Preset(6, 2, "the paper, section 5.2"),
    (SD15, "fact"): Preset(6, 2, "the paper, section 5.2"),
    (SD21, "style"): Preset(8, 3, "the paper, figure 5b; its section 5.2 has two layers"),
    (SD21, "object"): Preset(8, 3, "the paper gives the first layer; three layers as for the style"),
    (SD21, "fact"): Preset(7, 3, "the paper gives the first layer; three layers as for the style"),
    (SDXL, "style"): Preset(45, 3, "the paper, section 5.2"),
    (SDXL, "object"): Preset(15, 5, "the paper, section 5.2"),
    (SDXL, "fact"): Preset(45, 5, "the paper, figure 5; its section 5.2 has three layers"),
}


def family_name(layer_count: int, context_width: int) -> str:
    """The model family of this shape: "SD 1.5", or a description where it is none that is known."""
    for family in dict.fromkeys(family for family, _ in PRESETS):
        if (family.layer_count, family.context_width) == (layer_count, context_width):
            return family.name
    return f"{layer_count} cross-attention layers that read embeddings {context_width} wide"


def preset_layers(attribute: str, layer_count: int, context_width: int) -> tuple[LayerSet, str]:
    """The paper's layers for the attribute in a model of this shape, and a sentence on where they are from."""
    if attribute not in ATTRIBUTES:
        raise ValueError(f"attribute: {attribute!r}; give one of {', '.join(ATTRIBUTES)}")
    for (family, name), preset in PRESETS.items():
        if (family.layer_count, family.context_width, name) == (layer_count, context_width, attribute):
            chosen = LayerSet(tuple(range(preset.first, preset.first + preset.window_size)), layer_count)
            return chosen, f"{family.name}, {attribute}: {preset.source}"
    known = ", ".join(dict.fromkeys(family.name for family, _ in PRESETS))
    raise ValueError(
        f"preset: the paper has none for a model with {layer_count} cross-attention layers that read embeddings "
        f"{context_width} wide, only for {known}; write the layers down, or find them with LocoGen Layer Search"
    )
