"""Which token embeddings of the concept's prompt an edit changes, and into which of the target's.

    originals, targets = token_pairs(concept, target, Tokens.TAIL)   # X_o and X_t, [d, n] each

Subject tokens are paired from the last one backwards, after the words that both prompts begin with; end of text with
end of text, and padding by its position, where both prompts have padding. An empty target has no subject: each token is
then paired with what the empty prompt has in its place. The paper (section 6) pairs the last subject tokens alone.

A long prompt is encoded in several chunks, and the concept may stand in any of them: the first chunks are paired, then
the second ones, and so on. Where one prompt has fewer, its last chunk is paired with all that are left of the other: a
text layer's attention is the same when what it gets is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..models.engine import Chunk, TextEmbedding
from .recipe import Tokens

# Token embeddings closer than this share of their length are of the same words: CLIP encodes from left to right.
SAME_TOKEN = 1e-4


def token_pairs(concept: TextEmbedding, target: TextEmbedding, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """X_o and X_t of one prompt pair, [d, n] each on the CPU: token embeddings as columns, paired."""
    if not (concept.chunks and target.chunks):
        raise ValueError(
            "clip: which rows of its embedding are of which words cannot be told; use the model's own CLIP"
        )
    if concept.empty:
        raise ValueError("concept: empty; give at least one word")
    rows: list[int] = []
    partners: list[int] = []
    for place in range(max(len(concept.chunks), len(target.chunks))):
        number = min(place, len(concept.chunks) - 1)
        own, other = concept.chunks[number], target.chunks[min(place, len(target.chunks) - 1)]
        common = _common_beginning(
            concept.tokens[own.start : own.end_of_text], target.tokens[other.start : other.end_of_text]
        )
        edited = [row for row in _edited_rows(own, concept.tails[number], tokens) if _has_partner(row, own, other)]
        rows += edited
        partners += [_partner(row, own, other, common) for row in edited]
    return concept.tokens[rows].cpu().T, target.tokens[partners].cpu().T


def _edited_rows(own: Chunk, tail: range, tokens: Tokens) -> Sequence[int]:
    """The rows of a chunk of the concept that are edited."""
    if tokens is Tokens.LAST_SUBJECT:
        return [own.last_subject]
    if tokens is Tokens.ALL_SUBJECT:
        return range(own.first_subject, own.end_of_text)
    if tokens is Tokens.END_OF_TEXT:
        return [own.end_of_text]
    return tail


def _has_partner(row: int, own: Chunk, other: Chunk) -> bool:
    """Padding has none where the target still has words."""
    return row <= own.end_of_text or other.start + row - own.start > other.end_of_text


def _partner(row: int, own: Chunk, other: Chunk, common: int) -> int:
    """The target's row that a row of the concept is paired with."""
    position = row - own.start
    same_place = min(other.start + position, other.stop - 1)
    if other.empty or position < common:
        return same_place
    if row == own.end_of_text:
        return other.end_of_text
    if row > own.end_of_text:
        return same_place
    from_last = own.last_subject - row
    return max(other.first_subject, min(other.start + common, other.last_subject), other.last_subject - from_last)


def _common_beginning(tokens: torch.Tensor, others: torch.Tensor) -> int:
    """How many tokens [T, d] both begin with."""
    count = min(len(tokens), len(others))
    distances = torch.linalg.norm(tokens[:count] - others[:count], dim=1)
    same = distances < SAME_TOKEN * torch.linalg.norm(tokens[:count], dim=1)
    return int(same.long().cumprod(0).sum())
