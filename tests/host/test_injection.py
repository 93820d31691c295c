"""Per-layer injection in the graphs people build. The reference is the stock host with another prompt in its place:
what reads the injected prompt at every layer must be what was given that prompt in the first place.
"""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.ops
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler, nodes_perpneg, nodes_sag

import nodes
from loco_core.models.layers import LayerSet

OWN, OTHER, NEGATIVE, MIDDLE = "a red star", "a blue fish in the style of woodcut", "a green tree", "a purple cup"
LONG = " ".join(["a yellow boat"] * 40)
ALL = tuple(range(16))
STEPS = 4


@pytest.fixture(scope="module")
def encode(demo):
    return lambda prompt: nodes.CLIPTextEncode().encode(demo.clip, prompt)[0]


@pytest.fixture(scope="module")
def inject(inject_in):
    """inject(model, conditioning, layers, ...) with the node's defaults, at all layers."""
    return lambda model, conditioning, layers=ALL, **asked: inject_in(model, conditioning, layers, **asked)


def noise(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def sample(
    model,
    positive,
    negative,
    cfg: float = 2.0,
    start_noise: torch.Tensor | None = None,
    sampler: str = "euler",
    latent: torch.Tensor | None = None,
    **options,
) -> torch.Tensor:
    """Latents [B, 4, 16, 16] from the host's own CFG guider."""
    start_noise = noise() if start_noise is None else start_noise
    latent = torch.zeros_like(start_noise) if latent is None else latent
    return comfy.sample.sample(
        model,
        start_noise,
        STEPS,
        cfg,
        sampler,
        "normal",
        positive,
        negative,
        latent,
        disable_pbar=True,
        seed=7,
        **options,
    )


def close(one: torch.Tensor, other: torch.Tensor, relative: float = 1e-5) -> None:
    """Equal up to the rounding of float32 sums in another order, relative to the latents."""
    assert (one - other).abs().max().item() <= relative * other.abs().max().item()


# --- neutral settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "strength", "said"),
    [
        ((8, 9), 1.0, "layers 8-9 get this prompt; the other 14 that of the sampler"),
        ((8,), 0.5, "layer 8 gets this prompt, at strength 0.5; the other 15 that of the sampler"),
        ((), 1.0, "no layer is chosen: all get the prompt of the sampler"),
        ((8, 9), 0.0, "strength 0: all layers get the prompt of the sampler"),
    ],
)
def test_the_node_says_which_layers_get_which_prompt(execute, demo, encode, layers, strength, said):
    given = {"model": demo.model, "conditioning": encode(OTHER), "layers": LayerSet(layers, 16), "strength": strength}
    assert execute("LoCo_ConditioningInjector", **given)[1] == said


def test_injecting_the_same_prompt_changes_nothing_at_all(demo, encode, inject):
    own, negative = encode(OWN), encode(NEGATIVE)
    plain = sample(demo.model, own, negative)
    assert (sample(inject(demo.model, own), own, negative) - plain).abs().max() == 0


@pytest.mark.parametrize("change", [{"strength": 0.0}, {"layers": ()}, {"start": 0.0, "end": 0.0}])
def test_with_nothing_to_do_the_model_is_untouched(demo, encode, inject, change):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    difference = sample(inject(demo.model, other, **change), own, negative) - sample(demo.model, own, negative)
    assert difference.abs().max() == 0


def test_the_model_it_was_made_from_stays_as_it_was(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    before = sample(demo.model, own, negative)
    injected = inject(demo.model, other)
    first = sample(injected, own, negative)
    assert (first - before).abs().max() > 0.1
    assert (sample(demo.model, own, negative) - before).abs().max() == 0
    assert (sample(injected, own, negative) - first).abs().max() == 0


# --- guiders, branches and batches ------------------------------------------------------------------------------------


def guide(kind: str, model, positive, middle, negative) -> torch.Tensor:
    """Latents from one of the host's guiders, run by its own nodes."""
    if kind == "cfg":
        guider = nodes_custom_sampler.CFGGuider.execute(model, positive, negative, 2.0).result[0]
    elif kind == "cfg 1":
        guider = nodes_custom_sampler.CFGGuider.execute(model, positive, negative, 1.0).result[0]
    elif kind == "basic":
        guider = nodes_custom_sampler.BasicGuider.execute(model, positive).result[0]
    elif kind in ("dual", "nested dual"):
        style = "nested" if kind == "nested dual" else "regular"
        guider = nodes_custom_sampler.DualCFGGuider.execute(model, positive, middle, negative, 2.0, 1.5, style).result[
            0
        ]
    elif kind == "perp-neg":
        guider = nodes_perpneg.PerpNegGuider.execute(model, positive, negative, middle, 2.0, 1.0).result[0]
    else:
        model = nodes_sag.SelfAttentionGuidance.execute(model, 0.5, 2.0).result[0]
        guider = nodes_custom_sampler.CFGGuider.execute(model, positive, negative, 2.0).result[0]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    with torch.no_grad():
        return guider.sample(noise(), torch.zeros(2, 4, 16, 16), comfy.samplers.sampler_object("euler"), sigmas, seed=7)


# Without the one that has no meaning: Perp-Neg divides by what tells its prompts apart, and there they are one.
GUIDED = [
    (kind, branch)
    for kind in ("cfg", "cfg 1", "basic", "dual", "nested dual", "perp-neg", "self-attention")
    for branch in ("positive", "negative", "both")
    if (kind, branch) != ("perp-neg", "both")
]


@pytest.mark.parametrize(("kind", "branch"), GUIDED)
def test_injecting_at_all_layers_is_the_other_prompt_under_every_guider(demo, encode, inject, kind, branch):
    own = {"positive": encode(OWN), "middle": encode(MIDDLE), "negative": encode(NEGATIVE)}
    other = encode(OTHER)
    meant = {
        name: other if branch in ("both", "positive" if name == "positive" else "negative") else own[name]
        for name in own
    }
    close(guide(kind, inject(demo.model, other, branch=branch), **own), guide(kind, demo.model, **meant))


@pytest.mark.parametrize("branch", ["positive", "negative", "both"])
def test_chunks_that_the_host_evaluates_apart_give_the_joined_result(demo, encode, inject, monkeypatch, branch):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    model = inject(demo.model, other, layers=(3, 6, 8), branch=branch)
    joined = sample(model, own, negative)
    calls = []
    monkeypatch.setattr(type(demo.model.model), "memory_required", lambda *_, **__: calls.append(1) or float("inf"))
    close(sample(model, own, negative), joined)
    assert calls


def test_each_image_of_a_batch_is_the_image_made_alone(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    model = inject(demo.model, other, layers=(6, 8, 9))
    start = noise(3)
    together = sample(model, own, negative, start_noise=start)
    for row in range(3):
        close(together[row : row + 1], sample(model, own, negative, start_noise=start[row : row + 1]))


def test_a_conditioning_with_a_batch_is_read_row_by_row(demo, encode, inject):
    own, negative = encode(OWN), encode(NEGATIVE)
    others = [encode(prompt) for prompt in (OTHER, MIDDLE)]
    both = [[torch.cat([other[0][0] for other in others]), {}]]
    together = sample(inject(demo.model, both, layers=(8, 9)), own, negative)
    for row, other in enumerate(others):
        alone = sample(inject(demo.model, other, layers=(8, 9)), own, negative, start_noise=noise()[row : row + 1])
        close(together[row : row + 1], alone)


@pytest.mark.parametrize(("own", "other"), [(OWN, LONG), (LONG, OTHER)])
def test_prompts_of_different_token_counts_are_read_whole(demo, encode, inject, own, other):
    negative = encode(NEGATIVE)
    close(sample(inject(demo.model, encode(other)), encode(own), negative), sample(demo.model, encode(other), negative))


# --- what is read, where and when -------------------------------------------------------------------------------------


def test_keys_and_values_apart_add_up_to_both(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    apart = inject(inject(demo.model, other, layers=(6, 8), part="keys"), other, layers=(6, 8), part="values")
    both = inject(demo.model, other, layers=(6, 8))
    assert (sample(apart, own, negative) - sample(both, own, negative)).abs().max() == 0
    for part in ("keys", "values"):
        alone = sample(inject(demo.model, other, layers=(6, 8), part=part), own, negative)
        assert (alone - sample(both, own, negative)).abs().max() > 1e-3


def test_injectors_in_a_row_add_up_each_on_its_own_layers(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    row = inject(inject(inject(demo.model, other, layers=(0, 6)), other, layers=(8,)), other, layers=(9, 15))
    once = inject(demo.model, other, layers=(0, 6, 8, 9, 15))
    assert (sample(row, own, negative) - sample(once, own, negative)).abs().max() == 0


def test_half_strength_is_the_average_of_both_prompts(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    average = nodes.ConditioningAverage().addWeighted(other, own, 0.5)[0]
    half = sample(inject(demo.model, other, strength=0.5), own, negative)
    close(half, sample(demo.model, average, negative), relative=1e-4)  # the average itself is rounded otherwise


def test_it_acts_between_start_and_end_percent_only(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    late = sample(inject(demo.model, other, start=0.5), own, negative)
    early = sample(inject(demo.model, other, end=0.5), own, negative)
    sampling = demo.model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", STEPS)
    turn = int((sigmas > sampling.percent_to_sigma(0.5)).sum())
    for result, first, second in ((late, own, other), (early, other, own)):
        halfway = sample(demo.model, first, negative, last_step=turn, force_full_denoise=False)
        rest = {"start_step": turn, "disable_noise": True, "start_noise": torch.zeros(2, 4, 16, 16)}
        close(result, sample(demo.model, second, negative, latent=halfway, **rest))


# --- the rest of the graph --------------------------------------------------------------------------------------------


def test_regional_prompts_keep_their_regions(demo, encode, inject):
    negative = encode(NEGATIVE)
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 64:] = 1

    def regional(first, second):
        left = nodes.ConditioningSetArea().append(first, 64, 128, 0, 0, 1.0)[0]
        right = nodes.ConditioningSetMask().append(second, mask, "default", 1.0)[0]
        return nodes.ConditioningCombine().combine(left, right)[0]

    own, other = regional(encode(OWN), encode(MIDDLE)), regional(encode(OTHER), encode(OTHER))
    close(sample(inject(demo.model, encode(OTHER)), own, negative), sample(demo.model, other, negative))


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "uni_pc"])
def test_samplers_of_every_kind(demo, encode, inject, sampler):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    close(
        sample(inject(demo.model, other), own, negative, sampler=sampler),
        sample(demo.model, other, negative, sampler=sampler),
    )


def test_image_to_image_with_partial_denoising(demo, encode, inject):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    options = {"latent": noise(seed=5), "denoise": 0.5}
    close(sample(inject(demo.model, other), own, negative, **options), sample(demo.model, other, negative, **options))


@pytest.fixture(scope="module")
def lora(demo):
    """lora(model) -> a clone with a change of layer 8's keys and of a convolution."""
    generator = torch.Generator().manual_seed(0)
    keys = {
        "diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (128, 128),
        "diffusion_model.input_blocks.0.0.weight": (32, 4, 3, 3),
    }
    changes = {key: ("diff", (torch.randn(shape, generator=generator) / 10,)) for key, shape in keys.items()}

    def run(model):
        changed = model.clone()
        assert set(changed.add_patches(changes)) == set(changes)
        return changed

    return run


def test_a_lora_works_before_and_after_it(demo, encode, inject, lora):
    own, other, negative = encode(OWN), encode(OTHER), encode(NEGATIVE)
    expected = sample(lora(demo.model), other, negative)
    assert (expected - sample(demo.model, other, negative)).abs().max() > 0.1
    close(sample(inject(lora(demo.model), other), own, negative), expected)
    close(sample(lora(inject(demo.model, other)), own, negative), expected)


@pytest.fixture(scope="module")
def controlled(demo):
    """controlled(positive, negative) -> the two with a ControlNet of random weights on them."""
    config = demo.model.model.model_config.unet_config
    config = {
        key: value for key, value in config.items() if not key.startswith(("out_", "disable_", "transformer_depth_o"))
    }
    torch.manual_seed(0)
    settings = {"hint_channels": 3, "dtype": torch.float32, "operations": comfy.ops.disable_weight_init}
    network = comfy.cldm.cldm.ControlNet(**config | settings).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    control = comfy.controlnet.ControlNet(network, load_device=torch.device("cpu"))
    hint = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))

    def run(positive, negative):
        return nodes.ControlNetApplyAdvanced().apply_controlnet(positive, negative, control, hint, 1.0, 0.0, 1.0)

    return run


def test_a_controlnet_reads_its_own_prompt_and_works_beside_it(demo, encode, inject, controlled):
    own, negative = encode(OWN), encode(NEGATIVE)
    positive, negated = controlled(own, negative)
    plain = sample(demo.model, positive, negated)
    assert (plain - sample(demo.model, own, negative)).abs().max() > 0.01
    assert (sample(inject(demo.model, own), positive, negated) - plain).abs().max() == 0
    injected = sample(inject(demo.model, encode(OTHER), layers=(8, 9)), positive, negated)
    assert (injected - plain).abs().max() > 0.01


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_named(demo, encode, inject):
    other = encode(OTHER)
    wide = [[torch.zeros(1, 77, 768), {}]]
    broken = [[other[0][0] * float("nan"), {}]]
    for conditioning, message in (
        (other + other, "conditioning: 2 prompts; connect one CLIP Text Encode"),
        (wide, "conditioning: its embeddings are 768 wide, the model gets 128"),
        (broken, "conditioning: NaN or Inf"),
    ):
        with pytest.raises(ValueError, match=message):
            inject(demo.model, conditioning)
    with pytest.raises(ValueError, match="start percent: 0.6, end percent: 0.4"):
        inject(demo.model, other, start=0.6, end=0.4)
    with pytest.raises(ValueError, match="70 layers; this model has 16"):
        inject(demo.model, other, LayerSet((45,), 70))
