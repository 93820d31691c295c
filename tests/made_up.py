"""Edits for tests: from an operator, or solved on made-up embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from loco_core.edit import Edit, EditFigures, EditRecipe, EditSettings
from loco_core.engine import TextEmbedding
from loco_core.layers import LayerSet
from loco_core.prompts import PromptPair
from loco_core.solver import EditOperator

WIDTH, POOLED = 32, 8
LAYERS = LayerSet((8, 9), 16)


def recipe(
    concepts: Sequence[str] = ("woodcut",),
    target: str = "a painting",
    preserve: Sequence[str] = (),
    layers: LayerSet = LAYERS,
    **settings,
) -> EditRecipe:
    pairs = tuple(PromptPair(concept, target) for concept in concepts)
    return EditRecipe(pairs, tuple(preserve), EditSettings(**settings), layers, "a text encoder")


def edit_of(operator: EditOperator, layers: LayerSet, pooled: EditOperator | None = None) -> Edit:
    """An edit with this operator; its recipe and figures are made up."""
    return Edit(recipe(layers=layers), operator, EditFigures(operator.rank, 1.0, 0.0, (1.0,), 0, 0.0, 0.0), pooled)


def encode(prompts: Sequence[str]) -> list[TextEmbedding]:
    """A made-up text encoder that reads from left to right: a token's embedding depends on all words up to it."""
    embeddings = []
    for prompt in prompts:
        words = prompt.split()
        seen, tokens = "start", []
        for word in ["", *words, *["end"] * (76 - len(words))]:
            seen = f"{seen} {word}" if len(tokens) <= len(words) + 1 else seen
            seed = sum(ord(letter) * (place + 1) for place, letter in enumerate(seen))
            own = torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed))
            tokens.append(own + 0.01 * torch.randn(WIDTH, generator=torch.Generator().manual_seed(len(tokens))))
        pooled = torch.randn(POOLED, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))
        embeddings.append(TextEmbedding(prompt, torch.stack(tokens), len(words), pooled))
    return embeddings
