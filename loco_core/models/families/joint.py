"""Transformers whose blocks get the text as other parts of the model have changed it.

SD 3, Flux, Chroma, Qwen-Image and Z-Image read and change text and image together; Wan's blocks all get one text, which
layers before them have made.

The text that a block reads depends on what is before it. So giving a block another prompt is defined by two text
streams and one image: own and other prompt each go through all blocks, both see the one image, and at each block the
image becomes what the block makes of it with the other prompt's stream if the block is chosen, else with its own. No
block chosen is the own prompt, all blocks are the other.
"""

from __future__ import annotations

from ..layers import ModelLayers
from .transformer import Transformer


class JointTransformer(Transformer):
    """names: of known models, by the number of their blocks. sizes: of their images, where not the usual."""

    projections = {}
    chunk_length = 0
    joint = True

    def __init__(self, name: str, names: dict[int, str] | None = None, sizes: dict[int, int] | None = None) -> None:
        self._name, self._names, self._sizes = name, names or {}, sizes or {}

    def model_name(self, layer_count: int, width: int) -> str:
        return self._names.get(layer_count, f"{self._name} with {layer_count} blocks")

    def image_size(self, layers: ModelLayers) -> int:
        return self._sizes.get(len(layers), super().image_size(layers))


SD3 = JointTransformer(
    "SD 3", {12: "the demo transformer", 24: "SD 3 or 3.5 Medium", 38: "SD 3.5 Large"}, sizes={12: 128}
)
FLUX = JointTransformer("Flux", {57: "Flux.1"})
CHROMA = JointTransformer("Chroma", {57: "Chroma"})
LUMINA = JointTransformer("Lumina 2", {26: "Lumina 2", 30: "Z-Image"})
WAN = JointTransformer("Wan", {30: "Wan 2.x, 30 blocks", 40: "Wan 2.x, 40 blocks"})
QWEN_IMAGE = JointTransformer("Qwen-Image", {60: "Qwen-Image"})
