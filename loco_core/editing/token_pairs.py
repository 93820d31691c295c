"""Which token embeddings of the concept's prompt an edit changes, and into which of the target's.

    originals, targets = token_pairs(concept, target, Tokens.TAIL)   # X_o and X_t, [d, n] each

Subject tokens are paired from the last one backwards, after the words that both prompts begin with; end of text with
end of text, and padding by its position in the last chunk. An empty target has no subject: each token is then paired
with what the empty prompt has in its place. The paper (section 6) pairs the last subject tokens alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..models.engine import TextEmbedding
from .recipe import Tokens

# Token embeddings closer than this share of their length are of the same words: CLIP encodes from left to right.
SAME_TOKEN = 1e-4


@dataclass(frozen=True, eq=False)
class _Chunk:
    """The last chunk of a prompt: its tokens [t, d], and where the last subject token and the end of text are."""

    tokens: torch.Tensor
    last: int

    @property
    def end(self) -> int:
        return self.last + 1


def token_pairs(concept: TextEmbedding, target: TextEmbedding, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """X_o and X_t of one prompt pair, [d, n] each in float64 on the CPU: token embeddings as columns, paired."""
    own, other = _last_chunk(concept), _last_chunk(target)
    if not own.last:
        raise ValueError("concept: empty; give at least one word")
    common = _common_beginning(own.tokens[: own.end], other.tokens[: other.end])
    positions = _edited_positions(own, other, tokens)
    partners = [_partner(position, own, other, common) for position in positions]
    return own.tokens[positions].double().cpu().T, other.tokens[partners].double().cpu().T


def _last_chunk(embedding: TextEmbedding) -> _Chunk:
    start = embedding.last_chunk
    return _Chunk(embedding.tokens[start:], embedding.last_subject - start)


def _edited_positions(own: _Chunk, other: _Chunk, tokens: Tokens) -> list[int]:
    if tokens is Tokens.LAST_SUBJECT:
        return [own.last]
    if tokens is Tokens.ALL_SUBJECT:
        return list(range(1, own.end))
    if tokens is Tokens.END_OF_TEXT:
        return [own.end]
    padding = range(max(own.end, other.end) + 1, min(len(own.tokens), len(other.tokens)))
    return [own.last, own.end, *padding]


def _partner(position: int, own: _Chunk, other: _Chunk, common: int) -> int:
    """The target's position that a position of the concept is paired with."""
    if not other.last or position > own.end or position < common:
        return position
    if position == own.end:
        return other.end
    from_last = own.last - position
    return max(1, min(common, other.last), other.last - from_last)


def _common_beginning(tokens: torch.Tensor, others: torch.Tensor) -> int:
    """How many tokens [T, d] both begin with."""
    count = min(len(tokens), len(others))
    distances = torch.linalg.norm(tokens[:count] - others[:count], dim=1)
    same = distances < SAME_TOKEN * torch.linalg.norm(tokens[:count], dim=1)
    return int(same.long().cumprod(0).sum())
