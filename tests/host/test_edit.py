"""LocoEdit on the host's model patcher."""

from __future__ import annotations

import pytest
import torch

from loco_core.editing.closed_form import EditOperator, leading_directions
from loco_core.editing.recipe import RELATIVE_LAMBDA, Preservation, Ridge, Tokens
from loco_core.editing.solve import solve_edit
from loco_core.editing.token_pairs import token_pairs
from loco_core.models.layers import LayerSet
from made_up import edit_of, recipe, shared_operator

CONCEPTS = ("woodcut", "a painting in the style of woodcut")
PROMPT = "a red star in the style of woodcut"


@pytest.fixture(scope="module")
def solve(encoder, demo):
    """solve(concepts, ...) -> an edit of layers 8 and 9 of the demo model."""
    encode = encoder(demo.clip)
    return lambda concepts=CONCEPTS, **asked: solve_edit(encode, recipe(concepts, **asked))


@pytest.fixture(scope="module")
def edit(solve):
    return solve()


@pytest.fixture(scope="module")
def weights(engine_of):
    """weights(model) -> the effective (K, V) of all 16 layers."""

    def read(model) -> list[tuple[torch.Tensor, torch.Tensor]]:
        engine = engine_of(model)
        return [engine.key_value_weights(layer) for layer in range(16)]

    return read


@pytest.mark.parametrize("tokens", [Tokens.LAST_SUBJECT, Tokens.TAIL])
@pytest.mark.parametrize(("ridge", "value"), [(Ridge.PAPER, 0.01), (Ridge.RELATIVE, None)])
def test_the_edited_weights_are_the_papers_d_by_d_formula_in_float64(
    demo, encoder, solve, apply_edit, weights, tokens, ridge, value
):
    edited = apply_edit(demo.model, solve(tokens=tokens, ridge=ridge, preservation=Preservation.NONE), 1.0)
    encode = encoder(demo.clip)
    (target,) = encode(["a painting"])
    pairs = [token_pairs(concept, target, tokens) for concept in encode(CONCEPTS)]
    originals, replacements = (torch.cat(part, 1).double() for part in zip(*pairs, strict=True))
    value = value or RELATIVE_LAMBDA * originals.square().sum(0).mean()
    inverse = torch.linalg.inv(originals @ originals.T + value * torch.eye(len(originals), dtype=torch.float64))
    for layer in (8, 9):
        for before, after in zip(weights(demo.model)[layer], weights(edited)[layer], strict=True):
            weight = before.double()
            expected = (weight @ replacements @ originals.T + value * weight) @ inverse
            if ridge is Ridge.PAPER:
                error = torch.linalg.norm(after.double() - expected) / torch.linalg.norm(expected)
                assert error <= 1e-6  # the host keeps weights in float32: 6e-8 of rounding each
            else:
                missing = torch.linalg.norm((after.double() - expected) @ originals)
                assert missing <= 1e-2 * torch.linalg.norm(
                    (expected - weight) @ originals
                )  # of as small a rank as does


def test_what_is_preserved_exactly_reads_as_before(demo, encoder, solve, apply_edit, weights):
    kept = ["a picture of a red star", "halftone"]
    edit = solve(preserve=kept, preservation=Preservation.EXACT)
    embeddings = encoder(demo.clip)(["a painting", "", *kept])
    basis = leading_directions(
        [embedding.tokens.T for embedding in embeddings], edit.recipe.settings.preserved_tolerance
    )
    assert basis.shape[1] == edit.figures.kept_directions > 3
    before, after = weights(demo.model), weights(apply_edit(demo.model, edit, 1.0))
    for layer in (8, 9):
        for weight, changed in zip(before[layer], after[layer], strict=True):
            read = weight.double() @ basis
            moved = torch.linalg.norm((changed - weight).double() @ basis, dim=0) / torch.linalg.norm(read, dim=0)
            assert moved.max() <= 1e-6  # the host keeps weights in float32


def test_only_the_chosen_layers_change(demo, edit, apply_edit, weights):
    before, after = weights(demo.model), weights(apply_edit(demo.model, edit, 1.0))
    changed = {
        index for index in range(16) for part in (0, 1) if not torch.equal(before[index][part], after[index][part])
    }
    assert changed == {8, 9}


@pytest.mark.parametrize("mode", ["weights", "context"])
def test_an_edit_that_is_applied_twice_is_told_of(execute, demo, edit, solve, mode):
    once, first = execute("LoCo_EditApply", model=demo.model, edit=edit, mode=mode)
    _, second = execute("LoCo_EditApply", model=once, edit=edit, mode=mode)
    _, another = execute("LoCo_EditApply", model=once, edit=solve(["halftone"]), mode=mode)
    assert second.startswith("WARNING: a node before this one has applied this very edit")
    assert "before this one" not in first + another


def test_a_negative_strength_is_said_to_be_the_opposite(execute, demo, edit):
    _, report = execute("LoCo_EditApply", model=demo.model, edit=edit, strength=-1.0)
    assert report.startswith("strength -1 is the opposite of the edit: the concept becomes stronger")


def test_strength_0_is_the_untouched_model(demo, sample, edit, apply_edit):
    edited = apply_edit(demo.model, edit, 0.0)
    difference = sample(edited, demo.clip, "a red star") - sample(demo.model, demo.clip, "a red star")
    assert difference.abs().max() == 0


def test_strength_scales_the_change(demo, edit, apply_edit, weights):
    base = weights(demo.model)[8][0]
    half, full = (weights(apply_edit(demo.model, edit, s))[8][0] - base for s in (0.5, 1.0))
    torch.testing.assert_close(2 * half, full, rtol=0, atol=1e-6)  # one float32 rounding of weights near 1


def test_the_model_loaded_from_disk_stays_as_it_was(demo, sample, edit, apply_edit):
    before = sample(demo.model, demo.clip, PROMPT)
    edited = sample(apply_edit(demo.model, edit, 1.0), demo.clip, PROMPT)
    assert (edited - before).abs().max() > 0.1
    assert (sample(demo.model, demo.clip, PROMPT) - before).abs().max() == 0


def test_the_same_edit_twice_gives_the_same_latent(demo, sample, edit, apply_edit):
    first, second = (sample(apply_edit(demo.model, edit, 1.0), demo.clip, "woodcut") for _ in range(2))
    assert (first - second).abs().max() == 0


@pytest.fixture(scope="module")
def lora():
    """lora(model) -> a clone with a change of layer 8's keys, and that change."""
    key = "diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    change = torch.randn(128, 128, generator=torch.Generator().manual_seed(0)) / 10

    def run(model):
        changed = model.clone()
        changed.add_patches({key: ("diff", (change,))})
        return changed, change

    return run


def test_a_lora_loaded_before_the_edit_is_edited_too(demo, edit, apply_edit, weights, lora):
    with_lora, _ = lora(demo.model)
    weight = weights(with_lora)[8][0]
    edited = weights(apply_edit(with_lora, edit, 1.0))[8][0]
    torch.testing.assert_close(edited, weight + shared_operator(edit).weight_change(weight), rtol=0, atol=1e-5)


def test_a_lora_loaded_after_the_edit_is_added_to_it_as_it_is(demo, edit, apply_edit, weights, lora):
    edited = apply_edit(demo.model, edit, 1.0)
    with_lora, change = lora(edited)
    torch.testing.assert_close(weights(with_lora)[8][0], weights(edited)[8][0] + change, rtol=0, atol=1e-6)


def test_an_edit_of_another_clip_is_refused(demo, apply_edit):
    foreign = edit_of(EditOperator(torch.zeros(768, 1), torch.zeros(1, 768)), LayerSet((8, 9), 16))
    with pytest.raises(
        ValueError, match="edit: made with text embeddings 768 wide, this model gets 128; use the CLIP that belongs"
    ):
        apply_edit(demo.model, foreign, 1.0)


def test_layers_of_another_model_are_refused(demo, edit, apply_edit):
    with pytest.raises(ValueError, match="70 layers; this model has 16"):
        apply_edit(demo.model, edit_of(shared_operator(edit), LayerSet((45,), 70)), 1.0)


def test_a_pooled_edit_of_a_model_that_reads_none_is_refused(demo, edit, apply_edit):
    with pytest.raises(ValueError, match="pooled: this model gets no pooled embedding"):
        apply_edit(demo.model, edit_of(shared_operator(edit), LayerSet((8,), 16), shared_operator(edit)), 1.0)
