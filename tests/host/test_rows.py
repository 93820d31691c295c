"""Rows of a denoiser call that other nodes tile, repeat, reorder or split: which are the positive prompt's is known, or
the node refuses. The reference is the same node on a model that was given the other prompt in the first place.
"""

from __future__ import annotations

import comfy.sample
import pytest
import torch

import nodes
from loco_core.models.layers import LayerSet

OWN, OTHER, NEGATIVE = "a red star", "a blue fish in the style of woodcut", "a green tree"
ALL = tuple(range(16))
# The largest difference from the reference, of its largest number: float32 sums in another order.
ROUNDING = 1e-4
# A difference that means something.
EFFECT = 0.1


@pytest.fixture(scope="module")
def encode(demo):
    return lambda prompt: nodes.CLIPTextEncode().encode(demo.clip, prompt)[0]


@pytest.fixture(scope="module")
def ablated(execute, demo):
    """ablated(branch) -> the demo model without its woodcut neurons in that branch."""
    asked = {"concept": "woodcut", "without": "a picture of a fish\na picture of a star\nhalftone"}
    layers = LayerSet((8, 9), 16)
    neurons = execute("LoCo_NeuronDetect", model=demo.model, clip=demo.clip, layers=layers, **asked)[0]
    return lambda branch: execute("LoCo_NeuronAblate", model=demo.model, neurons=neurons, count=64, branch=branch)[0]


@torch.no_grad()
def sample(model, positive: list, negative: list, batch: int = 1) -> torch.Tensor:
    noise = torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    arguments = (3, 2.0, "euler", "normal", positive, negative, torch.zeros_like(noise))
    return comfy.sample.sample(model, noise, *arguments, disable_pbar=True, seed=7)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


# --- nodes that wrap the model's call ---------------------------------------------------------------------------------


def of_rows(change):
    """The same change of all tensors of a call that have its rows."""

    def all_of(arguments: dict) -> tuple[torch.Tensor, torch.Tensor, dict]:
        count = len(arguments["input"])
        own = {
            key: change(value) if isinstance(value, torch.Tensor) and len(value) == count else value
            for key, value in arguments["c"].items()
        }
        return change(arguments["input"]), change(arguments["timestep"]), own

    return all_of


def two_tiles_in_one_call(call, arguments):
    """As Tiled Diffusion's tiles: all rows of the first, then all of the second."""
    x, t, own = of_rows(lambda rows: torch.cat([rows, rows]))(arguments)
    return call(x, t, **own).chunk(2)[0]


def each_row_twice(call, arguments):
    x, t, own = of_rows(lambda rows: rows.repeat_interleave(2, 0))(arguments)
    return call(x, t, **own)[::2]


def rows_in_reverse(call, arguments):
    x, t, own = of_rows(lambda rows: rows.flip(0))(arguments)
    return call(x, t, **own).flip(0)


def each_row_by_itself(call, arguments):
    made = []
    for row in range(len(arguments["input"])):
        x, t, own = of_rows(lambda rows, row=row: rows[row : row + 1])(arguments)
        made.append(call(x, t, **own))
    return torch.cat(made)


OTHERS = (each_row_twice, rows_in_reverse, each_row_by_itself)
WRAPPERS = (two_tiles_in_one_call, *(pytest.param(wrapper, marks=pytest.mark.slow) for wrapper in OTHERS))


def wrapped(model, wrapper):
    clone = model.clone()
    clone.set_model_unet_function_wrapper(wrapper)
    return clone


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("branch", "prompts"), [("positive", (OTHER, NEGATIVE)), ("negative", (OWN, OTHER))])
def test_an_injection_follows_its_branch_through_a_wrapper_of_the_model(
    demo, encode, inject_in, wrapper, branch, prompts
):
    injected = wrapped(inject_in(demo.model, encode(OTHER), ALL, branch=branch), wrapper)
    expected = sample(wrapped(demo.model, wrapper), *map(encode, prompts), batch=2)
    assert difference(sample(injected, encode(OWN), encode(NEGATIVE), batch=2), expected) <= ROUNDING


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_each_image_of_a_batch_gets_the_prompt_of_its_own_through_a_wrapper(demo, encode, inject_in, wrapper):
    both = [[torch.cat([encode(prompt)[0][0] for prompt in (OTHER, OWN)]), {}]]
    injected = wrapped(inject_in(demo.model, both, ALL), wrapper)
    expected = sample(wrapped(demo.model, wrapper), both, encode(NEGATIVE), batch=2)
    assert difference(sample(injected, encode(NEGATIVE), encode(NEGATIVE), batch=2), expected) <= ROUNDING


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("branch", ["positive", "negative"])
def test_an_ablation_follows_its_branch_through_a_wrapper_of_the_model(demo, encode, ablated, wrapper, branch):
    prompts = encode(OTHER), encode(OTHER)
    model, unablated = ablated(branch), sample(demo.model, *prompts)
    expected = sample(model, *prompts)
    assert difference(expected, unablated) >= EFFECT
    assert difference(sample(wrapped(model, wrapper), *prompts), expected) <= ROUNDING


def only_what_it_knows(call, arguments):
    """Leaves out everything of a call that it does not know."""
    own = {key: arguments["c"][key] for key in ("c_crossattn", "transformer_options")}
    return call(arguments["input"], arguments["timestep"], **own)


def test_a_wrapper_that_loses_the_rows_is_refused_for_one_branch_and_taken_for_both(demo, encode, inject_in, ablated):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    for model in (inject_in(demo.model, other, ALL), ablated("positive")):
        with pytest.raises(
            ValueError, match="model: another node .*; choose branch 'both' and one prompt, or sample without"
        ):
            sample(wrapped(model, only_what_it_knows), own, negative)
    both = wrapped(inject_in(demo.model, other, ALL, branch="both"), only_what_it_knows)
    assert difference(sample(both, own, negative), sample(demo.model, other, other)) <= ROUNDING


# --- nodes that patch attention ---------------------------------------------------------------------------------------


def patched(model, patch):
    clone = model.clone()
    clone.set_model_attn2_patch(patch)
    return clone


def rows_for_two_regions(n, context, value, options):
    """As attention couple: the rows are repeated, one for each region."""
    return tuple(rows.repeat_interleave(2, 0) for rows in (n, context, value))


def back_to_one(n, options):
    return n[::2]


def coupled(model):
    clone = patched(model, rows_for_two_regions)
    clone.set_model_attn2_output_patch(back_to_one)
    return clone


@pytest.mark.parametrize("before", [True, False], ids=["injector first", "couple first"])
@pytest.mark.parametrize(("branch", "prompts"), [("positive", (OTHER, NEGATIVE)), ("negative", (OWN, OTHER))])
def test_an_injection_acts_before_a_patch_that_repeats_rows(demo, encode, inject_in, before, branch, prompts):
    def inject(model):
        return inject_in(model, encode(OTHER), ALL, branch=branch)

    model = coupled(inject(demo.model)) if before else inject(coupled(demo.model))
    expected = sample(coupled(demo.model), *map(encode, prompts))
    assert difference(sample(model, encode(OWN), encode(NEGATIVE)), expected) <= ROUNDING


def test_an_ablation_of_one_branch_behind_a_patch_that_repeats_rows_is_refused_and_of_both_is_not(
    demo, encode, ablated
):
    prompts = encode(OTHER), encode(NEGATIVE)
    with pytest.raises(
        ValueError, match="attention patch makes 4 rows of 2, .*; choose branch 'both' and one prompt, or sample"
    ):
        sample(coupled(ablated("positive")), *prompts)
    expected = sample(ablated("both"), *prompts)
    assert difference(sample(coupled(ablated("both")), *prompts), expected) <= ROUNDING


def keys_and_values_apart(n, context, value, options):
    """As NegPip: even tokens are for keys, odd ones for values."""
    return n, context[:, 0::2], value[:, 1::2]


@pytest.mark.parametrize("before", [True, False], ids=["injector first", "patch first"])
def test_an_injection_acts_before_a_patch_that_tells_keys_and_values_apart(demo, encode, inject_in, before):
    def doubled(prompt: str, sign: int) -> list:
        ((tokens, rest),) = encode(prompt)
        values = tokens.clone()
        values[:, 5:] *= sign
        return [[torch.stack([tokens, values], 2).flatten(1, 2), rest]]

    own, other, negative = doubled(OWN, 1), doubled(OTHER, -1), doubled("", 1)
    apart = patched(demo.model, keys_and_values_apart)
    model = (
        patched(inject_in(demo.model, other, ALL), keys_and_values_apart) if before else inject_in(apart, other, ALL)
    )
    assert difference(sample(model, own, negative), sample(apart, other, negative)) <= ROUNDING


BLOCKS = [("input", number) for number in (1, 2, 4, 5, 7, 8)] + [("middle", 0)]
BLOCKS += [("output", number) for number in range(3, 12)]


def one_more_dimension(n, context, value, options):
    """As patches that keep several contexts for a row; here there is one."""
    return n, context[:, None], value[:, None]


def attend_over_the_last_two(n, context, value, options):
    heads = options["n_heads"]
    q, k, v = (x.flatten(1, -2).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (n, context, value))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def test_injection_edit_and_ablation_take_a_context_with_one_more_dimension(
    demo, encode, inject_in, apply_edit, ablated, execute
):
    other, negative = encode(OTHER), encode(NEGATIVE)
    edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=LayerSet((8, 9), 16), concept="woodcut", preserve="")

    def with_it(model):
        clone = patched(model, one_more_dimension)
        for block, number in BLOCKS:
            clone.set_model_attn2_replace(attend_over_the_last_two, block, number)
        return clone

    for changed in (
        inject_in(demo.model, other, (8, 9)),
        apply_edit(demo.model, edit, mode="context"),
        ablated("both"),
        ablated("positive"),
    ):
        expected = sample(changed, other, negative)
        assert difference(sample(with_it(changed), other, negative), expected) <= ROUNDING
