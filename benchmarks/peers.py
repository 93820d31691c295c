"""Closed-form edits that others published, written from their formulas, with their published defaults.

All take a weight W [d_out, d] and columns [d, n]: X_o of the concept's tokens, X_t of the targets', P of the prompts to
be retained. All return the new weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2

AUTHORS_LAMBDA = 0.01
UCE_LAMBDA, UCE_ERASE, UCE_PRESERVE = 0.5, 1.0, 1.0
SPEED_THRESHOLD, SPEED_AUGMENTED, SPEED_RETAIN, SPEED_CLUSTERS = 0.1, 10, 1.0, 3
# OCE's for a style, in its authors' scripts.
OCE_ERASE, OCE_CONCEPTS, OCE_GENERAL, OCE_WEIGHT = 500.0, 1.0, 10.0, 10.0

# Of what Double Projections preserves, directions below this share of the strongest are left out: none but rounding.
DP_LEFT_OUT = 1e-3

# Directions of outputs below this share of the strongest are rounding: the tokens of a tail are nearly collinear.
SPAN_TOLERANCE = 0.03


def authors(
    weight: torch.Tensor, originals: torch.Tensor, targets: torch.Tensor, ridge: float = AUTHORS_LAMBDA
) -> torch.Tensor:
    """LocoEdit as printed (arXiv 2405.01008, section 6): a d x d inverse for every matrix."""
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    left = ridge * weight + weight @ targets @ originals.T
    return left @ torch.linalg.inv(ridge * identity + originals @ originals.T)


def uce(
    weight: torch.Tensor,
    originals: torch.Tensor,
    targets: torch.Tensor,
    preserved: torch.Tensor,
    ridge: float = UCE_LAMBDA,
    retain: float = UCE_PRESERVE,
) -> torch.Tensor:
    """Unified Concept Editing (arXiv 2308.14761, equation 7), with its retain term."""
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    left = ridge * weight + UCE_ERASE * weight @ targets @ originals.T
    right = ridge * identity + UCE_ERASE * originals @ originals.T
    left = left + retain * weight @ preserved @ preserved.T
    return left @ torch.linalg.inv(right + retain * preserved @ preserved.T)


def oce(
    weight: torch.Tensor,
    originals: torch.Tensor,
    targets: torch.Tensor,
    preserved: torch.Tensor,
    general: torch.Tensor,
    erase: float = OCE_ERASE,
) -> torch.Tensor:
    """Orthogonal Concept Erasure (arXiv 2605.28902): W is rotated by the R that turns the concepts' outputs away from
    the part that is not the targets', and the other outputs least. `general` [d, d]: the second moment of tokens of all
    kinds of prompts.
    """
    concepts, instead = (_span(weight @ columns) for columns in (originals, targets))
    kept = weight @ preserved
    away = concepts @ (concepts.T - (concepts.T @ instead) @ instead.T)
    whole = OCE_GENERAL * weight @ general @ weight.T + OCE_WEIGHT * weight @ weight.T
    left, _, right = torch.linalg.svd(OCE_CONCEPTS * kept @ kept.T + whole - erase * away)
    rotation = left @ right
    if torch.linalg.det(rotation) < 0:
        rotation[:, -1] *= -1
    return rotation @ weight


def double_projections(
    weight: torch.Tensor,
    originals: torch.Tensor,
    safe: torch.Tensor,
    preserved: torch.Tensor,
    left_out: float = DP_LEFT_OUT,
) -> torch.Tensor:
    """Double Projections (arXiv 2604.10032): a concept's token becomes its projection onto what the safe tokens span,
    by the least change that leaves the leading directions of the preserved ones as they are.
    """
    proxies = safe @ torch.linalg.pinv(safe, rtol=SPAN_TOLERANCE) @ originals
    left, singular, _ = torch.linalg.svd(preserved, full_matrices=True)
    free = left[:, int((singular > left_out * singular[0]).sum()) :]
    return weight + weight @ (proxies - originals) @ torch.linalg.pinv(free.T @ originals, rtol=SPAN_TOLERANCE) @ free.T


def _span(columns: torch.Tensor) -> torch.Tensor:
    """An orthonormal basis of what the columns, each of length 1, span."""
    units = columns / torch.linalg.norm(columns, dim=0).clamp(min=1e-8)
    left, singular, _ = torch.linalg.svd(units, full_matrices=False)
    return left[:, singular > SPAN_TOLERANCE * singular[0]]


@dataclass(frozen=True)
class SpeedInputs:
    """What SPEED holds beside the retained prompts: `null_tokens` [d, T] of the empty prompt, start token first. And
    its free number: directions of the retained prompts of a smaller mean square may change.
    """

    null_tokens: torch.Tensor
    threshold: float = SPEED_THRESHOLD
    seed: int = 0

    def constraints(self) -> torch.Tensor:
        """K_2: the start token and the centres of three clusters of the rest, [d, 4]."""
        rest = self.null_tokens[:, 1:].T.double().numpy()
        centres, _ = kmeans2(rest, SPEED_CLUSTERS, minit="++", seed=np.random.default_rng(self.seed))
        return torch.cat([self.null_tokens[:, :1], torch.from_numpy(centres).T.to(self.null_tokens)], 1)


def speed(
    weight: torch.Tensor,
    originals: torch.Tensor,
    targets: torch.Tensor,
    preserved: torch.Tensor,
    held: SpeedInputs,
) -> torch.Tensor:
    """SPEED (arXiv 2503.07392): an edit in the null space of the retained prompts, exact on start and empty prompt.

    With its filter (only retained prompts that the plain edit would move more than the mean) and its augmentation
    (noise along W's least sensitive direction, filtered alike).
    """
    d = weight.shape[1]
    identity = torch.eye(d, dtype=weight.dtype)
    own = originals @ originals.T / originals.shape[1]
    change = targets @ originals.T / originals.shape[1] - own
    plain = weight @ change @ torch.linalg.inv(identity + own)
    moved = torch.linalg.norm(plain @ preserved, dim=0)
    kept = preserved[:, moved > moved.mean()] if preserved.shape[1] > 1 else preserved
    least = torch.linalg.svd(weight, full_matrices=True).Vh[-1]
    generator = torch.Generator().manual_seed(held.seed)
    noise = torch.randn(SPEED_AUGMENTED, d, kept.shape[1], generator=generator, dtype=weight.dtype)
    augmented = kept + least[:, None] * torch.einsum("d,adn->an", least, noise)[:, None, :]
    augmented = augmented.movedim(0, 1).reshape(d, -1)
    moved = torch.linalg.norm(plain @ augmented, dim=0)
    kept = torch.cat([kept, augmented[:, moved > moved.mean()]], 1)
    left, singular, _ = torch.linalg.svd(kept @ kept.T / kept.shape[1])
    free = left[:, singular < held.threshold]
    projector = free @ free.T
    inverse = torch.linalg.inv(own @ projector + SPEED_RETAIN * identity)
    null = held.constraints().to(weight.dtype)
    inner = torch.linalg.pinv(null.T @ projector @ inverse @ null)
    corrected = identity - inverse @ null @ inner @ null.T @ projector
    return weight + weight @ change @ projector @ corrected @ inverse
