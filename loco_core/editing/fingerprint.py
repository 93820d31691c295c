"""Telling text encoders apart by what they give, whichever program runs them, in whichever precision.

    own = fingerprint(engine.encode)
    difference(own, edit.recipe.fingerprint) <= SAME_ENCODER

Names of classes differ between programs for one encoder, and are the same for an encoder and its fine-tunes. What an
edit is solved on is an encoder's embeddings: where those of one prompt agree, an edit solved with the one serves the
other.
"""

from __future__ import annotations

import torch

from ..models.engine import Encode

# What is encoded: any words do that stay the same.
PROMPT = "a photo of a cat"
# Numbers of its embedding that are kept, spread over tokens and dimensions.
NUMBERS = 64
# Up to this difference, encoders are one and the same. On the demo model, float16 differs from float32 by 0.0004,
# bfloat16 by 0.004, weights kept as float8 by 0.02; another clip skip by 0.34, weights changed by a tenth by 0.08.
SAME_ENCODER = 0.05

# Some numbers of an embedding; none in the file of an edit that was saved without.
Fingerprint = tuple[float, ...]


def fingerprint(encode: Encode) -> Fingerprint:
    """A few numbers of the embedding of PROMPT."""
    (embedding,) = encode([PROMPT])
    numbers = embedding.tokens.float().cpu().flatten()
    places = torch.linspace(0, len(numbers) - 1, NUMBERS).long()
    return tuple(round(number, 6) for number in numbers[places].tolist())


def difference(one: Fingerprint, other: Fingerprint) -> float:
    """The mean difference of two encoders' numbers, as a share of the numbers' own mean size."""
    own, others = torch.tensor(one), torch.tensor(other)
    return float((own - others).abs().mean() / (own.abs() + others.abs()).mean().clamp(min=1e-6) * 2)
