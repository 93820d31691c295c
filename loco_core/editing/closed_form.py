"""The closed forms of an edit: linear algebra on columns of text embeddings, in float64 on the CPU.

For each W of {W_K, W_V} the paper (section 6) minimises ||W^ X_o - W X_t||^2 + lambda ||W^ - W||^2, where the columns
of X_o are embeddings of prompts with the concept and those of X_t embeddings of what takes its place. The optimum is
W^ = W (I + A), A = D X_o^T (X_o X_o^T + lambda I)^-1, D = X_t - X_o: a matrix that does not depend on W. One operator
serves the keys and values of every layer.

Two ways to preserve the outputs of other embeddings P:
- exactly: with Q an orthonormal basis of P and Z = X_o - Q Q^T X_o, A = D Z^T (Z Z^T + lambda I)^-1, so that A Q = 0;
- weighted (UCE's retain term): A = D X_o^T (X_o X_o^T + beta P P^T + lambda I)^-1.
With the columns' thin SVD U S V^T all of them are [D V S / (S^2 + lambda)] U^T: no d x d solve, and thin factors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

# Parts of an operator below this share of the largest one are rounding.
NEGLIGIBLE = 1e-12


@dataclass(frozen=True, eq=False)
class EditOperator:
    """A = up @ down, in float64: up [d, r], down [r, d]. The edited weight is W^ = W + strength (W up) down."""

    up: torch.Tensor
    down: torch.Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def width(self) -> int:
        """The width d of the embeddings it was solved for."""
        return self.down.shape[1]

    def spectral_norm(self) -> float:
        """The largest factor by which A stretches an embedding."""
        if not self.rank:
            return 0.0
        (_, left), (_, right) = torch.linalg.qr(self.up), torch.linalg.qr(self.down.T)
        return torch.linalg.matrix_norm(left @ right.T, ord=2).item()

    def change(self, columns: torch.Tensor) -> torch.Tensor:
        """A X for columns X [d, n]."""
        return self.up @ (self.down @ columns)

    def widened(self, width: int) -> EditOperator:
        """The same on the first inputs of a wider layer, which leaves the other inputs as they are."""
        missing = width - self.width
        return EditOperator(functional.pad(self.up, (0, 0, 0, missing)), functional.pad(self.down, (0, missing)))

    def weight_change(self, weight: torch.Tensor) -> torch.Tensor:
        """W A, [d_out, d], for a weight [d_out, d]; in the weight's dtype, which should be float32 or float64."""
        up, down = (factor.to(weight.device, weight.dtype) for factor in (self.up, self.down))
        return (weight @ up) @ down


def solve(
    originals: torch.Tensor,
    targets: torch.Tensor,
    ridge: float,
    basis: torch.Tensor | None = None,
    weighted: torch.Tensor | None = None,
) -> EditOperator:
    """The operator for columns X_o and X_t, [d, n] each, and lambda = `ridge`.

    `basis` is Q, [d, q] and orthonormal, of what is preserved exactly; `weighted` is sqrt(beta) P, [d, p].
    """
    if not (torch.isfinite(originals).all() and torch.isfinite(targets).all()):
        raise ValueError("text embeddings: NaN or Inf; the text encoder gave no usable embedding for these prompts")
    free, change = originals.double(), targets.double() - originals.double()
    if basis is not None:
        free = project_out(basis, free)
    if weighted is not None:
        free, change = torch.cat([free, weighted], 1), torch.cat([change, torch.zeros_like(weighted)], 1)
    left, singular, right = torch.linalg.svd(free, full_matrices=False)
    up = change @ right.T * (singular / (singular**2 + ridge))
    sizes = torch.linalg.norm(up, dim=0)
    kept = sizes > NEGLIGIBLE * sizes.max()
    up, left = up[:, kept], left[:, kept]
    if basis is not None:
        left = project_out(basis, left)  # again, for the rounding of small singular values
    return EditOperator(up.contiguous(), left.T.contiguous())


def project_out(basis: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """X - Q Q^T X."""
    return columns - basis @ (basis.T @ columns)


def leading_directions(columns: torch.Tensor, tolerance: float) -> torch.Tensor:
    """An orthonormal basis [d, q] of the columns [d, n], each counted with length 1.

    Directions whose singular value is below `tolerance` times the largest are left out: the tokens of one prompt, its
    padding above all, are so nearly collinear that without a tolerance rounding would be preserved.
    """
    weights = 1 / torch.linalg.norm(columns, dim=0).clamp(min=torch.finfo(columns.dtype).tiny)
    # By the smaller Gram matrix: less than half the memory of a singular value decomposition of the columns.
    if columns.shape[1] > columns.shape[0]:
        unit = columns * weights
        squares, vectors = torch.linalg.eigh(unit @ unit.T)
        return vectors[:, squares > tolerance**2 * squares[-1]]
    squares, vectors = torch.linalg.eigh((columns.T @ columns).mul_(weights).mul_(weights[:, None]))
    leading = vectors[:, squares > tolerance**2 * squares[-1]]
    return torch.linalg.qr(columns @ (weights[:, None] * leading)).Q
