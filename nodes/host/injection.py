"""Chosen text layers get another embedding: the search's interventions, and per-layer injection in any graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher

from ...loco_core.models.engine import Row, TextEmbedding
from ...loco_core.models.layers import Address, LayerSet, ModelLayers, Part
from .branches import KEY, Run, Scope, call_rows, positive_rows, prepared, tell_branches
from .families import add_patch, cosmos
from .streams import CONTEXT, STREAMS, OtherText, StreamPatch, others_of, prompt_conds
from .text_patch import GivenTokens, TokensPatch, address, repeat_tokens

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
            for position, tokens, part in self._by_place[address(options)]
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


class InterventionStreams(StreamPatch):
    """The same for blocks that change the text."""

    def __init__(self, rows: Sequence[Row], layers: ModelLayers, tokens: int) -> None:
        self.tokens = tokens
        changes = [(number, row.intervention) for number, row in enumerate(rows) if row.intervention is not None]
        for _, change in changes:
            layers.check_part(change.part)
        self._changes = {
            number: (change.embedding, frozenset(layers[index].address for index in change.layers))
            for number, change in changes
        }

    def others(self, model: BaseModel, x: torch.Tensor, options: dict[str, Any]) -> list[OtherText]:
        rows, entries = positive_rows(options, len(x)), []
        for row, (number, positive) in enumerate(zip(rows.numbers, rows.positive, strict=True)):
            if positive and number in self._changes:
                embedding, places = self._changes[number]
                entries.append((row, places, self._conds(embedding, model, x, options.get(KEY))))
        return others_of(entries)

    def _conds(
        self, embedding: TextEmbedding, model: BaseModel, x: torch.Tensor, run: Run | None
    ) -> dict[str, torch.Tensor]:
        return prepared(run, embedding, lambda: prompt_conds(model, conditioning_of([embedding]), x[:1]))


@dataclass(frozen=True, eq=False)
class StreamInjection(StreamPatch):
    """The blocks at `places` read the prompt of a conditioning, in a scope; with its pooled embedding or without."""

    conditioning: list
    places: frozenset[Address]
    strength: float
    scope: Scope
    pooled: bool

    def others(self, model: BaseModel, x: torch.Tensor, options: dict[str, Any]) -> list[OtherText]:
        rows, entries = self.scope.rows(options, len(x)), []
        if not rows:
            return []
        conds = prepared(options.get(KEY), self, lambda: prompt_conds(model, self.conditioning, x[:1], self.pooled))
        prompts = len(conds[CONTEXT])
        numbers = (0,) * len(x) if prompts == 1 else call_rows(options, len(x)).numbers
        for row in rows:
            which = [numbers[row] % prompts]
            entries.append((row, self.places, {name: value[which] for name, value in conds.items()}))
        return others_of(entries, self.strength)


def intervene(model: ModelPatcher, rows: Sequence[Row], layers: ModelLayers, tokens: int) -> None:
    """Puts the rows' interventions onto `model`, a clone of one's own. tokens: of the longest prompt with whose images
    these are compared.
    """
    if layers.family.joint:
        model.set_model_patch(InterventionStreams(rows, layers, tokens), STREAMS)
    else:
        add_patch(model, layers, InterventionPatch(rows, layers))


def conditioning_of(embeddings: Sequence[TextEmbedding]) -> list[list]:
    """One conditioning of the host's whose rows are the embeddings, repeated to a common number of tokens where they
    differ.
    """
    length, extra = math.lcm(*(len(embedding.tokens) for embedding in embeddings)), {}
    if embeddings[0].pooled is not None:
        extra["pooled_output"] = torch.stack([embedding.pooled for embedding in embeddings])
    return [[torch.stack([repeat_tokens(embedding.tokens, length) for embedding in embeddings]), extra]]


@dataclass(frozen=True)
class InjectionSettings:
    """What of the layers gets the other prompt, how much of it, in which branch and when; and whether blocks that get a
    pooled embedding get that of the other prompt too.
    """

    part: Part
    strength: float
    scope: Scope
    pooled: bool = False


def inject(
    model: ModelPatcher, layers: ModelLayers, conditioning: list, chosen: LayerSet, settings: InjectionSettings
) -> ModelPatcher:
    """A clone of `model` whose `chosen` layers get `conditioning`; with nothing to do, a clone that is as `model` is.

    The positive branch is the guider's positive conditioning; every other one it evaluates counts as negative.
    """
    tokens = _tokens(model, conditioning, layers)
    places = frozenset(layer.address for layer in layers.chosen(chosen))
    injected = model.clone()
    if settings.strength == 0 or not places:
        return injected
    tell_branches(injected)
    if not layers.family.joint:
        if settings.pooled:
            raise ValueError("pooled: no layer of this model gets a pooled embedding by itself; switch it off")
        add_patch(injected, layers, Injection(tokens, places, settings.part, settings.strength, settings.scope))
        return injected
    layers.check_part(settings.part)
    stream = StreamInjection(conditioning, places, settings.strength, settings.scope, settings.pooled)
    injected.set_model_patch(stream, STREAMS)
    return injected


def _tokens(model: ModelPatcher, conditioning: list, layers: ModelLayers) -> torch.Tensor:
    """What the layers get [B, T, d] for a conditioning that is one prompt."""
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
    tokens = cosmos.adapted_conditioning(model, tokens, settings)
    if tokens.ndim != 3 or tokens.shape[-1] != layers.width:
        raise ValueError(
            f"conditioning: its embeddings are {tokens.shape[-1]} wide, the model gets {layers.width}; "
            "encode it with the CLIP that belongs to this model"
        )
    if not torch.isfinite(tokens).all():
        raise ValueError("conditioning: NaN or Inf in its embeddings")
    return tokens
