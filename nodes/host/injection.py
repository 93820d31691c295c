"""Per-layer injection: chosen cross-attention layers read another conditioning, in any graph a person may build."""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ...loco_core.models.layers import LayerSet
from .branches import Schedule, Scope, tell_branches
from .engine import context_width, located, repeat_tokens


@dataclass(frozen=True, eq=False)
class Injection:
    """`tokens` [B, T, d] is what the layers at `places` read in place of their own context.

    With a strength other than 1 they read own + strength (tokens - own). An instance is an attn2 patch.
    """

    tokens: torch.Tensor
    places: frozenset[tuple[str, int, int]]
    part: str
    strength: float
    scope: Scope

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if (*extra_options["block"], extra_options["block_index"]) not in self.places:
            return n, context, value
        chunks, count = self.scope.chunks(extra_options), len(extra_options["cond_or_uncond"])
        if chunks:
            length = math.lcm(context.shape[1], self.tokens.shape[1])
            read = [self._blend(part, chunks, count, length) for part in (context, value)]
            context = read[0] if self.part != "values" else repeat_tokens(context, length)
            value = read[1] if self.part != "keys" else repeat_tokens(value, length)
        return n, context, value

    def _blend(self, own: torch.Tensor, chunks: list[int], chunk_count: int, length: int) -> torch.Tensor:
        """`own` [rows, T, d] at `length` tokens, with the given chunks of its rows blended with the injected tokens."""
        rows = len(own) // chunk_count
        tokens = repeat_tokens(comfy.utils.repeat_to_batch_size(self.tokens.to(own), rows), length)
        blended = repeat_tokens(own, length)
        for chunk in chunks:
            place = slice(chunk * rows, (chunk + 1) * rows)
            blended[place] = torch.lerp(blended[place], tokens, self.strength)
        return blended


def inject(
    model: ModelPatcher,
    conditioning: list,
    layers: LayerSet,
    part: str,
    branch: str,
    strength: float,
    start: float,
    end: float,
) -> ModelPatcher:
    """A clone of `model` in which `layers` read `conditioning`; with nothing to do, a clone that is as `model` is.

    The positive branch is the guider's positive conditioning; every other one it evaluates counts as negative.
    """
    tokens = _tokens(conditioning, context_width(model))
    chosen = located(model, layers)
    scope = Scope(branch, Schedule(start, end))
    injected = model.clone()
    if strength == 0 or not len(layers):
        return injected
    places = frozenset((layer.block, layer.block_number, layer.transformer_index) for layer in chosen)
    tell_branches(injected)
    injected.set_model_attn2_patch(Injection(tokens, places, part, strength, scope))
    return injected


def _tokens(conditioning: list, width: int) -> torch.Tensor:
    """The token embeddings [B, T, d] of a conditioning that is one prompt."""
    if len(conditioning) != 1:
        raise ValueError(
            f"conditioning: {len(conditioning)} prompts; connect one CLIP Text Encode, not a combination of several"
        )
    tokens = conditioning[0][0]
    if tokens.ndim != 3 or tokens.shape[-1] != width:
        raise ValueError(
            f"conditioning: its embeddings are {tokens.shape[-1]} wide, the model reads {width}; "
            "encode it with the CLIP that belongs to this model"
        )
    if not torch.isfinite(tokens).all():
        raise ValueError("conditioning: NaN or Inf in its embeddings")
    return tokens
