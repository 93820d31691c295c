"""LocoEdit: the closed-form edit of located layers (paper, section 6).

For each W of {W_K, W_V} the paper minimises ||W^ X_o - W X_t||^2 + lambda ||W^ - W||^2, where the columns of X_o are
embeddings of prompts with the concept and those of X_t embeddings of what takes its place. The optimum is
W^ = W (I + A) with A = (X_t - X_o) X_o^T (X_o X_o^T + lambda I)^-1: a matrix that does not depend on W. One operator
serves the keys and values of every layer. With X_o = U S V^T it is A = [(X_t - X_o) V S / (S^2 + lambda)] U^T, which
needs no d x d solve and is a product of two thin factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .engine import TextEmbedding
from .prompts import PromptPair

TOKEN_CHOICES = ("last subject token", "last subject token and tail")
RIDGES = ("relative", "paper")
PAPER_LAMBDA = 0.01
"""lambda_K = lambda_V for every model (paper, section 6; the authors' code)."""
RELATIVE_LAMBDA = 0.3
"""The default ridge, in units of the concepts' mean squared column norm."""
KEPT_WEIGHT = 25
"""How much a kept column counts, per concept prompt. Tried on the demo model with ridges of 0.1 to 0.5."""
WINDOW = 77
"""Tokens that CLIP reads at once. A longer prompt has several ends of text, and no single last subject token."""
NEGLIGIBLE = 1e-7
"""Singular values below this share of the largest are rounding, not directions."""


@dataclass(frozen=True)
class EditOperator:
    """A = up @ down, in float64: up [d, r], down [r, d]. The edited weight is W^ = W + strength (W up) down."""

    up: torch.Tensor
    down: torch.Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def width(self) -> int:
        """The width d of the text embeddings it was solved for."""
        return self.down.shape[1]

    def spectral_norm(self) -> float:
        """The largest factor by which A stretches an embedding."""
        return torch.linalg.matrix_norm(self.up @ self.down, ord=2).item()

    def weight_change(self, weight: torch.Tensor) -> torch.Tensor:
        """W A, [d_out, d], for a weight [d_out, d]; in the weight's dtype, which should be float32 or float64."""
        up, down = (factor.to(weight.device, weight.dtype) for factor in (self.up, self.down))
        return (weight @ up) @ down


def columns(
    concepts: Sequence[TextEmbedding], targets: Sequence[TextEmbedding], tokens: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """X_o and X_t, [d, n] in float64: the token embeddings of concepts and targets, paired.

    The last subject token is paired with the last subject token. The tail pairs end of text with end of text and
    padding with padding at the same position, as far as both have it.
    """
    if tokens not in TOKEN_CHOICES:
        raise ValueError(f"tokens: {tokens!r}; give one of {', '.join(TOKEN_CHOICES)}")
    for name, embeddings in (("concept", concepts), ("target", targets)):
        for embedding in embeddings:
            if len(embedding.tokens) > WINDOW:
                raise ValueError(f"{name}: {embedding.prompt!r} is longer than the text encoder's window; shorten it")
    originals, replacements = [], []
    for concept, target in zip(concepts, targets, strict=True):
        rows, partners = [concept.last_subject], [target.last_subject]
        if tokens != "last subject token":
            rows.append(concept.last_subject + 1)
            partners.append(target.last_subject + 1)
            padding = range(max(rows[-1], partners[-1]) + 1, min(len(concept.tokens), len(target.tokens)))
            rows += padding
            partners += padding
        originals.append(concept.tokens[rows])
        replacements.append(target.tokens[partners])
    return torch.cat(originals).double().cpu().T, torch.cat(replacements).double().cpu().T


def solve(originals: torch.Tensor, targets: torch.Tensor, ridge: float) -> EditOperator:
    """The operator of the paper's edit for columns X_o and X_t, [d, n] each, and lambda = `ridge`, in float64."""
    if not (torch.isfinite(originals).all() and torch.isfinite(targets).all()):
        raise ValueError("text embeddings: NaN or Inf; the text encoder gave no usable embedding for these prompts")
    left, singular, right = torch.linalg.svd(originals.double(), full_matrices=False)
    kept = singular > NEGLIGIBLE * singular[0]
    left, singular, right = left[:, kept], singular[kept], right[kept]
    up = (targets.double() - originals.double()) @ right.T * (singular / (singular**2 + ridge))
    return EditOperator(up, left.T.contiguous())


def solve_edit(
    encode: Callable[[Sequence[str]], list[TextEmbedding]],
    pairs: Sequence[PromptPair],
    tokens: str = TOKEN_CHOICES[-1],
    ridge: str = RIDGES[0],
    relative: float = RELATIVE_LAMBDA,
    keep_target: bool = True,
) -> EditOperator:
    """The operator of an edit as a user asks for it: `edit_operator` on the embeddings of the pairs.

    With `keep_target`, the targets and the empty prompt must read as before.
    """
    targets = [pair.target for pair in pairs]
    kept = encode(list(dict.fromkeys([*targets, ""]))) if keep_target else []
    return edit_operator(encode([pair.concept for pair in pairs]), encode(targets), tokens, ridge, relative, kept)


def edit_operator(
    concepts: Sequence[TextEmbedding],
    targets: Sequence[TextEmbedding],
    tokens: str,
    ridge: str,
    relative: float = RELATIVE_LAMBDA,
    kept: Sequence[TextEmbedding] = (),
) -> EditOperator:
    """The operator that makes the concepts' embeddings read like the targets', one target per concept.

    `ridge` is "paper" for lambda = 0.01, or "relative" for `relative` times the mean squared column norm of X_o.
    Every token of the `kept` embeddings must read as before: they are columns of both X_o and X_t, each counting as
    KEPT_WEIGHT times the number of concepts. Keeping the targets and the empty prompt holds the edit to what tells the
    concepts from them. The paper keeps nothing.
    """
    if ridge not in RIDGES:
        raise ValueError(f"ridge: {ridge!r}; give one of {', '.join(RIDGES)}")
    if not 0 < relative < float("inf"):
        raise ValueError(f"relative ridge: {relative}; give a number above 0")
    originals, replacements = columns(concepts, targets, tokens)
    scale = originals.square().sum(0).mean().item()
    if kept:
        held = torch.cat([embedding.tokens for embedding in kept]).double().cpu().T
        held = (KEPT_WEIGHT * len(concepts)) ** 0.5 * held
        originals, replacements = torch.cat([originals, held], 1), torch.cat([replacements, held], 1)
    return solve(originals, replacements, PAPER_LAMBDA if ridge == "paper" else relative * scale)
