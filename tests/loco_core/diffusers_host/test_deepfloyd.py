"""DeepFloyd IF on small models of its own classes, built as IF-I's first stage is, with random weights."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers

from loco_core.diffusers_host.deepfloyd import DeepFloydEngine
from loco_core.models.engine import Chunk, Intervention, Row, Sampling
from loco_core.models.layers import LayerSet
from narrow_pipelines import t5_encoder, word_tokenizer

SAMPLING = Sampling(3, 4.0, "ddim", "leading", 64, 64)
ALL = LayerSet(tuple(range(22)), 22)
STAR, FISH = "a red star in the style of van gogh", "a blue fish"


@pytest.fixture(scope="module")
def engine() -> DeepFloydEngine:
    torch.manual_seed(0)
    text = t5_encoder(24)
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        in_channels=3,
        out_channels=6,
        layers_per_block=3,
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("ResnetDownsampleBlock2D", *("SimpleCrossAttnDownBlock2D",) * 3),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=(*("SimpleCrossAttnUpBlock2D",) * 3, "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=24,
        attention_head_dim=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    noise = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True, sample_max_value=1.5
    )
    return DeepFloydEngine(
        diffusers.IFPipeline(word_tokenizer(), text, unet, noise, None, None, None, requires_safety_checker=False)
    )


def test_it_has_22_layers_in_forward_order(engine):
    blocks = [layer.block for layer in engine.layers]
    assert blocks == ["input"] * 9 + ["middle"] + ["output"] * 12
    assert [layer.index for layer in engine.layers] == list(range(22))


def test_the_last_subject_token_precedes_the_end(engine):
    (star,) = engine.encode([STAR])
    assert star.tokens.shape == (77, 24)
    assert star.chunks == (Chunk(0, 0, len(STAR.split()), 77),)  # T5 has no start token


def test_capitals_are_read_as_the_pipeline_reads_them(engine):
    small, capital = engine.encode([STAR, "A Red Star in the style of Van Gogh"])
    assert torch.equal(small.tokens, capital.tokens)
    assert small.chunks == capital.chunks


def test_an_edit_of_nothing_is_refused(engine):
    star, empty = engine.encode([STAR, ""])
    with pytest.raises(ValueError, match="concept and target: empty"), engine.edited_subjects([star], [empty], ALL):
        pass


@pytest.mark.parametrize("layer", [0, 8, 9, 10, 21])
def test_an_intervention_at_one_layer_changes_what_that_layer_reads_and_no_other(engine, layer):
    """Every attention's text is recorded in one call of the U-Net, with the intervention and without it."""
    star, fish, negative = engine.encode([STAR, FISH, ""])
    read: list[list[torch.Tensor]] = []

    def record(row: Row) -> None:
        read.append([])
        hooks = [
            module.add_k_proj.register_forward_hook(lambda _, x, out: read[-1].append(x[0]))
            for module in map(engine._denoiser.get_submodule, engine.layers.modules)
        ]
        x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        engine.denoiser_output(x, torch.tensor(500), [row], negative, SAMPLING)
        for hook in hooks:
            hook.remove()

    record(Row(star, 0))
    record(Row(star, 0, Intervention(LayerSet((layer,), 22), fish)))
    for index, (before, after) in enumerate(zip(*read, strict=True)):
        if index != layer:
            assert torch.equal(before, after)
            continue
        torch.testing.assert_close(after[0], engine.layer_input(layer, fish).float(), rtol=0, atol=1e-5)
        assert torch.equal(before[1], after[1])  # the negative row
        assert (before[0] - after[0]).abs().max() > 0.1


def test_an_intervention_at_all_layers_leaves_only_the_pooled_text_of_the_prompt(engine):
    """IF adds a pooled text embedding to the timestep: it stays the original prompt's, as for SDXL."""
    star, fish = engine.encode([STAR, FISH])
    everywhere = Intervention(ALL, fish)
    rows = [Row(star, 0), Row(star, 0, everywhere), Row(fish, 0)]
    own, changed, other = engine.generate(rows, SAMPLING)
    assert own.shape == (64, 64, 3)
    assert min((changed - own).abs().max(), (changed - other).abs().max()) > 1e-4


def test_an_edit_over_all_subject_tokens_makes_the_layers_read_the_concept_as_the_target(engine):
    concepts, targets = engine.encode([STAR]), engine.encode([FISH])
    before, neighbour = engine.key_value_weights(12), engine.key_value_weights(13)
    own, other = (engine.layer_input(12, embeddings[0]).float() for embeddings in (concepts, targets))
    with engine.edited_subjects(concepts, targets, LayerSet((12,), 22)):
        for old, new in zip(before, engine.key_value_weights(12), strict=True):
            count = targets[0].chunks[0].end_of_text
            wanted = other[:count] @ old.T
            distance = torch.linalg.norm(own[:count] @ new.T - wanted) / torch.linalg.norm(own[:count] @ old.T - wanted)
            assert distance < 0.1  # the ridge keeps it from being zero
        assert all(torch.equal(*pair) for pair in zip(neighbour, engine.key_value_weights(13), strict=True))
    assert all(torch.equal(*pair) for pair in zip(before, engine.key_value_weights(12), strict=True))
