"""Zarei's score: how much the concept's own tokens give the image in each block, by the block's attention.

A second ranking beside the probe's shares (Zarei, Basu et al., Localizing Knowledge in Diffusion Transformers, NeurIPS
2025, arXiv 2505.18832), of blocks in which text and image attend to each other. With the attention P, the values V and
the output projection W_O of the image:

    score = mean over image tokens of |W_O concat over heads(P[image, concept] V[concept])|

in the mean over noise levels, prompts and seeds. The concept's tokens are those that the target prompt lacks. It takes
one prediction of the concept prompt. It ranks blocks, and does not say how many of them are needed.

Unlike the published code, every block is scored through its W_O, Flux's single blocks too, so that all are on one
scale; and the tokens are those of the text encoder whose embedding the blocks get.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Protocol, runtime_checkable

import torch

from ..models.engine import Row, Sampling

# Products of queries and keys that are kept at once, in float32: 32 MB.
PRODUCTS_AT_ONCE = 2**23


@runtime_checkable
class AttentionEngine(Protocol):
    """What an Engine may do beside: score its blocks. Only asked where text and image attend to each other."""

    def attention_scores(
        self, rows: Sequence[Row], latents: torch.Tensor, sampling: Sampling, step: int
    ) -> torch.Tensor:
        """Of each row's own prompt the score of each layer, [len(rows), layers] on the CPU; the concept's tokens are
        those that the prompt of its intervention lacks. NaN where these cannot be told. The rest as in `predict`.
        """
        ...


def own_places(tokens: Sequence[Hashable], others: Sequence[Hashable]) -> list[int]:
    """The places of the tokens that the others lack, where both are in the same order."""
    changes = SequenceMatcher(None, tokens, others, autojunk=False).get_opcodes()
    return [place for kind, start, stop, *_ in changes if kind != "equal" for place in range(start, stop)]


@dataclass(frozen=True, eq=False)
class Attention:
    """What a block's attention gets for one image.

    queries: [heads, n, d], of the image's tokens alone. keys, values: [heads, T, d], of all tokens; of fewer heads
    where several heads of queries share one. scale: of their products. bias: what is added to these, [1 or heads,
    1 or n, T], if anything.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    scale: float
    bias: torch.Tensor | None = None


def concept_score(
    attention: Attention, concept: Sequence[int], project: Callable[[torch.Tensor], torch.Tensor]
) -> float:
    """The score of a block for one image. concept: places of tokens among the keys. project: W_O, of [n, heads * d]."""
    heads, count, _ = attention.queries.shape
    keys, values = (
        given.float().repeat_interleave(heads // len(given), 0)
        for given in (attention.keys, attention.values[:, list(concept)])
    )
    at_once = max(1, PRODUCTS_AT_ONCE // (heads * keys.shape[1]))
    lengths = []
    for start in range(0, count, at_once):
        part = slice(start, start + at_once)
        products = (attention.queries[:, part].float() * attention.scale) @ keys.mT
        if attention.bias is not None:
            products += attention.bias if attention.bias.shape[1] == 1 else attention.bias[:, part]
        weights = (products[..., list(concept)] - products.logsumexp(-1, keepdim=True)).exp()
        given = (weights @ values).transpose(0, 1).flatten(1)
        lengths.append(project(given).float().norm(dim=-1))
    return torch.cat(lengths).mean().item()
