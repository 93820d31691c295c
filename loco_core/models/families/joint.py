"""Transformers whose blocks get the text as other parts of the model have changed it.

SD 3, Flux, Chroma, Qwen-Image and Z-Image read and change text and image together; Wan's blocks all get one text, which
layers before them have made.

The text that a block reads depends on what is before it. So giving a block another prompt is defined by two text
streams and one image: own and other prompt each go through all blocks, both see the one image, and at each block the
image becomes what the block makes of it with the other prompt's stream if the block is chosen, else with its own. No
block chosen is the own prompt, all blocks are the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..family import Naming
from ..layers import ModelLayers, Part, TextLayer
from .transformer import Transformer, kohya_key


@dataclass(frozen=True, eq=False)
class JointTransformer(Transformer):
    """text_in: the linear layer by which text comes in, as the original code names it. names: of known models, by the
    number of their blocks. sizes: of their images, where not the usual. pooled_in: the first layer that a pooled
    embedding meets, where there is one. normed: whether the text is normalised before it comes in.
    """

    projections = {}
    chunk_length = 0
    joint = True

    name: str
    text_in: str
    names: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    pooled_in: str = ""
    normed: bool = False

    def model_name(self, layer_count: int, width: int) -> str:
        return self.names.get(layer_count, f"{self.name} with {layer_count} blocks")

    def image_size(self, layers: ModelLayers) -> int:
        return self.sizes.get(len(layers), super().image_size(layers))

    def lora_key(self, layer: TextLayer, projection: Part, layers: ModelLayers, naming: Naming) -> str:
        return kohya_key(self.text_in, naming)

    def pooled_lora_key(self, naming: Naming) -> str:
        return kohya_key(self.pooled_in, naming) if self.pooled_in else super().pooled_lora_key(naming)


SD3 = JointTransformer(
    "SD 3",
    "context_embedder",
    {12: "the demo transformer", 24: "SD 3 or 3.5 Medium", 38: "SD 3.5 Large"},
    sizes={12: 128},
    pooled_in="y_embedder.mlp.0",
)
FLUX = JointTransformer("Flux", "txt_in", {57: "Flux.1"}, pooled_in="vector_in.in_layer")
CHROMA = JointTransformer("Chroma", "txt_in", {57: "Chroma"})
LUMINA = JointTransformer("Lumina 2", "cap_embedder.1", {26: "Lumina 2", 30: "Z-Image"}, normed=True)
WAN = JointTransformer("Wan", "text_embedding.0", {30: "Wan 2.x, 30 blocks", 40: "Wan 2.x, 40 blocks"})
QWEN_IMAGE = JointTransformer("Qwen-Image", "txt_in", {60: "Qwen-Image"}, normed=True)
