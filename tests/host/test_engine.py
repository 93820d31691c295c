"""The ComfyUI engine against the stock nodes on the same model."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from comfy_extras import nodes_sag

from loco_core.models.engine import Chunk, Intervention, Row, Sampling
from loco_core.models.layers import LayerSet, Part

SEED = 3


def layer_set(*indices: int) -> LayerSet:
    return LayerSet(indices, 16)


@pytest.fixture(scope="module")
def engine(engine_of, demo):
    return engine_of(demo.model, demo.clip, demo.vae)


@pytest.fixture(scope="module")
def generate(engine):
    """generate(rows, cfg=...) -> images [N, 128, 128, 3] in four steps."""

    @torch.no_grad()
    def run(rows, cfg: float = 2.0, on_step=None):
        return engine.generate(rows, Sampling(4, cfg, "euler", "normal", 128, 128), on_step)

    return run


@pytest.fixture(scope="module")
def stock(demo, sample):
    """stock(prompt, ...) -> the image that the stock nodes make."""
    return lambda prompt, **options: demo.vae.decode(sample(demo.model, demo.clip, prompt, seed=SEED, **options)).cpu()


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal up to the rounding of float32 sums in another batch shape, far below one grey level (0.004)."""
    torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_the_layers_are_those_of_sd15_in_forward_order(engine):
    blocks = [(layer.block, layer.block_number) for layer in engine.layers]
    down = [("input", number) for number in (1, 2, 4, 5, 7, 8)]
    assert blocks == [*down, ("middle", 0), *(("output", number) for number in range(3, 12))]
    assert [layer.index for layer in engine.layers] == list(range(16))


def test_a_model_of_no_known_family_is_an_error_that_says_what_to_use(pack, demo):
    with pytest.raises(ValueError, match="how a Sequential reads the prompt is not known.*use Stable Diffusion"):
        pack("nodes.host.layers").read_layers(_Headless(demo.model))


class _Headless:
    def __init__(self, model) -> None:
        self._model = model

    def get_model_object(self, name: str):
        return self._model.get_model_object(name).out


def test_the_embedding_is_the_hosts_own_and_its_last_subject_token_precedes_the_end(engine, host, demo):
    prompt = "a red star in the style of woodcut"
    (embedding,) = engine.encode([prompt])
    (expected,) = host.nodes.CLIPTextEncode().encode(demo.clip, prompt)
    torch.testing.assert_close(embedding.tokens, expected[0][0][0].float(), rtol=0, atol=0)
    tokens = [token for token, _ in demo.clip.tokenize(prompt)["l"][0]]
    (chunk,) = embedding.chunks
    assert tokens[chunk.end_of_text] == 49407
    assert tokens[chunk.last_subject] not in (49406, 49407)


def test_prompt_weights_do_not_reach_the_embedding(engine):
    plain, weighted = engine.encode(["a red star", "a (red:1.7) star"])
    torch.testing.assert_close(plain.tokens, weighted.tokens, rtol=0, atol=0)


def test_a_long_prompt_has_words_in_each_of_its_chunks(engine):
    (embedding,) = engine.encode([" ".join(["star"] * 80)])
    assert len(embedding.tokens) == 2 * 77
    # 75 words fill the first chunk; 5 follow the second start token
    assert embedding.chunks == (Chunk(0, 1, 76, 77), Chunk(77, 78, 83, 154))


def test_a_row_without_intervention_is_the_stock_image(engine, generate, stock):
    (embedding,) = engine.encode(["a red star"])
    close(generate([Row(embedding, SEED)]), stock("a red star"))


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_each_row_of_a_batch_equals_the_same_row_alone(engine, generate, cfg):
    star, fish, styled = engine.encode(["a red star", "a blue fish in the style of woodcut", "halftone"])
    rows = [
        Row(star, SEED),
        Row(fish, SEED + 1, Intervention(layer_set(8, 9), star)),
        Row(fish, SEED, Intervention(layer_set(0, 6, 15), styled)),
    ]
    together = generate(rows, cfg)
    for position, row in enumerate(rows):
        close(together[position : position + 1], generate([row], cfg))


def test_rows_with_different_token_counts_equal_the_same_rows_alone(engine, generate):
    short, long = engine.encode(["a red star", " ".join(["a blue fish"] * 30)])
    rows = [Row(short, SEED), Row(long, SEED), Row(short, 5, Intervention(layer_set(8), long))]
    together = generate(rows)
    for position, row in enumerate(rows):
        close(together[position : position + 1], generate([row]))


def test_an_intervention_with_the_same_prompt_changes_nothing_at_all(engine, generate):
    (star,) = engine.encode(["a red star"])
    same = Row(star, SEED, Intervention(layer_set(*range(16)), star))
    assert (generate([same]) - generate([Row(star, SEED)])).abs().max() == 0


def test_an_intervention_at_all_layers_is_the_other_prompt(engine, generate, stock):
    star, fish = engine.encode(["a red star", "a blue fish"])
    close(generate([Row(star, SEED, Intervention(layer_set(*range(16)), fish))]), stock("a blue fish"))


def test_another_prompts_keys_are_that_prompt_with_the_first_ones_values(engine, generate):
    star, fish = engine.encode(["a red star", "a blue fish"])
    keys = Row(star, SEED, Intervention(layer_set(*range(16)), fish, Part.KEYS))
    values = Row(fish, SEED, Intervention(layer_set(*range(16)), star, Part.VALUES))
    close(generate([keys]), generate([values]))
    assert (generate([keys]) - generate([Row(star, SEED)])).abs().max() > 0.05


def test_under_self_attention_guidance_only_the_positive_prompt_is_exchanged(engine_of, demo):
    """Its extra call evaluates the negative prompt alone, as entry 0."""
    model = nodes_sag.SelfAttentionGuidance.execute(demo.model, 0.5, 2.0).result[0]
    engine = engine_of(model, demo.clip, demo.vae)
    star, fish = engine.encode(["a red star", "a blue fish"])
    sampling = Sampling(4, 2.0, "euler", "normal", 128, 128)
    everywhere = Intervention(layer_set(*range(16)), fish)
    close(engine.generate([Row(star, SEED, everywhere)], sampling), engine.generate([Row(fish, SEED)], sampling))


@pytest.mark.slow
def test_every_single_layer_can_be_addressed(engine, generate):
    star, fish = engine.encode(["a red star", "a blue fish in the style of woodcut"])
    rows = [Row(star, SEED, Intervention(layer_set(index), fish)) for index in range(16)]
    images = generate([Row(star, SEED), *rows])
    changes = (images[1:] - images[0]).abs().amax((1, 2, 3))
    assert (changes > 1e-4).all(), changes  # a missed layer would show the rounding of the batch, below 1e-5
    assert len(set(changes.tolist())) == 16


def test_the_model_is_as_it_was_after_an_intervention(engine, generate, stock):
    before = stock("a red star")
    star, fish = engine.encode(["a red star", "a blue fish"])
    generate([Row(star, SEED, Intervention(layer_set(*range(16)), fish))])
    assert (stock("a red star") - before).abs().max() == 0


def test_cancel_ends_generation_at_the_next_step(engine, generate):
    steps = []

    def cancel() -> None:
        steps.append(1)
        comfy.model_management.interrupt_current_processing(True)

    (star,) = engine.encode(["a red star"])
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        generate([Row(star, SEED)], on_step=cancel)
    assert len(steps) == 1


@pytest.fixture
def with_room_for(engine_of, demo):
    """with_room_for(rows) -> an engine whose model runs out of memory with more rows than that at once, and the rows
    of each call of its denoiser: one a batch, where a sampling has one step and no negative prompt.
    """

    def run(most: int):
        model, sizes = demo.model.clone(), []

        def denoise(apply_model, call):
            sizes.append(len(call["input"]))
            if sizes[-1] > most:
                raise torch.cuda.OutOfMemoryError
            return apply_model(call["input"], call["timestep"], **call["c"])

        model.set_model_unet_function_wrapper(denoise)
        return engine_of(model, demo.clip, demo.vae), sizes

    return run


def test_when_memory_runs_out_the_rows_are_halved_and_the_images_are_the_same(with_room_for, caplog):
    sampling = Sampling(1, 1.0, "euler", "normal", 128, 128)
    ample, _ = with_room_for(5)
    rows = [Row(embedding, SEED + number) for number, embedding in enumerate(ample.encode(["a red star"] * 5))]
    together = ample.generate(rows, sampling)
    engine, sizes = with_room_for(2)
    close(engine.generate(rows, sampling), together)
    assert sizes == [5, 2, 2, 1]
    assert "out of memory with 5 images at once; going on with 2" in caplog.text
    engine.generate(rows, sampling)
    assert sizes[4:] == [2, 2, 1]  # it remembers


@pytest.fixture
def with_free_memory(with_room_for, demo, monkeypatch):
    """with_free_memory(rows) -> an engine whose host has memory for so many rows, and the sizes of its batches."""

    def run(rows: float):
        sampling = Sampling(1, 1.0, "euler", "normal", 128, 128)
        free = rows * 1.5 * demo.model.model.memory_required([1, 4, 16, 16])  # the host wants half as much to spare
        monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device=None, torch_free_too=False: free)
        engine, sizes = with_room_for(100)
        return engine, sampling, sizes

    return run


@pytest.mark.slow
def test_rows_that_would_not_fit_are_halved_before_memory_runs_out(with_free_memory, engine_of, demo, caplog):
    engine, sampling, sizes = with_free_memory(3.5)
    rows = [Row(embedding, SEED + number) for number, embedding in enumerate(engine.encode(["a red star"] * 9))]
    images = engine.generate(rows, sampling)
    assert sizes == [2, 2, 2, 2, 1]
    assert "batch rows: memory is free for 3 images at once; making 2 at a time" in caplog.text
    close(images, engine_of(demo.model, demo.clip, demo.vae).generate(rows, sampling))


def test_a_row_is_tried_even_where_the_hosts_estimate_leaves_no_room_for_it(with_free_memory):
    engine, sampling, sizes = with_free_memory(0.1)
    engine.generate([Row(embedding, SEED) for embedding in engine.encode(["a red star"] * 2)], sampling)
    assert sizes == [1, 1]


def test_images_that_main_memory_cannot_keep_are_an_error_that_says_how_many_can_be(with_free_memory):
    engine, sampling, sizes = with_free_memory(3.5)
    (star,) = engine.encode(["a red star"])
    with pytest.raises(ValueError, match="batch rows: 1000000 images of 128 x 128 pixels .* GB are free; give"):
        engine.generate([Row(star, SEED)] * 1_000_000, sampling)
    assert sizes == []


def test_memory_that_other_models_hold_on_a_gpu_counts_as_free_and_weights_still_to_be_loaded_do_not(
    pack, demo, monkeypatch
):
    class OnGpu:
        load_device, offload_device = "gpu", "cpu"
        model_size, loaded_size = (lambda self: 50), (lambda self: 20)

    class Loaded:
        def __init__(self, device: str, bytes_held: int, ours: bool = False) -> None:
            self.device, self.model = device, self
            self.model_loaded_memory, self.is_clone = (lambda: bytes_held), (lambda other: ours)

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: {"gpu": 1000}[device])
    loaded = [Loaded("gpu", 300), Loaded("gpu", 20, ours=True), Loaded("cpu", 4000)]
    monkeypatch.setattr(comfy.model_management, "current_loaded_models", loaded)
    assert pack("nodes.host.memory")._free_memory(OnGpu()) == 1000 + 300 - 30


def test_when_memory_runs_out_in_the_vae_it_decodes_in_tiles(engine, generate, demo, monkeypatch, caplog):
    rows = [Row(embedding, SEED) for embedding in engine.encode(["a red star", "a blue fish"])]
    together = generate(rows)
    decode, shapes = demo.vae.first_stage_model.decode, []

    def short_of_memory(samples, *arguments, **options):
        shapes.append(tuple(samples.shape))
        if len(shapes) == 1:
            raise torch.cuda.OutOfMemoryError
        return decode(samples, *arguments, **options)

    monkeypatch.setattr(demo.vae.first_stage_model, "decode", short_of_memory)
    close(generate(rows), together)
    assert "tiled VAE decoding" in caplog.text


def test_a_single_image_that_does_not_fit_is_an_error(with_room_for):
    engine, _ = with_room_for(0)
    (star,) = engine.encode(["a red star"])
    with pytest.raises(torch.cuda.OutOfMemoryError):
        engine.generate([Row(star, SEED)], Sampling(2, 2.0, "euler", "normal", 128, 128))


@pytest.fixture(scope="module")
def predict(engine):
    """predict(engine, rows, latents, step) -> denoised latents of a run of four steps at guidance 2."""
    return lambda rows, latents, step, engine=engine: engine.predict(
        rows, latents, Sampling(4, 2.0, "euler", "normal", 128, 128), step
    )


def test_the_last_steps_prediction_is_the_image_where_there_is_no_guidance(engine):
    (star,) = engine.encode(["a red star"])
    sampling, row = Sampling(4, 1.0, "euler", "normal", 128, 128), [Row(star, SEED)]
    latents = engine.latents_at(row, sampling, [3])
    predicted = engine.predict(row, latents[:, 0], sampling, 3)
    scale = engine._model.get_model_object("latent_format").scale_factor
    close(engine._decode(predicted / scale), engine.generate(row, sampling))


def test_latents_are_of_the_steps_that_were_asked_for_in_their_order(engine):
    (star,) = engine.encode(["a red star"])
    rows, sampling = [Row(star, SEED), Row(star, 5)], Sampling(4, 2.0, "euler", "normal", 128, 128)
    both, turned = engine.latents_at(rows, sampling, [0, 3]), engine.latents_at(rows, sampling, [3, 0])
    assert both.shape == (2, 2, 4, 16, 16)
    torch.testing.assert_close(both.flip(1), turned, rtol=0, atol=0)
    assert both[:, 0].std() > 5 * both[:, 1].std()  # noise goes


def test_runs_go_on_from_where_they_were(engine):
    star, fish = engine.encode(["a red star", "a blue fish"])
    rows, sampling = [Row(star, SEED), Row(fish, 5)], Sampling(4, 2.0, "euler", "normal", 128, 128)
    at_once = engine.latents_at(rows, sampling, [1, 3])
    gone_on = engine.latents_at(rows[1:], sampling, [1, 3], begun=at_once[1:, 0])
    close(gone_on[0], at_once[1])


def test_each_row_is_predicted_as_it_is_alone(engine, predict):
    star, fish = engine.encode(["a red star", "a blue fish in the style of woodcut"])
    rows = [Row(star, SEED), Row(fish, SEED), Row(star, SEED, Intervention(layer_set(8, 9), fish))]
    latents = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    together = predict(rows, latents, 2)
    for place, row in enumerate(rows):
        close(together[place : place + 1], predict([row], latents[place : place + 1], 2))


def test_what_other_nodes_make_of_guidance_does_not_count(engine, engine_of, demo, predict):
    model = demo.model.clone()
    model.set_model_sampler_post_cfg_function(lambda given: 2 * given["denoised"], disable_cfg1_optimization=True)
    model.set_model_sampler_cfg_function(lambda given: 0 * given["cond"], disable_cfg1_optimization=True)
    (star,) = engine.encode(["a red star"])
    rows, latents = [Row(star, SEED)], torch.ones(1, 4, 16, 16)
    close(predict(rows, latents, 1, engine_of(model, demo.clip, demo.vae)), predict(rows, latents, 1))


def test_rows_for_which_memory_is_short_are_predicted_in_parts(engine, predict, monkeypatch):
    (star,) = engine.encode(["a red star"])
    rows, latents = [Row(star, seed) for seed in range(4)], torch.randn(4, 4, 16, 16)
    expected, sample, sizes = predict(rows, latents, 1), engine._sample, []

    def short(model, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sample(model, rows, *rest)

    monkeypatch.setattr(engine, "_sample", short)
    monkeypatch.setattr(engine, "_most_rows", None)
    close(predict(rows, latents, 1), expected)
    assert sizes == [4, 2, 1, 1, 1, 1]
