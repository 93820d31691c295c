from __future__ import annotations

import pytest
import torch

from loco_core.edit import PAPER_LAMBDA, columns, edit_operator, solve
from loco_core.engine import TextEmbedding


def paper_edit(weight: torch.Tensor, originals: torch.Tensor, targets: torch.Tensor, ridge: float) -> torch.Tensor:
    """The paper's closed form as printed: (W X_t X_o^T + lambda W) (X_o X_o^T + lambda I)^-1, a d x d solve."""
    identity = torch.eye(len(originals), dtype=torch.float64)
    left = weight @ targets @ originals.T + ridge * weight
    return left @ torch.linalg.inv(originals @ originals.T + ridge * identity)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embedding(tokens: int, last_subject: int, seed: int) -> TextEmbedding:
    return TextEmbedding(f"prompt {seed}", random(tokens, 8, seed=seed).float(), last_subject)


@pytest.mark.parametrize("count", [1, 4, 40, 300])
@pytest.mark.parametrize("ridge", [PAPER_LAMBDA, 10.0])
def test_the_operator_is_the_papers_edit_for_few_columns_and_for_more_than_d(count, ridge):
    d = 64
    weight, originals, targets = random(96, d, seed=1), random(d, count, seed=2), random(d, count, seed=3)
    operator = solve(originals, targets, ridge)
    expected = paper_edit(weight, originals, targets, ridge)
    difference = weight + operator.weight_change(weight) - expected
    # float64 all the way: what is left is the rounding of the d x d inverse
    assert torch.linalg.norm(difference) / torch.linalg.norm(expected - weight) <= 1e-10
    assert operator.rank == min(count, d)


def test_equal_columns_count_once_in_the_rank():
    originals = random(32, 1, seed=1).expand(-1, 5)
    assert solve(originals, random(32, 5, seed=2), 1.0).rank == 1


def test_a_target_equal_to_the_concept_changes_nothing():
    originals = random(32, 4, seed=1)
    weight = random(16, 32, seed=2)
    assert solve(originals, originals, 1.0).weight_change(weight).abs().max() == 0


def test_with_a_small_ridge_the_concept_reads_like_the_target():
    originals, targets, weight = random(64, 4, seed=1), random(64, 4, seed=2), random(16, 64, seed=3)
    edited = weight + solve(originals, targets, 1e-9).weight_change(weight)
    torch.testing.assert_close(edited @ originals, weight @ targets)


def test_the_last_subject_token_is_one_column_per_prompt():
    concept, target = embedding(77, 6, seed=1), embedding(77, 2, seed=2)
    originals, replacements = columns([concept], [target], "last subject token")
    torch.testing.assert_close(originals, concept.tokens[[6]].double().T)
    torch.testing.assert_close(replacements, target.tokens[[2]].double().T)


def test_the_tail_pairs_end_with_end_and_padding_by_position():
    concept, target = embedding(77, 6, seed=1), embedding(77, 2, seed=2)
    originals, replacements = columns([concept], [target], "last subject token and tail")
    padding = list(range(8, 77))
    torch.testing.assert_close(originals, concept.tokens[[6, 7, *padding]].double().T)
    torch.testing.assert_close(replacements, target.tokens[[2, 3, *padding]].double().T)


def test_a_prompt_that_fills_its_chunk_has_no_padding_to_pair():
    concept, target = embedding(77, 75, seed=1), embedding(77, 2, seed=2)
    originals, _ = columns([concept], [target], "last subject token and tail")
    torch.testing.assert_close(originals, concept.tokens[[75, 76]].double().T)


def test_the_relative_ridge_does_not_depend_on_the_scale_of_the_embeddings():
    concepts, targets = [embedding(77, 6, seed=1)], [embedding(77, 2, seed=2)]
    large = [[TextEmbedding("", 100 * e.tokens, e.last_subject) for e in group] for group in (concepts, targets)]
    one = edit_operator(concepts, targets, "last subject token", "relative")
    other = edit_operator(*large, "last subject token", "relative")
    # the embeddings are float32: scaling them by 100 rounds once
    torch.testing.assert_close(one.up @ one.down, other.up @ other.down, rtol=1e-5, atol=1e-7)


def test_what_is_kept_reads_as_before_while_the_concept_changes():
    weight = random(16, 8, seed=5)
    concept, target = embedding(77, 6, seed=1), embedding(77, 2, seed=2)
    kept = TextEmbedding("kept", target.tokens[:3], 1)
    changes = {}
    for keep in ((), (kept,)):
        operator = edit_operator([concept], [target], "last subject token", "relative", 1e-3, keep)
        changes[len(keep)] = torch.linalg.norm(operator.weight_change(weight) @ kept.tokens.double().T)
        x_o, x_t = (e.tokens[[e.last_subject]].double().T for e in (concept, target))
        left = torch.linalg.norm(weight @ x_o + operator.weight_change(weight) @ x_o - weight @ x_t)
        assert left < 0.05 * torch.linalg.norm(weight @ (x_o - x_t))
    assert changes[1] < 0.05 * changes[0]


def test_nan_in_an_embedding_is_an_error():
    originals = random(8, 2, seed=1)
    originals[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        solve(originals, random(8, 2, seed=2), 1.0)


@pytest.mark.parametrize(("tokens", "ridge"), [("all", "paper"), ("last subject token", "none")])
def test_an_unknown_choice_is_an_error_that_lists_the_known_ones(tokens, ridge):
    with pytest.raises(ValueError, match="give one of"):
        edit_operator([embedding(77, 6, seed=1)], [embedding(77, 2, seed=2)], tokens, ridge)
