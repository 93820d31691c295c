"""Chosen text layers get another embedding: the search's interventions, and per-layer injection in any graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...loco_core.models.engine import Row, TextEmbedding
from ...loco_core.models.layers import Address, LayerSet, ModelLayers, Part
from .branches import Scope, call_rows, positive_rows, tell_branches
from .families import unet
from .text_patch import GivenTokens, TokensPatch

# What a conditioning can ask for that an injection does not do, and what it is where nothing is asked.
SETTINGS = {"mask": None, "area": None, "hooks": None, "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}


class InterventionPatch(TokensPatch):
    """The layers of each row's intervention get that intervention's embedding, in the rows of the positive prompt."""

    def __init__(self, rows: Sequence[Row], layers: ModelLayers) -> None:
        self._rows = len(rows)
        self._by_place: dict[Address, list[tuple[int, torch.Tensor, Part]]] = {}
        shared: dict[TextEmbedding, torch.Tensor] = {}  # most rows share one
        for position, row in enumerate(rows):
            if row.intervention is None:
                continue
            embedding = row.intervention.embedding
            tokens = shared.setdefault(embedding, embedding.tokens[None])
            for index in row.intervention.layers:
                own = self._by_place.setdefault(layers[index].address, [])
                own.append((position, tokens, row.intervention.part))
        self.places = frozenset(self._by_place)

    def given(self, options: dict[str, Any], count: int) -> list[GivenTokens]:
        rows, places = positive_rows(options, count), {}
        for row, (number, positive) in enumerate(zip(rows.numbers, rows.positive, strict=True)):
            if positive:
                places.setdefault(number, []).append(row)
        if places and max(places) >= self._rows:
            raise ValueError(
                f"model: another node makes {max(places) + 1} images of {self._rows}; search without it, and add it "
                "afterwards"
            )
        return [
            GivenTokens(tuple(places[position]), (0,) * len(places[position]), tokens, part)
            for position, tokens, part in self._by_place[unet.address(options)]
            if position in places
        ]


@dataclass(frozen=True, eq=False)
class Injection(TokensPatch):
    """The layers at `places` get `tokens` [B, T, d] in place of their own context, in a scope.

    With a strength other than 1 they get own + strength (tokens - own).
    """

    tokens: torch.Tensor
    places: frozenset[Address]
    part: Part
    strength: float
    scope: Scope

    def given(self, options: dict[str, Any], count: int) -> list[GivenTokens]:
        rows = self.scope.rows(options, count)
        if not rows:
            return []
        numbers = (0,) * count if len(self.tokens) == 1 else call_rows(options, count).numbers
        return [GivenTokens(rows, tuple(numbers[row] for row in rows), self.tokens, self.part, self.strength)]


@dataclass(frozen=True)
class InjectionSettings:
    """What of the layers gets the other prompt, how much of it, in which branch and when."""

    part: Part
    strength: float
    scope: Scope


def inject(
    model: ModelPatcher, layers: ModelLayers, conditioning: list, chosen: LayerSet, settings: InjectionSettings
) -> ModelPatcher:
    """A clone of `model` whose `chosen` layers get `conditioning`; with nothing to do, a clone that is as `model` is.

    The positive branch is the guider's positive conditioning; every other one it evaluates counts as negative.
    """
    tokens = _tokens(conditioning, layers.width)
    places = frozenset(layer.address for layer in layers.chosen(chosen))
    injected = model.clone()
    if settings.strength == 0 or not places:
        return injected
    tell_branches(injected)
    unet.add_patch(injected, Injection(tokens, places, settings.part, settings.strength, settings.scope))
    return injected


def _tokens(conditioning: list, width: int) -> torch.Tensor:
    """The token embeddings [B, T, d] of a conditioning that is one prompt."""
    if len(conditioning) != 1:
        raise ValueError(
            f"conditioning: {len(conditioning)} prompts; connect one CLIP Text Encode, not a combination of several"
        )
    tokens, settings = conditioning[0]
    ignored = sorted(name for name, usual in SETTINGS.items() if settings.get(name, usual) != usual)
    if ignored:
        raise ValueError(
            f"conditioning: its settings {', '.join(ignored)} (of a node that limits it to a time or an area) have no "
            "effect on single layers; connect the prompt without them, and use start_percent, end_percent and strength "
            "here"
        )
    if tokens.ndim != 3 or tokens.shape[-1] != width:
        raise ValueError(
            f"conditioning: its embeddings are {tokens.shape[-1]} wide, the model gets {width}; "
            "encode it with the CLIP that belongs to this model"
        )
    if not torch.isfinite(tokens).all():
        raise ValueError("conditioning: NaN or Inf in its embeddings")
    return tokens
