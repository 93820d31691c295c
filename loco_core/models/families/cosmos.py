"""Cosmos-Predict2 and Anima: transformers with cross-attention, of which every block gets the same text embedding.

A text layer is the cross-attention of one block. W_K and W_V have no bias; keys are normalised after W_K, so an edit
that gives a layer the target's keys gives it the target's attention. Cosmos-Predict2 gets the output of T5, Anima that
of an adapter in the model, which reads the output of its text encoder. Both have 512 rows, zeros after the last token.
"""

from __future__ import annotations

from ..layers import Part
from .transformer import Transformer

# Models by the number of their blocks.
COSMOS_NAMES = {28: "Cosmos-Predict2 2B", 36: "Cosmos-Predict2 14B"}


class CosmosPredict2(Transformer):
    projections = {Part.KEYS: "k_proj", Part.VALUES: "v_proj"}
    chunk_length = 512

    def model_name(self, layer_count: int, width: int) -> str:
        return COSMOS_NAMES.get(layer_count, f"a Cosmos-Predict2 with {layer_count} blocks")


class Anima(CosmosPredict2):
    def model_name(self, layer_count: int, width: int) -> str:
        return "Anima" if layer_count in COSMOS_NAMES else f"an Anima with {layer_count} blocks"


COSMOS_PREDICT2, ANIMA = CosmosPredict2(), Anima()
