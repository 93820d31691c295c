"""SD 3 and Flux of diffusers, narrow and with random weights: another prompt for some of their blocks."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("diffusers")

from loco_core.diffusers_host.engines import engine_for
from loco_core.diffusers_host.joint import EMBEDDED_GUIDANCE, JointEngine
from loco_core.diffusers_host.pipelines import load_pipeline, own_size
from loco_core.models.engine import Chunk, Intervention, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet, Part
from narrow_pipelines import PIPELINES, flux_pipeline, sd3_pipeline

SAMPLING = Sampling(3, 1.0, "euler", "linspace", 64, 96)
STEP = 1
STAR, FISH = "a red star in the style of van gogh", "a blue fish"
LATENTS = torch.randn(1, 16, 12, 8, generator=torch.Generator().manual_seed(4))
_made: dict[str, JointEngine] = {}


@pytest.fixture(params=PIPELINES)
def family(request) -> str:
    return request.param


@pytest.fixture
def engine(family) -> JointEngine:
    if family not in _made:
        _made[family] = engine_for(PIPELINES[family]())
    return _made[family]


@pytest.fixture
def prompts(engine) -> SimpleNamespace:
    """other: with own's pooled embedding, as a block is given it."""
    own, fish = engine.encode([STAR, FISH])
    return SimpleNamespace(own=own, fish=fish, other=replace(fish, pooled=own.pooled))


def predicted(engine: JointEngine, embedding: TextEmbedding, change: Intervention | None = None) -> torch.Tensor:
    return engine.predict([Row(embedding, 0, change)], LATENTS, SAMPLING, STEP)


def blocks(engine: JointEngine, *indices: int) -> LayerSet:
    return LayerSet(indices, len(engine.layers))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal up to the rounding of float32 in batches of other sizes: 1e-7 to 1e-6 was seen."""
    assert (one - other).norm() <= 1e-5 * other.norm()


# --- two streams ------------------------------------------------------------------------------------------------------


def test_no_block_is_the_own_prompt_and_all_are_the_other(engine, prompts):
    none, whole = (Intervention(chosen, prompts.fish) for chosen in (blocks(engine), engine.layers.all))
    own, other = predicted(engine, prompts.own), predicted(engine, prompts.other)
    close(predicted(engine, prompts.own, none), own)
    close(predicted(engine, prompts.own, whole), other)
    assert (other - own).norm() > 1e-3 * own.norm()


def test_an_intervention_with_the_same_prompt_changes_nothing(engine, prompts):
    same = Intervention(blocks(engine, 1, 2), prompts.own)
    close(predicted(engine, prompts.own, same), predicted(engine, prompts.own))


@torch.no_grad()
def by_hand(engine: JointEngine, own: TextEmbedding, other: TextEmbedding, chosen: set[int]) -> torch.Tensor:
    """The definition, with a model's blocks called one by one: the denoised prediction [1, C, h, w]."""
    model, flux = engine._pipeline.transformer, hasattr(engine._pipeline.transformer, "single_transformer_blocks")
    sigma, pooled = torch.tensor([engine.sigmas(SAMPLING)[STEP]]), own.pooled[None]
    texts = [model.context_embedder(one.tokens[None]) for one in (own, other)]
    count, channels, height, width = LATENTS.shape
    if flux:
        packed = LATENTS.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        image = model.x_embedder(packed.reshape(count, height * width // 4, 4 * channels))
        vector = model.time_text_embed(1000 * sigma, torch.tensor([1000 * EMBEDDED_GUIDANCE]), pooled)
        places = torch.cartesian_prod(torch.zeros(1), torch.arange(height / 2), torch.arange(width / 2))
        positions = model.pos_embed(torch.cat([torch.zeros(len(own.tokens), 3), places]))
        given = {"temb": vector, "image_rotary_emb": positions}
        every = [*model.transformer_blocks, *model.single_transformer_blocks]
    else:
        image, vector = model.pos_embed(LATENTS), model.time_text_embed(1000 * sigma, pooled)
        given, every = {"temb": vector}, model.transformer_blocks
    for index, block in enumerate(every):
        made = [block(hidden_states=image, encoder_hidden_states=text, **given) for text in texts]
        texts, images = zip(*made, strict=True)
        image = images[index in chosen]
    patches = model.proj_out(model.norm_out(image, vector)).reshape(count, height // 2, width // 2, -1)
    shape, order = ((channels, 2, 2), (0, 3, 1, 4, 2, 5)) if flux else ((2, 2, channels), (0, 5, 1, 3, 2, 4))
    velocity = patches.unflatten(3, shape).permute(order).reshape(LATENTS.shape)
    return LATENTS - sigma * velocity


@pytest.mark.parametrize("chosen", [{0}, {2}, {3}, {1, 2}, {0, 3}], ids=str)
def test_chosen_blocks_read_the_other_stream_as_the_definition_written_by_hand(engine, prompts, chosen):
    expected = by_hand(engine, prompts.own, prompts.fish, chosen)
    made = predicted(engine, prompts.own, Intervention(blocks(engine, *chosen), prompts.fish))
    close(made, expected)
    assert (made - predicted(engine, prompts.own)).norm() > 1e-4 * made.norm()


@pytest.mark.slow
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_row_in_a_batch_is_the_run_made_alone(engine, prompts, guidance):
    sampling = replace(SAMPLING, guidance=guidance)
    rows = [
        Row(prompts.own, 0, Intervention(blocks(engine, 1), prompts.fish)),
        Row(prompts.own, 1),
        Row(prompts.fish, 0, Intervention(blocks(engine, 0, 3), prompts.own)),
    ]
    together = engine.latents_at(rows, sampling, [2])
    for number, row in enumerate(rows):
        close(together[[number]], engine.latents_at([row], sampling, [2]))


def test_after_an_intervention_the_model_is_as_it_was(engine, prompts):
    before = predicted(engine, prompts.own)
    predicted(engine, prompts.own, Intervention(engine.layers.all, prompts.fish))
    assert torch.equal(predicted(engine, prompts.own), before)


# --- the model --------------------------------------------------------------------------------------------------------


def test_the_blocks_are_listed_in_forward_order(family, engine, prompts):
    called = []
    hooks = [
        engine._pipeline.transformer.get_submodule(name).register_forward_pre_hook(
            lambda *_, name=name: called.append(name)
        )
        for name in engine.layers.modules
    ]
    predicted(engine, prompts.own)
    for hook in hooks:
        hook.remove()
    assert tuple(called) == engine.layers.modules
    kinds = {"sd3": ["joint"] * 4, "flux": ["double"] * 3 + ["single"] * 3}
    assert [layer.block for layer in engine.layers] == kinds[family]
    assert engine.layers.width == prompts.own.tokens.shape[1]


@pytest.mark.slow
def test_images_are_those_of_the_pipeline_itself(family, engine, prompts):
    """SD 3 with guidance; Flux without, for it has learnt that."""
    guided = {"guidance_scale": 4.0} if family == "sd3" else {"guidance_scale": EMBEDDED_GUIDANCE}
    sampling = replace(SAMPLING, guidance=4.0 if family == "sd3" else 1.0)
    expected = engine._pipeline(
        STAR,
        width=sampling.width,
        height=sampling.height,
        num_inference_steps=sampling.steps,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
        **guided,
    ).images
    made = engine.generate([Row(prompts.own, 3)], sampling).movedim(-1, 1)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-3)  # far below one grey level (0.004)


def test_a_prompt_is_one_chunk_that_is_given_as_a_whole(engine, prompts):
    count = len(prompts.own.tokens)
    assert prompts.own.chunks == (Chunk(0, 0, count - 1, count),)


def test_flux_without_an_embedded_guidance_is_run_too():
    schnell = engine_for(flux_pipeline(guidance_embeds=False))
    (star,) = schnell.encode([STAR])
    assert torch.isfinite(predicted(schnell, star)).all()


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_is_loaded_as_it_was_saved(family, engine, prompts, tmp_path):
    engine._pipeline.save_pretrained(tmp_path)
    loaded = engine_for(load_pipeline(tmp_path))
    assert type(loaded) is type(engine)
    assert loaded.digest() == engine.digest()
    assert torch.equal(loaded.encode([STAR])[0].tokens, prompts.own.tokens)
    assert own_size(tmp_path) == {"sd3": 128, "flux": 1024}[family]


@pytest.mark.slow
def test_sd3_is_loaded_without_t5_and_gets_zeros_in_its_place(tmp_path):
    sd3_pipeline(with_t5=False).save_pretrained(tmp_path)
    loaded = engine_for(load_pipeline(tmp_path))
    (star,) = loaded.encode([STAR])
    assert len(star.tokens) == 77 + 256
    assert star.tokens[77:].count_nonzero() == 0
    assert loaded.text_encoder.count("CLIP") == 2
    assert "T5" not in loaded.text_encoder


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_what_there_is_none_of_is_refused(engine, prompts):
    row = Row(prompts.own, 0)
    keys = Intervention(blocks(engine, 1), prompts.fish, Part.KEYS)
    for work, message in (
        (lambda: engine.key_value_weights(0), "the blocks of .* get the text as other parts"),
        (lambda: engine.ablated({(0, Part.KEYS): None}).__enter__(), "get the text as other parts"),
        (lambda: engine.sigmas(replace(SAMPLING, scheduler="leading")), "scheduler: 'leading'; give one of linspace"),
        (lambda: engine.generate([row], replace(SAMPLING, sampler="pndm")), "sampler: 'pndm'; give one of euler"),
        (lambda: engine.generate([row], replace(SAMPLING, width=72)), "size: 72 x 96; give this model multiples of 16"),
        (lambda: predicted(engine, prompts.own, keys), "part: 'keys'; blocks of this model read a whole prompt"),
        (lambda: engine.encode(["star " * 80]), "has 82 tokens with its ends; shorten it to 77"),
    ):
        with pytest.raises(ValueError, match=message):
            work()
