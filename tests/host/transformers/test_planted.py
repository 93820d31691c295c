"""The demo transformer: what its training takes for the knowledge of its blocks is what the host's blocks read."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from demo.dit import TOKENS
from demo.training import transformer
from host.transformers.narrow import randomized
from loco_core.models.engine import Chunk, Intervention, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet


@pytest.fixture(scope="module")
def untrained(pack) -> ModelPatcher:
    """The host's model of random weights under the names of the file."""
    network = randomized(transformer.transformer())
    weights = {f"model.diffusion_model.{name}": value for name, value in network.state_dict().items()}
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": torch.float32})


def prompt(generator: torch.Generator) -> TextEmbedding:
    tokens = torch.randn(77, 128, generator=generator)
    return TextEmbedding("", tokens, (Chunk(0, 0, 76, 77),), tokens[-1])


@pytest.mark.parametrize("window", [(5,), (2, 3, 4), (3, 7, 9), (11,), ()], ids=str)
def test_blocks_that_read_another_stream_in_training_are_blocks_that_get_another_prompt(untrained, engine_of, window):
    engine, generator = engine_of(untrained), torch.Generator().manual_seed(0)
    own, other = prompt(generator), prompt(generator)
    engine._negatives[""] = own
    sampling = Sampling(4, 1.0, "euler", "normal", 128, 128)
    row, level = Row(own, 0, Intervention(LayerSet(window, 12), other)), engine.sigmas(sampling)[1]
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    with torch.inference_mode():
        clean = engine.predict([row], latents, sampling, 1)
        texts = torch.stack([own.tokens, other.tokens])[None, :, :TOKENS]
        read = torch.tensor([[int(block in window) for block in range(12)]])
        network = untrained.model.diffusion_model
        velocity = transformer.predict(network, latents, torch.tensor([level]), texts, read)
    expected = latents - level * velocity
    assert (clean - expected).norm() <= 1e-5 * expected.norm()  # float32


def test_the_file_is_loaded_as_what_it_is(untrained, pack):
    layers = pack("nodes.host.layers").read_layers(untrained)
    assert (len(layers), layers.model_name, layers.width) == (12, "the demo transformer", 128)
    assert layers.family.image_size(layers) == 128
    assert untrained.model.model_sampling.sigma_max == 1.0


def test_training_begins_with_no_weight_left_to_chance(host):
    """The host's own norms of queries and keys are made of memory that nobody has written to."""
    network = transformer.transformer()
    norms = [value for name, value in network.state_dict().items() if ".ln_" in name]
    assert len(norms) == 12 * 4
    assert all(torch.equal(value, torch.ones_like(value)) for value in norms)
