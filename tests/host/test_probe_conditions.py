"""The probe under what people wire before it: whatever the model, all layers make the whole difference between two
prompts, and no layer makes none of it.

What comes with a sampler's conditioning (ControlNet, regions, a guider's further prompts) does not reach the probe,
which makes conditionings of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.supported_models
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras import nodes_freelunch, nodes_pag, nodes_perpneg, nodes_sag
from comfy_extras.nodes_cfg import CFGZeroStar
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG

from host.narrow_unets import SDXL, unet
from host.transformers.narrow import patcher
from loco_core.localization.localize import localize
from loco_core.localization.plan import ProbePlan
from loco_core.localization.probe import Prober
from loco_core.models.engine import Chunk, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet
from loco_core.prompts import PromptPair

pytestmark = pytest.mark.slow

STYLED, PLAIN = "a picture of a red star in the style of woodcut", "a picture of a red star"
# Float32 sums in batches of another size; weights kept in fewer bits add up no less exactly.
ROUNDING = 1e-4


def prober(engine, guidance: float = 2.0, size: int = 128) -> Prober:
    sampling = Sampling(4, guidance, "euler", "normal", size, size, "a green tree")
    return Prober(engine, ProbePlan((PromptPair(STYLED, PLAIN),), (0, 1), sampling, levels=2), rows_per_batch=8)


@torch.no_grad()
def check_endpoints(engine, **asked) -> None:
    nothing = LayerSet((), len(engine.layers))
    probe = prober(engine, **asked).measure([engine.layers.all, nothing])
    assert abs(probe.along[engine.layers.all] / probe.whole - 1).max() <= ROUNDING
    assert abs(probe.along[nothing] / probe.whole).max() <= ROUNDING


@pytest.fixture(scope="module")
def edit(execute, demo):
    asked = {"layers": LayerSet((8, 9), 16), "concept": "halftone", "preserve": ""}
    return execute("LoCo_EditSolve", clip=demo.clip, **asked)[0]


@pytest.fixture(scope="module")
def changes(host, execute, demo, inject_in, apply_edit, edit) -> dict[str, Callable[[ModelPatcher], ModelPatcher]]:
    """By name, what a graph does to a model before the probe gets it."""
    other = host.nodes.CLIPTextEncode().encode(demo.clip, "a blue fish")[0]

    def lora(model: ModelPatcher) -> ModelPatcher:
        changed, generator = model.clone(), torch.Generator().manual_seed(0)
        key = "diffusion_model.output_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
        assert changed.add_patches({key: ("diff", (torch.randn(128, 128, generator=generator) / 10,))})
        return changed

    def blended(model: ModelPatcher) -> ModelPatcher:
        """As regional prompts on the model: another pack's patch mixes another prompt into all layers."""
        changed, tokens = model.clone(), other[0][0]

        def mix(n, context, value, extra_options):
            mixed = context + 0.3 * tokens.to(context)
            return n, mixed, mixed

        changed.set_model_attn2_patch(mix)
        return changed

    def ablated(model: ModelPatcher) -> ModelPatcher:
        asked = {"concept": "woodcut", "without": "a picture of a fish\na picture of a star\nhalftone"}
        given = {"model": model, "clip": demo.clip, "layers": LayerSet((8, 9), 16)}
        neurons, *_ = execute("LoCo_NeuronDetect", **given, **asked)
        return execute("LoCo_NeuronAblate", model=model, neurons=neurons, count=64)[0]

    return {
        "nothing": lambda model: model,
        "a LoRA": lora,
        "an edit of weights": lambda model: apply_edit(model, edit),
        "an edit of the context": lambda model: apply_edit(model, edit, mode="context", start=0.1),
        "an injection": lambda model: inject_in(model, other, (3,), part="values", strength=0.5),
        "an ablation": ablated,
        "another pack's patch": blended,
        "v-prediction": lambda model: ModelSamplingDiscrete().patch(model, "v_prediction", False)[0],
        "FreeU": lambda model: nodes_freelunch.FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2).result[0],
        "self-attention guidance": lambda model: nodes_sag.SelfAttentionGuidance.execute(model, 0.5, 2.0).result[0],
        "perturbed-attention guidance": lambda model: nodes_pag.PerturbedAttentionGuidance.execute(model, 3.0).result[
            0
        ],
        "Perp-Neg": lambda model: nodes_perpneg.PerpNeg.execute(model, other, 1.0).result[0],
        "rescaled guidance": lambda model: RescaleCFG().patch(model, 0.7)[0],
        "CFG-Zero": lambda model: CFGZeroStar.execute(model).result[0],
    }


CHANGES = [
    "nothing",
    "a LoRA",
    "an edit of weights",
    "an edit of the context",
    "an injection",
    "an ablation",
    "another pack's patch",
    "v-prediction",
    "FreeU",
    "self-attention guidance",
    "perturbed-attention guidance",
    "Perp-Neg",
    "rescaled guidance",
    "CFG-Zero",
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_ends_hold_with_what_other_nodes_have_done_to_the_model(engine_of, demo, changes, change):
    check_endpoints(engine_of(changes[change](demo.model), demo.clip))


def test_the_table_has_every_change(changes):
    assert list(changes) == CHANGES


def test_the_ends_hold_without_guidance(engine_of, demo):
    check_endpoints(engine_of(demo.model, demo.clip), guidance=1.0)


def test_the_ends_hold_where_memory_is_short_and_the_host_evaluates_prompts_apart(engine_of, demo, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        type(demo.model.model), "memory_required", lambda self, shape, **_: sizes.append(shape[0]) or float("inf")
    )
    check_endpoints(engine_of(demo.model, demo.clip))
    assert sizes


@pytest.mark.parametrize("kept_in", ["fp8", "packed"])
def test_the_ends_hold_with_quantised_weights_and_the_style_is_where_it_was(request, engine_of, demo, kept_in):
    engine = engine_of(request.getfixturevalue(kept_in), demo.clip)
    check_endpoints(engine)
    with torch.no_grad():
        assert localize(prober(engine), engine.layers).layers.indices == (8, 9)


# --- other shapes of the U-Net ----------------------------------------------------------------------------------------

REFINER = {
    "num_classes": "sequential",
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": (1, 2, 4, 4),
    "transformer_depth_middle": 4,
    "transformer_depth_output": [0, 0, 0, 4, 4, 4, 4, 4, 4, 0, 0, 0],
}


@pytest.fixture(scope="module")
def inpainting(demo) -> ModelPatcher:
    """The demo model made to get a mask and a masked image too: 9 channels go in."""
    config = type(demo.model.model.model_config)
    model = patcher(config({**demo.model.model.model_config.unet_config, "in_channels": 9}))
    weights = dict(demo.model.model.diffusion_model.state_dict())
    first, generator = "input_blocks.0.0.weight", torch.Generator().manual_seed(0)
    own = weights[first].float()
    masked = torch.randn(own.shape[0], 5, *own.shape[2:], generator=generator) * own.std()
    weights[first] = torch.cat([own, masked], 1)
    model.model.eval().diffusion_model.load_state_dict(weights)
    return model


def test_the_ends_hold_in_an_inpainting_model_which_then_gets_an_empty_image(engine_of, demo, inpainting):
    assert inpainting.model.concat_keys == ("mask", "masked_image")
    check_endpoints(engine_of(inpainting, demo.clip))


@pytest.fixture(scope="module")
def random_engine(engine_of):
    """random_engine(family, shape) -> an engine on a narrow model of random weights that encodes at random."""

    def build(family: type, shape: dict):
        model, width = unet(family, shape), family.unet_config["context_dim"]

        def encode(prompts):
            def drawn(prompt: str, *shape: int) -> torch.Tensor:
                return torch.randn(shape, generator=torch.Generator().manual_seed(len(prompt)))

            return [
                TextEmbedding(prompt, drawn(prompt, 77, width), (Chunk(0, 1, 9, 77),), drawn(prompt, 1280))
                for prompt in prompts
            ]

        engine = engine_of(model)
        engine.encode = encode
        return engine

    return build


@pytest.mark.parametrize(
    ("family", "shape", "layer_count"),
    [(comfy.supported_models.SDXL, SDXL, 70), (comfy.supported_models.SDXLRefiner, REFINER, 44)],
    ids=["SDXL", "SDXL's refiner"],
)
def test_the_ends_hold_in_models_with_a_pooled_embedding(random_engine, family, shape, layer_count):
    engine = random_engine(family, shape)
    assert len(engine.layers) == layer_count
    check_endpoints(engine, size=64)
