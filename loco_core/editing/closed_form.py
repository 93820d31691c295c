"""The closed forms of an edit: linear algebra on columns of text embeddings, in float64 on the CPU.

For each W of {W_K, W_V} the paper (section 6) minimises ||W^ X_o - W X_t||^2 + lambda ||W^ - W||^2, where the columns
of X_o are embeddings of prompts with the concept and those of X_t embeddings of what takes its place. The optimum is
W^ = W (I + A), A = D X_o^T (X_o X_o^T + lambda I)^-1, D = X_t - X_o: a matrix that does not depend on W. One operator
serves the keys and values of every layer.

Two ways to preserve the outputs of other embeddings P:
- exactly: with Q an orthonormal basis of P and Z = X_o - Q Q^T X_o, A = D Z^T (Z Z^T + lambda I)^-1, so that A Q = 0;
- weighted (UCE's retain term): A = D X_o^T (X_o X_o^T + beta P P^T + lambda I)^-1. It is the edit of the columns
  [X_o, sqrt(beta) P] by [D, 0].
All of them are D (Z^T Z + lambda I)^-1 Z^T, by the Cholesky factor of a matrix as large as there are columns: no d x d
solve, and thin factors. Of more than d columns it is D Z^T (Z Z^T + lambda I)^-1. So the columns need not be kept: many
concepts take no more memory than d columns do.

The tokens of a prompt, its padding above all, are nearly collinear, and prompts have much in common. Where the square
of a singular value is far below lambda, the ridge leaves nothing of the edit. So some prompts together give their
leading directions alone, Z V and D V for their leading right singular vectors V: a few columns with the same products.
Weighted, most of them are spent on what the prompts share with those that are preserved. So V is that of what lies
outside a basis B of these, and of the rest, which lies in B as far as the ridge can tell, the products of coordinates
are kept: the edit needs no more of it than q columns.

An operator can be reduced to P A, with P the projector on the leading left singular vectors of A Z: to the rank that
the concepts need. What is preserved exactly stays so, as P A Q = 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.linalg import lapack
from torch.nn import functional

# Z or X_o, and D, [d, n] each.
Pair = tuple[torch.Tensor, torch.Tensor]

# Directions that are left out of columns have less than this share of lambda of each column...
HARDLY_REACHED = 1e-3
# ... and so are the least parts of an operator that together make less than this share of what it changes.
UNNEEDED = 5e-3
# Parts of an operator below this share of the largest one are rounding.
NEGLIGIBLE = 1e-10
# So many columns of some prompts are reduced to their leading directions together.
TOGETHER = 512
# What is small in some prompts may be shared by so many more: it is left out only where it is that much smaller.
SHARED = 10


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
        left, right = (torch.linalg.qr(factor, mode="r").R for factor in (self.up, self.down.T))
        return torch.linalg.matrix_norm(left @ right.T, ord=2).item()

    def compact(self) -> EditOperator:
        """The same of the least rank that it has but for rounding."""
        left, right = (torch.linalg.qr(factor) for factor in (self.up, self.down.T))
        vectors, sizes, others = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
        large = sizes > NEGLIGIBLE * sizes[:1]
        return EditOperator(left.Q @ (vectors * sizes)[:, large], (others @ right.Q.T)[large])

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


class Columns:
    """The columns Z and D = X_t - X_o of any number of prompts, as much of them as the closed form needs.

        columns = Columns(width, basis)
        columns.add(originals, changes, ridge)     # for each prompt
        operator = columns.operator(ridge)

    `basis` is Q, [d, q] and orthonormal, of what is preserved exactly: Z is what lies outside it. With `within`, Q is
    only what prompts have in common, and Z is X_o: columns are kept for what lies outside Q alone, and of the rest, at
    coordinates Y in Q, the products Y Y^T, [q, q], and D Y^T, [d, q]. Up to d columns are kept themselves. Of more, the
    products Z Z^T and D Z^T are kept, [d, d] each.
    """

    def __init__(self, width: int, basis: torch.Tensor | None = None, within: bool = False) -> None:
        self._width = width
        self._basis = torch.zeros(width, 0, dtype=torch.float64) if basis is None else basis
        self._within = within
        self._shared: tuple[torch.Tensor, ...] = ()  # of coordinates Y in the basis, Y Y^T and D Y^T
        self._single_basis = self._basis.float()
        self._added: list[Pair] = []  # X_o and D, since columns were last reduced together
        self._kept: list[Pair] = []
        self._most = 2 * TOGETHER  # from more columns on, those kept are reduced together
        self._products: Pair | None = None
        self._change = 0.0

    def add(self, originals: torch.Tensor, changes: torch.Tensor, ridge: float | None = None) -> float:
        """Adds the columns of X_o and of D of a prompt, [d, k] each; returns how large Z is beside X_o, |Z| / |X_o|; 1
        where nothing is to change, or nothing is preserved exactly.

        Of columns that are all preserved, D may have no rows. With `ridge`, about the lambda of the solve, only leading
        directions are kept: those that it lets act.
        """
        basis = self._basis if ridge is None else self._single_basis
        originals, changes = originals.to(basis), changes.to(basis)
        whole, change = _energy(originals), _energy(changes)
        if not math.isfinite(whole + change):
            raise ValueError("text embeddings: NaN or Inf; the text encoder gave no usable embedding for these prompts")
        self._change += change
        self._added.append((originals, changes))
        if ridge is None or _count(self._added) > TOGETHER:
            self.keep(ridge)
        if not change or self._within:
            return 1.0  # no room is needed
        within = _energy(basis.T @ originals)
        return (max(0.0, whole - within) / whole) ** 0.5 if whole else 0.0

    def keep(self, ridge: float | None) -> None:
        """Those added become those kept; with `ridge`, only what is leading in all of them."""
        if not self._added:
            return
        originals, changes = _joined(self._added)
        self._added.clear()
        self._kept.append(self._reduced(originals, changes, ridge))
        if ridge is not None and _count(self._kept) > self._most:
            self._kept = [self._reduced(*_joined(self._kept), ridge)]
            self._most = 2 * max(TOGETHER, _count(self._kept))
        if _count(self._kept) > self._width:
            self._folded()

    def _reduced(self, originals: torch.Tensor, changes: torch.Tensor, ridge: float | None) -> Pair:
        """Z and D in float64; with a ridge, their leading directions in place of them."""
        if ridge is None and self._within:
            return originals.double(), changes.double()
        basis = self._single_basis if originals.dtype == torch.float32 else self._basis
        shared = basis.T @ originals
        if self._within:
            free, products = originals, originals.T @ originals - shared.T @ shared
        else:
            free = originals - basis @ shared
            products = free.T @ free
        if ridge is None:
            return free.double(), changes.double()
        leading = _spanning(products, HARDLY_REACHED * ridge).to(free)
        if self._within:
            self._keep_shared(shared - (shared @ leading) @ leading.T, changes)
        # Columns are tokens, transposed.
        return (leading.T @ free.T).T.double(), (leading.T @ changes.T).T.double()

    def _keep_shared(self, coordinates: torch.Tensor, changes: torch.Tensor) -> None:
        """The products of columns that lie within the basis, at these coordinates [q, n]."""
        if not self._shared:
            count = len(coordinates)
            self._shared = self._basis.new_zeros(count, count), self._basis.new_zeros(len(changes), count)
        for whole, part in zip(self._shared, (coordinates, changes), strict=True):
            whole.add_(part @ coordinates.T)

    def _keep_within(self, ridge: float) -> None:
        """What lies within the basis becomes columns with the same products: those that the ridge lets act."""
        if not self._shared:
            return
        products, changes = self._shared
        squares, vectors = torch.linalg.eigh(products)
        act = squares > HARDLY_REACHED * ridge
        sizes, leading = squares[act].sqrt(), vectors[:, act]
        self._kept.append((self._basis @ (leading * sizes), changes @ (leading / sizes)))
        self._shared = ()

    def common(self) -> torch.Tensor:
        """An orthonormal basis, [d, q], of the columns so far, or none where they are too many."""
        if self._products is not None or not self._kept:
            return torch.zeros(self._width, 0, dtype=torch.float64)
        return torch.linalg.qr(self._all()[0]).Q

    def operator(self, ridge: float, preserved: Columns | None = None, weight: float = 1.0) -> EditOperator:
        """The operator for lambda = `ridge`. `preserved` has the columns of P, and `weight` is beta."""
        self.keep(ridge)
        self._keep_within(ridge)
        up, read = self._factors(ridge, preserved or Columns(self._width), weight)
        if not self._within:
            read = project_out(self._basis, read)  # again, for rounding
        return EditOperator(up, read.T)

    def needed(self, operator: EditOperator) -> tuple[EditOperator, tuple[float, ...]]:
        """P A for an operator A of these columns: of the least rank that makes all but UNNEEDED of what A changes.

        The leading parts come first. Beside it, each part's share of |A Z|^2.
        """
        if not operator.rank:
            return operator, ()
        if self._products is None:
            changed = operator.change(self._all()[0])
            sizes, vectors = torch.linalg.eigh(changed.T @ changed)
        else:
            edit = operator.up @ operator.down
            sizes, vectors = torch.linalg.eigh(edit @ self._folded()[0] @ edit.T)
        large = sizes.cumsum(0) > UNNEEDED**2 * sizes.sum()
        left = vectors[:, large].flip(1)
        if self._products is None:
            left = changed @ left / sizes[large].flip(0).sqrt()
        shares = (sizes[large] / sizes.sum()).flip(0).tolist()
        return EditOperator(left, (left.T @ operator.up) @ operator.down), tuple(shares)

    def _factors(self, ridge: float, preserved: Columns, weight: float) -> Pair:
        """C and R of the operator C R^T: D and Z (Z^T Z + lambda I)^-1, or D Z^T and (Z Z^T + lambda I)^-1."""
        held = [weight**0.5 * columns for columns, _ in preserved._kept]
        folded = (self._products, preserved._products) != (None, None)
        if not folded and _count(self._kept) + sum(columns.shape[1] for columns in held) <= self._width:
            own, changes = self._all()
            columns = torch.cat([own, *held], 1)
            factor = _factor(columns.T @ columns, ridge)
            change = torch.eye(len(factor), own.shape[1], dtype=torch.float64)  # those that are preserved have none
            return changes, columns @ torch.cholesky_solve(change, factor)
        products, changes = self._folded()
        factor = _factor(products.add(preserved._folded()[0], alpha=weight), ridge)
        return changes, torch.cholesky_inverse(factor)

    def _all(self) -> Pair:
        """All columns that are kept themselves."""
        if not self._kept:
            return self._basis[:, :0], self._basis[:, :0]
        self._kept = [_joined(self._kept)]
        return self._kept[0]

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Z Z^T and D Z^T; columns that were kept themselves are kept no longer."""
        if self._kept or self._products is None:
            free, changes = self._all()
            self._kept.clear()
            rows = len(changes), self._width
            squares, products = self._products or (free.new_zeros(self._width, self._width), free.new_zeros(rows))
            self._products = squares.addmm_(free, free.T), products.addmm_(changes, free.T)
        return self._products

    def residual(self, operator: EditOperator) -> float:
        """|A Z - D| / |D|; 0 where D is."""
        if not self._change:
            return 0.0
        if self._products is None:
            free, changes = self._all()
            left = _energy(operator.change(free) - changes) + max(0.0, self._change - _energy(changes))
            return (left / self._change) ** 0.5
        squares, products = self._folded()
        edit = operator.up @ operator.down
        left = ((edit @ squares - 2 * products) * edit).sum().item() + self._change
        return (max(0.0, left) / self._change) ** 0.5


def _spanning(products: torch.Tensor, least: float) -> torch.Tensor:
    """An orthonormal basis [n, r] of the directions in which `products`, [n, n] and positive semidefinite, has all but
    less than `least` of each element of its diagonal. By a pivoted Cholesky factor, for a tenth of the time that all
    eigenvectors take.
    """
    packed, pivots, rank, _ = lapack.dpstrf(products.double().numpy(), tol=least, lower=1)
    factor = torch.from_numpy(packed).tril()[:, :rank]
    return torch.linalg.qr(factor[torch.from_numpy(pivots).long().argsort()]).Q


def _factor(products: torch.Tensor, ridge: float) -> torch.Tensor:
    """The Cholesky factor of `products` + lambda I, in place of `products`."""
    products.diagonal().add_(ridge)
    return torch.linalg.cholesky(products, out=products)


def _energy(columns: torch.Tensor) -> float:
    """|X|^2."""
    return float(torch.linalg.vector_norm(columns)) ** 2


def _joined(parts: Sequence[Pair]) -> Pair:
    if len(parts) == 1:
        return parts[0]
    columns, changes = (torch.cat([part.T for part in own]).T for own in zip(*parts, strict=True))  # as tokens lie
    return columns, changes


def _count(parts: Sequence[Pair]) -> int:
    return sum(columns.shape[1] for columns, _ in parts)


def solve(
    originals: torch.Tensor, targets: torch.Tensor, ridge: float, basis: torch.Tensor | None = None
) -> EditOperator:
    """The operator for X_o and X_t, [d, n] each, and lambda = `ridge`, of the least rank that makes all of the change.

    `basis` is Q, [d, q], to preserve exactly.
    """
    columns = Columns(len(originals), basis)
    columns.add(originals.double(), targets.double() - originals.double())
    return columns.operator(ridge).compact()


def project_out(basis: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """X - Q Q^T X."""
    return columns - basis @ (basis.T @ columns)


def leading_directions(parts: Sequence[torch.Tensor], tolerance: float) -> torch.Tensor:
    """An orthonormal basis [d, q], in float64, of columns that come in parts [d, k], each counted with length 1.

    Directions whose singular value is below `tolerance` times the largest are left out: the tokens of one prompt, its
    padding above all, are so nearly collinear that without a tolerance rounding would be preserved.
    """
    width = len(parts[0])
    units = [unit @ _leading(unit, tolerance / SHARED) for unit in map(_unit, parts)]
    # By the smaller of the two products: less than half the memory of a singular value decomposition of the columns.
    if sum(unit.shape[1] for unit in units) > width:
        products = torch.zeros(width, width, dtype=torch.float64)
        for unit in units:
            products.addmm_(unit, unit.T)
        squares, vectors = torch.linalg.eigh(products)
        return vectors[:, squares > tolerance**2 * squares[-1]]
    columns = torch.cat(units, 1)
    return torch.linalg.qr(columns @ _leading(columns, tolerance)).Q


def _leading(columns: torch.Tensor, tolerance: float) -> torch.Tensor:
    """The right singular vectors [n, r] of columns [d, n] whose singular value is above `tolerance` x the largest."""
    squares, right = torch.linalg.eigh(columns.T @ columns)
    return right[:, squares > tolerance**2 * squares[-1:]]


def _unit(columns: torch.Tensor) -> torch.Tensor:
    """The columns in float64, each of length 1; one of zeros stays."""
    columns = columns.double()
    return columns / torch.linalg.norm(columns, dim=0).clamp(min=torch.finfo(columns.dtype).tiny)
