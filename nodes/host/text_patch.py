"""A patch of what text layers get, which the host calls in every one of them before its W_K and W_V.

The search's interventions, the injector and an edit of the context are such patches. The host gives a patch the rows of
its call, and reads back what the layer gets for its keys (`context`) and its values.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ...loco_core.models.layers import Address, Part
from .branches import KEY, Run, prepared
from .turns import Turn


def address(options: dict[str, Any]) -> Address:
    """The address of the layer that calls a patch, from the host's options."""
    block, number = options["block"]
    return block, number, options["block_index"]


class TextPatch(ABC):
    """A patch that acts in the layers at `places`, before or after those of other packs."""

    places: frozenset[Address]
    turn: ClassVar[Turn]

    def __call__(
        self, n: torch.Tensor, context: torch.Tensor, value: torch.Tensor, extra_options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if address(extra_options) in self.places:
            context, value = self.change(context, value, extra_options)
        return n, context, value

    @abstractmethod
    def change(
        self, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the layer gets for its keys and its values in place of `context` and `value`, [rows, T, d] each."""


@dataclass(frozen=True, eq=False)
class GivenTokens:
    """Rows of a call that get other tokens: own + strength (tokens - own).

    tokens: [B, T, d]; numbers: which of these each row gets, counted on from the first after the last.
    """

    rows: tuple[int, ...]
    numbers: tuple[int, ...]
    tokens: torch.Tensor
    part: Part
    strength: float = 1.0


class TokensPatch(TextPatch):
    """A patch that gives some rows other tokens."""

    turn = Turn.FIRST

    @abstractmethod
    def given(self, options: dict[str, Any], count: int) -> Sequence[GivenTokens]:
        """Which of the `count` rows of this call get which tokens in this layer."""

    def change(
        self, context: torch.Tensor, value: torch.Tensor, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        given = self.given(options, len(context))
        if not given:
            return context, value
        length = math.lcm(context.shape[1], *(each.tokens.shape[1] for each in given))
        run: Run | None = options.get(KEY)
        if value is context and all(each.part is Part.BOTH for each in given):
            both = _with_tokens(context, given, length, run)
            return both, both
        keys, values = (
            _with_tokens(own, [each for each in given if projection in each.part.projections], length, run)
            for own, projection in ((context, Part.KEYS), (value, Part.VALUES))
        )
        return keys, values


def repeat_tokens(tokens: torch.Tensor, length: int) -> torch.Tensor:
    """[..., T, d] as [..., length, d], a multiple of T: the softmax over repeated tokens gives the same attention."""
    return torch.cat([tokens] * (length // tokens.shape[-2]), dim=-2)


def _with_tokens(own: torch.Tensor, given: Sequence[GivenTokens], length: int, run: Run | None) -> torch.Tensor:
    """`own` [rows, T, d] at `length` tokens, with the tokens of some rows blended with those given."""
    blended = repeat_tokens(own, length)
    for each in given:
        place, tokens = list(each.rows), _prepared(each, blended, run)
        blended[place] = tokens if each.strength == 1 else torch.lerp(blended[place], tokens, each.strength)
    return blended


def _prepared(given: GivenTokens, like: torch.Tensor, run: Run | None) -> torch.Tensor:
    """Each row's tokens [rows, T, d], repeated to the length of `like`, on its device; made once in a run, for every
    layer of every step asks for them.
    """

    def make() -> torch.Tensor:
        numbers = [number % len(given.tokens) for number in given.numbers]
        return repeat_tokens(given.tokens[numbers].to(like), like.shape[1])

    return prepared(run, (given.tokens, given.numbers, like.device, like.dtype, like.shape[1]), make)
