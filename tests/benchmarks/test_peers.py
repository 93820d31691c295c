"""The peers' formulas do what their papers say of them."""

from __future__ import annotations

import pytest
import torch

from benchmarks import peers
from loco_core.editing.closed_form import solve
from loco_core.editing.solve import PAPER_LAMBDA

D = 24


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def weight() -> torch.Tensor:
    return random(10, D, seed=1)


@pytest.fixture
def columns() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """X_o, X_t and P."""
    return random(D, 3, seed=2), random(D, 3, seed=3), random(D, 6, seed=4)


def test_the_authors_edit_is_ours_without_preservation(weight, columns):
    originals, targets, _ = columns
    expected = weight + solve(originals, targets, PAPER_LAMBDA).weight_change(weight)
    torch.testing.assert_close(peers.authors(weight, originals, targets), expected)


def test_uces_edit_is_the_least_of_its_objective(weight, columns):
    originals, targets, preserved = columns

    def objective(new: torch.Tensor) -> torch.Tensor:
        edit = (new @ originals - weight @ targets).square().sum()
        keep = ((new - weight) @ preserved).square().sum()
        return edit + keep + peers.UCE_LAMBDA * (new - weight).square().sum()

    found = peers.uce(weight, originals, targets, preserved).requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(found), found)
    assert gradient.abs().max() <= 1e-10


def test_speeds_edit_leaves_the_start_token_and_the_empty_prompts_centres_alone(weight, columns):
    originals, targets, preserved = columns
    held = peers.SpeedInputs(random(D, 77, seed=5))
    change = peers.speed(weight, originals, targets, preserved[:, :2], held) - weight
    assert change.norm() > 1e-3
    assert (change @ held.constraints()).norm() <= 1e-8 * change.norm()


def test_oces_edit_rotates_the_outputs_away_from_the_concept_and_changes_no_length(weight, columns):
    originals, targets, preserved = columns
    general = torch.eye(D, dtype=torch.float64)
    rotated = peers.oce(weight, originals, targets, preserved, general, erase=1e6)
    torch.testing.assert_close(rotated.T @ rotated, weight.T @ weight)
    own, other = weight @ originals, rotated @ originals
    assert torch.nn.functional.cosine_similarity(own, other, dim=0).max() < 0.5
    gently = peers.oce(weight, originals, targets, preserved, general, erase=0.0)
    torch.testing.assert_close(gently, weight)


def test_double_projections_leave_what_is_preserved_and_map_concepts_onto_the_safe_tokens(weight, columns):
    originals, targets, preserved = columns
    changed = peers.double_projections(weight, originals, targets, preserved)
    torch.testing.assert_close(changed @ preserved, weight @ preserved)
    proxies = targets @ torch.linalg.lstsq(targets, originals).solution
    torch.testing.assert_close(changed @ originals, weight @ proxies)
