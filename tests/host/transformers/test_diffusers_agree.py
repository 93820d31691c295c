"""The two engines, written against two programs that share no code, give blocks of SD 3 and Flux another prompt alike.

Narrow transformers of diffusers with random weights, which ComfyUI's own classes get by ComfyUI's own conversion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import comfy.model_detection
import comfy.supported_models
import pytest
import torch

pytest.importorskip("diffusers")

from host.full_size.measures import relative
from host.transformers import narrow
from loco_core.diffusers_host.engines import engine_for
from loco_core.models.engine import Chunk, Engine, Intervention, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet
from narrow_pipelines import PIPELINES, SD3

SAMPLING = Sampling(5, 1.0, "euler", "linspace", 128, 96)
# Float32's rounding in sums of another order: up to 6e-6 was seen.
CLOSE = 5e-5
HIDDEN, DEPTH = SD3["caption_projection_dim"], SD3["num_layers"]
# By name: ComfyUI's class, its configuration for the narrow transformer, and how it calls diffusers' noise levels.
HOSTS = {
    "flux": (comfy.supported_models.Flux, {**narrow.FLUX, "mlp_ratio": 4.0}, "simple"),
    "sd3": (
        comfy.supported_models.SD3,
        {
            **narrow.SD3,
            "depth": DEPTH,
            "num_blocks": DEPTH,
            "adm_in_channels": SD3["pooled_projection_dim"],
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": narrow.WIDTH, "out_features": HIDDEN},
            },
        },
        "normal",
    ),
}


@dataclass(frozen=True)
class Pair:
    """Both engines on one transformer, each with how it calls the sampling, and prompts for them."""

    engines: tuple[Engine, Engine]
    samplings: tuple[Sampling, Sampling]
    own: TextEmbedding
    other: TextEmbedding

    def both(self, work) -> list[torch.Tensor]:
        with torch.inference_mode():
            return [work(*each) for each in zip(self.engines, self.samplings, strict=True)]


_made: dict[str, Pair] = {}


@pytest.fixture(params=HOSTS)
def pair(host, engine_of, request) -> Pair:
    if request.param not in _made:
        _made[request.param] = made_pair(engine_of, request.param)
    return _made[request.param]


def made_pair(engine_of, name: str) -> Pair:
    pipeline, (kind, config, scheduler) = PIPELINES[name](), HOSTS[name]
    model = narrow.patcher(kind({**kind.unet_config, **config}))
    weights = {key: weight.clone() for key, weight in pipeline.transformer.state_dict().items()}  # it writes to them
    model.model.diffusion_model.load_state_dict(comfy.model_detection.convert_diffusers_mmdit(weights))
    width, generator = pipeline.transformer.config.pooled_projection_dim, torch.Generator().manual_seed(1)
    own, other, negative = (
        TextEmbedding(
            "",
            torch.randn(20, narrow.WIDTH, generator=generator),
            (Chunk(0, 0, 19, 20),),
            torch.randn(width, generator=generator),
        )
        for _ in range(3)
    )
    engines = engine_of(model), engine_for(pipeline)
    for engine in engines:
        engine._negatives[""] = negative
    return Pair(engines, (replace(SAMPLING, scheduler=scheduler), SAMPLING), own, other)


def test_they_list_the_same_blocks(pair):
    one, other = (engine.layers for engine in pair.engines)
    assert one.layers == other.layers
    assert (one.width, one.family) == (other.width, other.family)


def test_they_pass_the_same_noise_levels(pair):
    one, other = (torch.tensor(levels) for levels in pair.both(lambda engine, sampling: engine.sigmas(sampling)))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_they_pass_the_same_latents(pair, guidance):
    change = Intervention(LayerSet((1, 2), len(pair.engines[0].layers)), pair.other)
    rows = [Row(pair.own, 0), Row(pair.own, 1, change)]
    one, other = pair.both(
        lambda engine, sampling: engine.latents_at(rows, replace(sampling, guidance=guidance), [0, 2, 4])
    )
    assert relative(one - other, other) <= CLOSE


@pytest.mark.parametrize("step", [0, 2, 4])
def test_they_predict_the_same_from_the_same_latents(pair, step):
    """Of one row without an intervention, one for each block, for two neighbours, for all, and for the other prompt."""
    count = len(pair.engines[0].layers)
    windows = [(index,) for index in range(count)] + [(1, 2), tuple(range(count))]
    changes = [Intervention(LayerSet(window, count), pair.other) for window in windows]
    rows = [Row(pair.own, 0), *(Row(pair.own, 0, change) for change in changes), Row(pair.other, 0)]
    latents = torch.randn(1, 16, 12, 16, generator=torch.Generator().manual_seed(2)).expand(len(rows), -1, -1, -1)
    one, other = pair.both(lambda engine, sampling: engine.predict(rows, latents, sampling, step))
    effects = [made[1:] - made[:1] for made in (one, other)]
    differences = [relative(mine - theirs, theirs) for mine, theirs in zip(*effects, strict=True)]
    assert relative(one - other, other) <= CLOSE
    assert max(differences) <= 1e-3  # the same rounding, beside effects of 0.04 % of the prediction and more
