"""Neurons ablated in the real host: what is replaced, where, and beside what else."""

from __future__ import annotations

from functools import partial

import comfy.sample
import pytest
import torch

import nodes
from loco_core.editing.solve import solve_edit
from loco_core.models.layers import PROJECTIONS, LayerSet, Part
from loco_core.neurons.ablation import Ablation, ChooseBy, Mode, Replacement, ablation, chosen_neurons
from loco_core.neurons.detection import Neurons, detect_neurons
from loco_core.prompts import Contrast
from made_up import recipe

OWN, OTHER, NEGATIVE = "a red star in the style of woodcut", "a blue fish in the style of halftone", "a green tree"
THINGS = ("a red star", "a blue house", "a green fish", "a yellow boat")
LAYERS = LayerSet((8, 9), 16)
NAMES = ["output_blocks.4.1", "output_blocks.5.1"]


@pytest.fixture(scope="module")
def encode(demo):
    return lambda prompt: nodes.CLIPTextEncode().encode(demo.clip, prompt)[0]


@pytest.fixture(scope="module")
def neurons(demo, engine_of) -> Neurons:
    styled = tuple(f"{thing} in the style of woodcut" for thing in THINGS)
    return detect_neurons(engine_of(demo.model, demo.clip), Contrast(styled, THINGS, ()), LAYERS)


@pytest.fixture(scope="module")
def ablate(pack, scope):
    """ablate(model, change, branch, start, end, positions) at run time."""
    module, layers = pack("nodes.host.ablation"), pack("nodes.host.layers")

    def run(model, change: Ablation, branch: str = "both", start: float = 0.0, end: float = 1.0, positions="all"):
        chosen = module.parse_positions(positions, 77)
        return module.ablate(model, layers.read_layers(model), change, scope(branch, start, end), chosen)

    return run


@torch.no_grad()
def sample(model, positive, negative, cfg: float = 2.0, batch: int = 1, steps: int = 4) -> torch.Tensor:
    noise = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments = (steps, cfg, "euler", "normal", positive, negative, torch.zeros_like(noise))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=7)


def top(neurons: Neurons, count: int = 100, mode: Mode = Mode.MEAN, scale: float = 0.0) -> Ablation:
    return ablation(neurons, chosen_neurons(neurons, ChooseBy.COUNT, count), mode, scale)


def projections(model) -> list[torch.nn.Module]:
    blocks = [model.get_model_object(f"diffusion_model.{name}.transformer_blocks.0.attn2") for name in NAMES]
    return [part for attention in blocks for part in (attention.to_k, attention.to_v)]


def hooked(model, positive, negative, change: Ablation, **options) -> torch.Tensor:
    """The same by forward hooks on the modules themselves, for all rows and tokens."""
    places = [(layer, part) for layer in LAYERS for part in PROJECTIONS]
    handles = []
    for place, module in zip(places, projections(model), strict=True):
        if place in change:
            handles.append(module.register_forward_hook(lambda _, __, out, own=change[place]: own(out)))
    try:
        return sample(model, positive, negative, **options)
    finally:
        for handle in handles:
            handle.remove()


# --- what is replaced -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "mode", "scale"), [(0, Mode.MEAN, 0.0), (100, Mode.SCALE, 1.0)])
def test_no_neurons_or_scale_1_are_the_untouched_model(demo, encode, ablate, neurons, count, mode, scale):
    own, negative = encode(OWN), encode(NEGATIVE)
    same = sample(ablate(demo.model, top(neurons, count, mode, scale)), own, negative)
    assert (same - sample(demo.model, own, negative)).abs().max() == 0


def test_the_attention_layer_with_means_is_a_float64_reference(pack, demo, encode, ablate, neurons):
    change = top(neurons, 100)
    model = ablate(demo.model, change)
    attention = demo.model.get_model_object(f"diffusion_model.{NAMES[0]}.transformer_blocks.0.attn2")
    context, query = encode(OWN)[0][0], torch.randn(1, 64, 128, generator=torch.Generator().manual_seed(3))
    (wrapper,) = model.wrappers["calc_cond_batch"]["loco_ablation"]
    hooks = [
        wrapper.hooks[f"diffusion_model.{NAMES[0]}.transformer_blocks.0.attn2.{part}"] for part in ("to_k", "to_v")
    ]
    with torch.no_grad():
        keys, values = (
            hook(part, (context,), part(context))
            for hook, part in zip(hooks, (attention.to_k, attention.to_v), strict=True)
        )
        seen = torch.nn.functional.scaled_dot_product_attention(
            *(heads(x, attention.heads) for x in (attention.to_q(query), keys, values))
        )
        seen = attention.to_out(seen.transpose(1, 2).flatten(2))
        parts = []
        for part, module in ((Part.KEYS, attention.to_k), (Part.VALUES, attention.to_v)):
            outputs = context.double() @ module.weight.double().T
            numbers = change[8, part].neurons
            outputs[..., numbers] = neurons.scores[8, part].mean[numbers]
            parts.append(heads(outputs, attention.heads))
        q = heads(query.double() @ attention.to_q.weight.double().T, attention.heads)
        weights = torch.softmax(q @ parts[0].transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        expected = (weights @ parts[1]).transpose(1, 2).flatten(2)
        expected = expected @ attention.to_out[0].weight.double().T + attention.to_out[0].bias.double()
    assert (seen.double() - expected).norm() <= 1e-5 * expected.norm()


def heads(x: torch.Tensor, count: int) -> torch.Tensor:
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("mode", [Mode.MEAN, Mode.ZERO])
def test_it_is_what_hooks_on_the_modules_do(demo, encode, ablate, neurons, mode):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons, 100, mode)
    expected = hooked(demo.model, own, negative, change, batch=2)
    assert (expected - sample(demo.model, own, negative, batch=2)).abs().max() > 0.05
    assert torch.equal(sample(ablate(demo.model, change), own, negative, batch=2), expected)


def test_the_second_run_equals_the_first_and_the_model_on_disk_stays_as_it_was(demo, encode, ablate, neurons):
    own, negative = encode(OWN), encode(NEGATIVE)
    before = sample(demo.model, own, negative)
    ablated = ablate(demo.model, top(neurons), "positive", 0.0, 0.7)
    first, second = (sample(ablated, own, negative) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, before)
    assert torch.equal(sample(demo.model, own, negative), before)


# --- where ------------------------------------------------------------------------------------------------------------


def test_positive_and_negative_together_are_both(demo, encode, ablate, neurons):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons)
    chained = ablate(ablate(demo.model, change, "positive"), change, "negative")
    assert torch.equal(sample(chained, own, negative), sample(ablate(demo.model, change), own, negative))


@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_a_branch_that_is_not_there_is_left_alone(demo, encode, ablate, neurons, branch):
    own, negative = encode(OWN), encode(NEGATIVE)
    one_sided = sample(ablate(demo.model, top(neurons), branch), own, negative, cfg=1.0)
    expected = ablate(demo.model, top(neurons)) if branch == "positive" else demo.model  # CFG 1 has no negative rows
    assert torch.equal(one_sided, sample(expected, own, negative, cfg=1.0))


@pytest.mark.parametrize("text", ["1\N{EN DASH}3, 5", "1 - 3\N{FULLWIDTH COMMA}5", "1-3,5"])
def test_positions_are_read_with_any_dash_and_comma(pack, text):
    chosen = pack("nodes.host.ablation").parse_positions(text, 77).chosen
    assert chosen.nonzero().flatten().tolist() == [1, 2, 3, 5]


def test_all_positions_written_down_are_all(demo, encode, ablate, neurons):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons)
    parts = ablate(ablate(demo.model, change, positions="0-9"), change, positions="10-76")
    assert torch.equal(sample(parts, own, negative), sample(ablate(demo.model, change), own, negative))


def test_stages_of_the_denoising_together_are_the_whole(demo, encode, ablate, neurons):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons)
    early, late = ablate(demo.model, change, end=0.5), ablate(demo.model, change, start=0.5)
    whole = sample(ablate(demo.model, change), own, negative)
    assert not torch.equal(sample(early, own, negative), whole)
    assert not torch.equal(sample(late, own, negative), whole)
    both = ablate(early, change, start=0.5)
    assert torch.equal(sample(both, own, negative), whole)


def test_repeated_tokens_of_an_injector_keep_their_positions(demo, encode, ablate, neurons, inject_in):
    longer = encode(" ".join([OWN] * 12))  # two chunks of 77
    injected = inject_in(demo.model, longer, LAYERS)
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons)
    parts = ablate(ablate(injected, change, positions="0-40"), change, positions="41-76")
    assert torch.equal(sample(parts, own, negative), sample(ablate(injected, change), own, negative))


@pytest.mark.parametrize("length", [40, 154 + 1, 248])
def test_positions_are_refused_where_the_layers_get_no_chunks_of_77_tokens(demo, encode, ablate, neurons, length):
    own, negative = (
        [[tokens[:, :length].repeat(1, 4, 1)[:, :length], rest]]
        for ((tokens, rest),) in (encode(OWN), encode(NEGATIVE))
    )
    with pytest.raises(ValueError, match=f"token positions: the layers get {length} tokens, no multiple of 77"):
        sample(ablate(demo.model, top(neurons), positions="1-76"), own, negative, steps=1)


def test_a_clone_of_an_ablated_model_is_ablated_as_it_is(demo, encode, ablate, neurons):
    own, negative = encode(OWN), encode(NEGATIVE)
    ablated = ablate(demo.model, top(neurons), "positive", 0.0, 0.7)
    assert torch.equal(sample(ablated.clone().clone(), own, negative), sample(ablated, own, negative))


# --- zero in the weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "scale"), [(Mode.ZERO, 0.0), (Mode.SCALE, 0.3), (Mode.SCALE, 1.7)])
def test_zero_and_scale_are_the_same_in_the_weights(pack, demo, encode, ablate, neurons, mode, scale, scope):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons, 100, mode, scale)
    known = pack("nodes.host.layers").read_layers(demo.model)
    patched = pack("nodes.host.ablation").ablate_weights(demo.model, known, change, scope())
    plain, expected = sample(demo.model, own, negative), sample(ablate(demo.model, change), own, negative)
    assert (expected - plain).norm() > 1e-2 * plain.norm()
    assert (sample(patched, own, negative) - expected).norm() <= 1e-4 * (expected - plain).norm()  # float32 sums


# --- beside what people combine it with -------------------------------------------------------------------------------


def replace_patch(seen: list) -> object:
    """A stand-in for IP-Adapter's: attends by itself and adds to the result, and keeps the keys and values it got."""

    def run(q, k, v, extra_options):
        seen.append((k.clone(), v.clone()))
        count = extra_options["n_heads"]
        out = torch.nn.functional.scaled_dot_product_attention(*(heads(x, count) for x in (q, k, v)))
        return out.transpose(1, 2).flatten(2) + 0.05 * q

    return run


@pytest.mark.parametrize("order", ["replace first", "ablate first"])
def test_a_replace_patch_before_or_after_gets_the_ablated_keys_and_values(demo, encode, ablate, neurons, order):
    own, negative, change, seen = encode(OWN), encode(NEGATIVE), top(neurons), []

    def with_patch(model):
        changed = model.clone()
        changed.set_model_attn2_replace(replace_patch(seen), "output", 4)
        return changed

    combined = (
        ablate(with_patch(demo.model), change) if order == "replace first" else with_patch(ablate(demo.model, change))
    )
    result = sample(combined, own, negative)
    numbers = change[8, Part.VALUES].neurons
    means = neurons.scores[8, Part.VALUES].mean[numbers].float()
    assert all(torch.equal(v[..., numbers], means.expand_as(v[..., numbers])) for _, v in seen)
    assert torch.equal(result, hooked(with_patch(demo.model), own, negative, change))


@pytest.mark.parametrize("order", ["injector first", "ablate first"])
def test_an_injected_prompt_is_ablated_whatever_the_order(demo, encode, ablate, neurons, inject_in, order):
    own, negative, change = encode(OTHER), encode(NEGATIVE), top(neurons)

    def inject(model):
        return inject_in(model, encode(OWN), LAYERS)

    combined = ablate(inject(demo.model), change) if order == "injector first" else inject(ablate(demo.model, change))
    assert torch.equal(sample(combined, own, negative), hooked(inject(demo.model), own, negative, change))


@pytest.mark.parametrize("mode", ["weights", "context"])
@pytest.mark.parametrize("order", ["edit first", "ablate first"])
def test_an_edited_layer_is_ablated_whatever_the_order(demo, encode, encoder, ablate, neurons, apply_edit, mode, order):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons, 30)
    edit = solve_edit(encoder(demo.clip), recipe(["halftone"]))
    apply = partial(apply_edit, edit=edit, mode=mode)
    combined = ablate(apply(demo.model), change) if order == "edit first" else apply(ablate(demo.model, change))
    expected = hooked(apply(demo.model), own, negative, change)
    assert torch.equal(sample(combined, own, negative), expected)
    assert not torch.equal(expected, sample(ablate(demo.model, change), own, negative))


def test_float8_weights_are_ablated(fp8, encode, ablate, neurons):
    own, negative, change = encode(OWN), encode(NEGATIVE), top(neurons)
    assert torch.equal(sample(ablate(fp8, change), own, negative), hooked(fp8, own, negative, change))


def test_a_value_outside_the_replaced_neurons_never_changes():
    own = torch.randn(2, 77, 8)
    change = Replacement(torch.tensor([1, 5]), 0.0, torch.tensor([3.0, -3.0]))
    new = change(own)
    assert torch.equal(new[..., [0, 2, 3, 4, 6, 7]], own[..., [0, 2, 3, 4, 6, 7]])
    assert torch.equal(new[..., [1, 5]], torch.tensor([3.0, -3.0]).expand(2, 77, 2))
