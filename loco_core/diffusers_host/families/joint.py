"""How diffusers' transformers are read whose blocks read and change text and image together."""

from __future__ import annotations

import diffusers

from ...models.families.joint import FLUX, SD3, JointTransformer
from ...models.layers import ModelLayers, TextLayer

# By family: its kinds of blocks in forward order, each with the name of their list.
BLOCKS = {
    SD3: {"joint": "transformer_blocks"},
    FLUX: {"double": "transformer_blocks", "single": "single_transformer_blocks"},
}


def read_blocks(transformer: diffusers.ModelMixin, family: JointTransformer) -> ModelLayers:
    """The blocks of a transformer, with their modules' names there."""
    blocks = [
        (kind, number, f"{where}.{number}")
        for kind, where in BLOCKS[family].items()
        for number in range(len(transformer.get_submodule(where)))
    ]
    return ModelLayers(
        layers=tuple(TextLayer(index, kind, number, 0) for index, (kind, number, _) in enumerate(blocks)),
        modules=tuple(name for _, _, name in blocks),
        width=transformer.config.joint_attention_dim,
        family=family,
    )
