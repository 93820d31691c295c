"""A concept edit of transformers whose blocks change the text: of all blocks, as a weight or of what they get, and of
some blocks, which read each prompt in the edited form.
"""

from __future__ import annotations

from types import SimpleNamespace

import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from host.full_size.measures import Agreement, agreement
from host.transformers.narrow import WIDTH
from loco_core.editing.closed_form import EditOperator
from loco_core.editing.lora import edit_lora
from loco_core.editing.solve import Edit
from loco_core.models.layers import LayerSet
from made_up import edit_of

ALL, SOME = LayerSet((*range(6),), 6), LayerSet((1, 4), 6)
# Families whose layer by which text comes in gets the prompt's embedding as it is.
WITH_WEIGHT = ["sd3", "flux", "flux2", "chroma", "wan"]
# An edit that changes the latents by less is none.
EFFECT = 1e-3
# Of an effect: float32 sums in another order, where the effect may be a thousandth of the latents.
SAME = 1e-3
MODES = ("weights", "context")


def operator(seed: int, width: int = WIDTH) -> EditOperator:
    generator = torch.Generator().manual_seed(seed)
    up, down = torch.randn(width, 2, generator=generator), torch.randn(2, width, generator=generator) / width
    return EditOperator(up.double(), down.double())


@pytest.fixture
def prompts(family) -> SimpleNamespace:
    tokens = 512 if family == "flux2" else 20
    generator = torch.Generator().manual_seed(1)
    settings = {"pooled_output": torch.randn(1, 32, generator=generator)}
    own, other, empty = ([[torch.randn(1, tokens, WIDTH, generator=generator), settings]] for _ in range(3))
    return SimpleNamespace(own=own, other=other, empty=empty)


def edited_prompt(prompt: list, edit: Edit, strength: float = 1.0) -> list:
    """The prompt in the edited form, written out."""
    (tokens, settings), own = prompt[0], next(iter(edit.operators.values()))
    change = (own.up @ own.down).float()
    return [[tokens + strength * tokens @ change.T, settings]]


@torch.inference_mode()
def sample(model: ModelPatcher, positive: list, negative: list, cfg: float = 1.0, batch: int = 1) -> torch.Tensor:
    channels = model.get_model_object("latent_format").latent_channels
    empty = comfy.sample.fix_empty_latent_channels(model, torch.zeros(batch, channels, 8, 8))
    noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(2))
    options = {"seed": 0, "disable_pbar": True}
    return comfy.sample.sample(model, noise, 2, cfg, "euler", "normal", positive, negative, empty, **options)


def agrees(unedited: torch.Tensor, *edited: torch.Tensor) -> Agreement:
    agreed = agreement(unedited, *edited)
    assert agreed.effect >= EFFECT
    return agreed


# --- all blocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cfg", "batch"), [(1.0, 1), (5.0, 3)])
def test_an_edit_of_all_blocks_is_the_edited_prompts_in_both_branches(model, prompts, apply_edit, cfg, batch):
    edit = edit_of(operator(1), ALL)
    expected = sample(model, edited_prompt(prompts.own, edit), edited_prompt(prompts.empty, edit), cfg, batch)
    made = (sample(apply_edit(model, edit, 1.0, mode), prompts.own, prompts.empty, cfg, batch) for mode in MODES)
    plain = sample(model, prompts.own, prompts.empty, cfg, batch)
    assert agrees(plain, expected, *made).difference <= SAME


@pytest.mark.parametrize("family", WITH_WEIGHT, indirect=True)
def test_it_changes_the_one_weight_by_which_text_comes_in(pack, family, model, apply_edit):
    edited = apply_edit(model, edit_of(operator(1), ALL))
    layers = pack("nodes.host.layers").read_layers(model)
    assert [*edited.patches] == [f"{layers.text_in}.weight"]


@pytest.mark.parametrize("family", WITH_WEIGHT, indirect=True)
def test_its_lora_in_the_stock_loader_does_the_same(model, prompts, apply_edit, engine_of):
    edit, engine = edit_of(operator(1), ALL), engine_of(model)
    tensors = edit_lora(edit, engine.layers, engine.key_value_weights)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)
    made = (sample(one, prompts.own, prompts.empty) for one in (apply_edit(model, edit), loaded))
    assert agrees(sample(model, prompts.own, prompts.empty), *made).difference <= 2e-2  # its factors are float16


@pytest.mark.parametrize("family", ["z_image", "qwen"], indirect=True)
def test_where_the_embedding_is_normalised_first_there_is_no_lora(model, engine_of):
    engine = engine_of(model)
    with pytest.raises(ValueError, match="^model: .* normalises the prompt's embedding before a weight meets it"):
        edit_lora(edit_of(operator(1), ALL), engine.layers, engine.key_value_weights)


@pytest.mark.parametrize("family", ["sd3", "flux"], indirect=True)
def test_the_pooled_embedding_is_edited_in_both_modes_and_as_a_lora(pack, model, prompts, apply_edit, engine_of):
    edit, engine = edit_of(operator(1), ALL, pooled=operator(3, 32)), engine_of(model)
    weight = pack("nodes.host.editing").pooled_weight(model, engine.layers, edit)
    tensors = edit_lora(edit, engine.layers, engine.key_value_weights, pooled_weight=weight)
    loaded, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0)
    without = sample(apply_edit(model, edit_of(operator(1), ALL)), prompts.own, prompts.empty)
    ways = (apply_edit(model, edit), apply_edit(model, edit, 1.0, "context"), loaded)
    assert agrees(without, *(sample(one, prompts.own, prompts.empty) for one in ways)).difference <= 2e-2  # as above


# --- some blocks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cfg", "batch"), [(1.0, 1), (5.0, 3)])
def test_some_blocks_read_each_prompt_in_the_edited_form(model, prompts, apply_edit, inject_in, cfg, batch):
    """As if the edited prompt were given to them, in the positive branch and in the negative one."""
    edit = edit_of(operator(1), SOME)
    positive = inject_in(model, edited_prompt(prompts.own, edit), SOME)
    both = inject_in(positive, edited_prompt(prompts.empty, edit), SOME, branch="negative")
    made = (sample(one, prompts.own, prompts.empty, cfg, batch) for one in (both, apply_edit(model, edit)))
    assert agrees(sample(model, prompts.own, prompts.empty, cfg, batch), *made).difference <= SAME


@pytest.mark.parametrize("strength", [0.5, -1.0])
def test_its_strength_is_that_of_the_edited_form(model, prompts, apply_edit, inject_in, strength):
    edit = edit_of(operator(1), SOME)
    expected = inject_in(model, edited_prompt(prompts.own, edit, strength), SOME)
    made = (sample(one, prompts.own, prompts.empty) for one in (expected, apply_edit(model, edit, strength)))
    assert agrees(sample(model, prompts.own, prompts.empty), *made).difference <= SAME


@pytest.mark.parametrize("layers", [ALL, SOME], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_strength_0_is_the_model_itself(model, prompts, apply_edit, layers, mode):
    edited = apply_edit(model, edit_of(operator(1), layers), 0.0, mode)
    assert torch.equal(sample(edited, prompts.own, prompts.empty), sample(model, prompts.own, prompts.empty))


@pytest.mark.parametrize("order", ["injection first", "edit first"])
def test_blocks_that_get_another_prompt_read_that_one_edited(model, prompts, apply_edit, inject_in, order):
    edit, injected = edit_of(operator(1), SOME), LayerSet((4, 5), 6)
    if order == "injection first":
        made = apply_edit(inject_in(model, prompts.other, injected), edit)
    else:
        made = inject_in(apply_edit(model, edit), prompts.other, injected)
    expected = inject_in(model, edited_prompt(prompts.own, edit), [1])
    expected = inject_in(inject_in(expected, edited_prompt(prompts.other, edit), [4]), prompts.other, [5])
    latents = (sample(one, prompts.own, prompts.empty) for one in (made, expected))
    assert agrees(sample(model, prompts.own, prompts.empty), *latents).difference <= SAME


def test_one_edit_after_another_acts_on_what_the_first_makes(model, prompts, apply_edit, inject_in):
    first, second = edit_of(operator(1), SOME), edit_of(operator(2), LayerSet((4, 5), 6))
    made = apply_edit(apply_edit(model, first), second)
    once = edited_prompt(prompts.own, first)
    expected = inject_in(model, once, [1])
    expected = inject_in(expected, edited_prompt(once, second), [4])
    expected = inject_in(expected, edited_prompt(prompts.own, second), [5])
    latents = (sample(one, prompts.own, prompts.empty) for one in (made, expected))
    assert agrees(sample(model, prompts.own, prompts.empty), *latents).difference <= SAME


@pytest.mark.parametrize("family", ["flux"], indirect=True)
def test_it_may_act_for_a_part_of_the_denoising(model, prompts, apply_edit):
    edit = edit_of(operator(1), SOME)
    plain, whole = (sample(one, prompts.own, prompts.empty) for one in (model, apply_edit(model, edit)))
    part = sample(apply_edit(model, edit, 1.0, "context", end=0.5), prompts.own, prompts.empty)
    assert EFFECT < ((part - plain).norm() / plain.norm()).item()
    assert not torch.allclose(part, whole)


@pytest.mark.parametrize("family", ["sd3"], indirect=True)
def test_some_blocks_have_no_lora_and_no_pooled_embedding_of_their_own(model, apply_edit, engine_of):
    engine = engine_of(model)
    with pytest.raises(ValueError, match="^layers: joint 1, joint 4; some blocks of this model have no weights"):
        edit_lora(edit_of(operator(1), SOME), engine.layers, engine.key_value_weights)
    with pytest.raises(ValueError, match="^pooled: all blocks get the pooled embedding together"):
        apply_edit(model, edit_of(operator(1), SOME, pooled=operator(3, 32)))
