"""The closed forms against the formulas they are derived from, written out as d x d solves."""

from __future__ import annotations

import pytest
import torch

from loco_core.editing.closed_form import UNNEEDED, Columns, EditOperator, leading_directions, solve
from loco_core.editing.solve import PAPER_LAMBDA

D = 64
# Of prompts, in the size of their columns.
RIDGE = 100.0


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def paper_edit(weight: torch.Tensor, originals: torch.Tensor, targets: torch.Tensor, ridge: float) -> torch.Tensor:
    """The paper's closed form as printed: (W X_t X_o^T + lambda W) (X_o X_o^T + lambda I)^-1, a d x d solve."""
    identity = torch.eye(len(originals), dtype=torch.float64)
    left = weight @ targets @ originals.T + ridge * weight
    return left @ torch.linalg.inv(originals @ originals.T + ridge * identity)


def unchanged(columns: torch.Tensor) -> Columns:
    """What is preserved with a weight, in two parts."""
    preserved = Columns(D)
    for part in (columns[:, :2], columns[:, 2:]):
        preserved.add(part, part[:0])
    return preserved


@pytest.mark.parametrize("count", [1, 4, 40, 300])
@pytest.mark.parametrize("ridge", [PAPER_LAMBDA, 10.0])
def test_the_operator_is_the_papers_edit_for_few_columns_and_for_more_than_d(count, ridge):
    weight, originals, targets = random(96, D, seed=1), random(D, count, seed=2), random(D, count, seed=3)
    operator = solve(originals, targets, ridge)
    expected = paper_edit(weight, originals, targets, ridge)
    difference = weight + operator.weight_change(weight) - expected
    # float64 all the way: what is left is the rounding of the d x d inverse
    assert torch.linalg.norm(difference) / torch.linalg.norm(expected - weight) <= 1e-10
    assert operator.rank == min(count, D)


def test_exact_preservation_is_the_solve_in_the_null_space_of_what_is_preserved():
    originals, targets, ridge = random(D, 5, seed=1), random(D, 5, seed=2), 0.3
    basis = leading_directions([random(D, 8, seed=3)], 1e-6)
    free = originals - basis @ basis.T @ originals
    expected = (targets - originals) @ free.T @ torch.linalg.inv(free @ free.T + ridge * torch.eye(D).double())
    operator = solve(originals, targets, ridge, basis=basis)
    torch.testing.assert_close(operator.up @ operator.down, expected, rtol=0, atol=1e-10)
    assert operator.change(basis).abs().max() <= 1e-14
    assert operator.rank == 5


@pytest.mark.parametrize("count", [8, D, D + 1, 3 * D])  # of what is preserved: with the concept's less than d, or more
def test_weighted_preservation_is_the_solve_with_the_retain_term(count):
    originals, targets, preserved = random(D, 5, seed=1), random(D, 5, seed=2), random(D, count, seed=3)
    beta, ridge = 25, 0.3
    gram = originals @ originals.T + beta * preserved @ preserved.T + ridge * torch.eye(D).double()
    expected = (targets - originals) @ originals.T @ torch.linalg.inv(gram)
    columns = Columns(D)
    columns.add(originals, targets - originals)
    operator = columns.operator(ridge, unchanged(preserved), beta)
    torch.testing.assert_close(operator.up @ operator.down, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [20, 64, 65, 3000])  # fewer columns than d, as many, and more
@pytest.mark.parametrize("preserved", ["nothing", "exactly", "weighted"])
def test_columns_that_come_in_parts_give_the_d_by_d_solve_and_its_residual(count, preserved):
    """Nearly collinear columns, as the padding of prompts is; the operators agree to 1e-6 of their size or better."""
    base, kept, ridge, beta = random(D, 7, seed=1), random(D, 6, seed=3), 0.01, 25
    originals = base.repeat(1, count // 7 + 1)[:, :count] + 0.01 * random(D, count, seed=4)
    targets = random(D, 1, seed=2) + 0.01 * random(D, count, seed=5)
    change, free, gram = targets - originals, originals, ridge * torch.eye(D).double()
    asked, basis = {}, None
    if preserved == "exactly":
        basis = leading_directions([kept[:, :2], kept[:, 2:]], 1e-6)
        free = originals - basis @ basis.T @ originals
    elif preserved == "weighted":
        asked |= {"preserved": unchanged(kept), "weight": beta}
        gram = gram + beta * kept @ kept.T
    expected = change @ free.T @ torch.linalg.inv(free @ free.T + gram)
    columns = Columns(D, basis)
    for own, other in zip(originals.split(13, 1), change.split(13, 1), strict=True):
        columns.add(own, other)
    operator = columns.operator(ridge, **asked)
    found = operator.up @ operator.down
    assert torch.linalg.norm(found - expected) <= 1e-6 * torch.linalg.norm(expected)
    left = torch.linalg.norm(expected @ free - change) / torch.linalg.norm(change)
    assert columns.residual(operator) == pytest.approx(left.item(), rel=1e-6)


@pytest.mark.parametrize("count", [40, 1200, 6000])  # columns that are reduced together once and several times
def test_leading_directions_in_place_of_columns_give_the_d_by_d_solve(count):
    """Weighted, of columns that mostly lie within what is preserved; in what they become, to a thousandth: of each
    column, what is below a thousandth of the ridge is left out.
    """
    kept, beta = random(D, 6, seed=3), 10
    originals = kept @ random(6, count, seed=1) + random(D, 9, seed=5) @ random(9, count, seed=4)
    originals += 1e-2 * random(D, count, seed=6)
    ridge = 0.1 * originals.square().sum(0).mean().item()
    change = kept @ random(6, count, seed=7) - originals
    gram = originals @ originals.T + beta * kept @ kept.T + ridge * torch.eye(D).double()
    expected = change @ originals.T @ torch.linalg.inv(gram)
    preserved = unchanged(kept)
    preserved.keep(ridge / beta)
    columns = Columns(D, preserved.common(), within=True)
    for own, other in zip(originals.split(60, 1), change.split(60, 1), strict=True):
        assert columns.add(own, other, ridge) == 1
    operator = columns.operator(ridge, preserved, beta)
    changed, whole = operator.change(originals), expected @ originals
    assert torch.linalg.norm(changed - whole) <= 1e-3 * torch.linalg.norm(whole)
    left = torch.linalg.norm(whole - change) / torch.linalg.norm(change)
    assert columns.residual(operator) == pytest.approx(left.item(), rel=1e-3)


def test_leading_directions_do_not_depend_on_the_parts_that_columns_come_in():
    columns = random(D, 200, seed=1) * torch.linspace(1, 1e-3, 200)
    whole, parts = (leading_directions(given, 0.5) for given in ([columns], columns.float().split(77, 1)))
    # the second's columns were rounded to float32
    torch.testing.assert_close(whole @ whole.T, parts @ parts.T, rtol=0, atol=1e-5)


def test_the_order_of_the_columns_does_not_matter():
    originals, targets, preserved = random(D, 20, seed=1), random(D, 20, seed=2), random(D, 8, seed=3)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(4))
    one = solve(originals, targets, 0.01, leading_directions([preserved], 1e-6))
    other = solve(originals[:, order], targets[:, order], 0.01, leading_directions([preserved.flip(1)], 1e-6))
    assert (one.up @ one.down - other.up @ other.down).abs().max() <= 1e-10


def test_equal_columns_count_once_in_the_rank():
    originals, targets = (random(32, 1, seed=seed).expand(-1, 5) for seed in (1, 2))
    assert solve(originals, targets, 1.0).rank == 1


def test_a_target_equal_to_the_concept_changes_nothing():
    originals = random(32, 4, seed=1)
    operator = solve(originals, originals, 1.0)
    assert operator.rank == 0
    assert operator.weight_change(random(16, 32, seed=2)).abs().max() == 0
    assert operator.spectral_norm() == 0


def test_with_a_small_ridge_the_concept_reads_like_the_target():
    originals, targets, weight = random(64, 4, seed=1), random(64, 4, seed=2), random(16, 64, seed=3)
    edited = weight + solve(originals, targets, 1e-9).weight_change(weight)
    torch.testing.assert_close(edited @ originals, weight @ targets)


def test_the_spectral_norm_is_the_largest_stretch():
    operator = EditOperator(random(D, 3, seed=1), random(3, D, seed=2))
    expected = torch.linalg.matrix_norm(operator.up @ operator.down, ord=2).item()
    assert operator.spectral_norm() == pytest.approx(expected)


def test_a_widened_operator_leaves_the_other_inputs_alone():
    weight = random(7, D + 9, seed=3)
    operator = EditOperator(random(D, 3, seed=1), random(3, D, seed=2))
    change = operator.widened(D + 9).weight_change(weight)
    torch.testing.assert_close(change[:, :D], operator.weight_change(weight[:, :D]))
    assert change[:, D:].abs().max() == 0


@pytest.mark.parametrize("count", [3, 200])
def test_leading_directions_leave_out_what_is_nearly_collinear(count):
    one, other = torch.eye(D).double()[:, :2].unbind(1)
    columns = torch.stack([one + 1e-3 * (-1) ** i * other for i in range(count)], 1) * torch.arange(1, count + 1)
    assert leading_directions([columns], 0.1).shape == (D, 1)
    both = leading_directions([columns], 1e-6)
    assert both.shape == (D, 2)
    torch.testing.assert_close(both.T @ both, torch.eye(2).double())


def test_nan_in_an_embedding_is_an_error():
    originals = random(8, 2, seed=1)
    originals[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        solve(originals, random(8, 2, seed=2), 1.0)


@pytest.mark.parametrize("count", [4, 300])
def test_a_column_of_zeros_has_no_direction(count):
    columns = random(D, count, seed=3)
    padded = torch.cat([columns, torch.zeros(D, 1).double()], 1)
    one, other = (leading_directions([each], 1e-6) for each in (columns, padded))
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=0, atol=1e-10)  # the same space, in float64


def prompts(count: int, seed: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Z and D of prompts of 77 tokens each that differ by a hundredth, as padding does; 3 directions to a prompt."""
    made = []
    for number in range(count):
        mixed = torch.cat([torch.ones(1, 77).double(), 0.1 * random(2, 77, seed=seed + number)])
        free, change = (random(D, 3, seed=place + number) @ mixed for place in (100 * seed, 200 * seed))
        made.append((free + 1e-4 * random(D, 77, seed=number), change))
    return made


def added(
    given: list[tuple[torch.Tensor, torch.Tensor]], whole: bool = False, basis: torch.Tensor | None = None
) -> Columns:
    columns = Columns(D, basis)
    for free, change in given:
        columns.add(free, change, None if whole else RIDGE)
    return columns


@pytest.mark.parametrize("count", [1, 5, 40])  # less than d directions, and more
def test_a_prompt_gives_few_columns_and_the_same_operator(count):
    compact, whole = added(prompts(count)), added(prompts(count), whole=True)
    one, other = compact.operator(RIDGE), whole.operator(RIDGE)
    found, expected = one.up @ one.down, other.up @ other.down
    # the noise of 1e-4 in a prompt's columns is not solved for
    assert torch.linalg.norm(found - expected) <= 1e-3 * torch.linalg.norm(expected)
    assert compact.residual(one) == pytest.approx(whole.residual(other), rel=1e-2)
    assert one.rank == min(3 * count, D)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_what_an_operator_needs_is_of_less_rank_and_changes_the_columns_as_it_does(count):
    """The targets of all prompts lie in the same three directions."""
    onto = random(D, 3, seed=1)
    given = [(free, onto @ onto.T @ change) for free, change in prompts(count)]
    basis = torch.linalg.qr(random(D, 2, seed=2)).Q
    columns = added(given, basis=basis)
    whole = columns.operator(RIDGE)
    needed, parts = columns.needed(whole)
    free = torch.cat([free for free, _ in given], 1)
    free = free - basis @ (basis.T @ free)
    changes = [torch.linalg.norm(operator.change(free)) for operator in (whole, needed)]
    assert torch.linalg.norm(whole.change(free) - needed.change(free)) <= 1.01 * UNNEEDED * changes[0]
    assert needed.rank == len(parts) == 3
    assert parts == pytest.approx(sorted(parts, reverse=True)) and 1 - UNNEEDED**2 <= sum(parts) <= 1 + 1e-9
    assert needed.change(basis).abs().max() <= 1e-12


def test_leading_directions_of_many_prompts_are_those_of_all_their_tokens():
    parts = [free for free, _ in prompts(40)]
    one, other = leading_directions(parts, 0.03), leading_directions([torch.cat(parts, 1)], 0.03)
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=0, atol=1e-3)  # parts leave out a tenth of 0.03
