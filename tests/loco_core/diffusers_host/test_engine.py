"""The diffusers engine on the demo model."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("diffusers")

import diffusers
import numpy as np

from loco_core.diffusers_host.demo_model import CHECKPOINT, NOISE, SCORER, demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.diffusers_host.pipelines import SAMPLERS, SPACINGS, load_pipeline
from loco_core.editing.closed_form import EditOperator
from loco_core.editing.recipe import Preservation, Ridge, Tokens
from loco_core.editing.solve import solve_edit
from loco_core.editing.token_pairs import token_pairs
from loco_core.localization.plan import Effort, SearchPlan
from loco_core.localization.search import search
from loco_core.models.engine import Chunk, Intervention, Row, Sampling
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import Attribute, PromptPair
from loco_core.scoring.open_clip_scorer import load_scorer
from made_up import edit_of, recipe

pytestmark = pytest.mark.slow

SAMPLING = Sampling(4, 2.0, "euler", "linspace", 128, 128)
STAR, FISH = "a red star", "a blue fish in the style of woodcut"


@pytest.fixture(scope="module")
def engine() -> DiffusersEngine:
    return DiffusersEngine(demo_pipeline())


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Equal up to the rounding of float32 sums in another batch shape, far below one grey level (0.004)."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_a_row_in_a_batch_is_the_image_made_alone(engine):
    star, fish = engine.encode([STAR, FISH])
    rows = [Row(star, 0), Row(fish, 1, Intervention(LayerSet((8, 9), 16), star)), Row(fish, 0)]
    together = engine.generate(rows, SAMPLING)
    for position, row in enumerate(rows):
        close(together[position : position + 1], engine.generate([row], SAMPLING))


def test_an_intervention_with_the_same_prompt_changes_nothing_at_all(engine):
    (star,) = engine.encode([STAR])
    same = engine.generate([Row(star, 0, Intervention(engine.layers.all, star))], SAMPLING)
    assert (same - engine.generate([Row(star, 0)], SAMPLING)).abs().max() == 0


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_an_intervention_at_all_layers_is_the_other_prompt(engine, guidance):
    star, fish = engine.encode([STAR, FISH])
    sampling = Sampling(4, guidance, "euler", "linspace", 128, 128)
    close(
        engine.generate([Row(star, 0, Intervention(engine.layers.all, fish))], sampling),
        engine.generate([Row(fish, 0)], sampling),
    )


def test_after_an_intervention_the_model_is_as_it_was(engine):
    star, fish = engine.encode([STAR, FISH])
    before = engine.generate([Row(star, 0)], SAMPLING)
    engine.generate([Row(star, 0, Intervention(engine.layers.all, fish))], SAMPLING)
    assert torch.equal(engine.generate([Row(star, 0)], SAMPLING), before)


def test_an_edit_lasts_as_long_as_its_block_even_when_that_fails(engine):
    operator = EditOperator(torch.ones(128, 1, dtype=torch.float64), torch.ones(1, 128, dtype=torch.float64))
    before = [engine.key_value_weights(layer) for layer in range(16)]
    with pytest.raises(KeyError), engine.edited(edit_of(operator, LayerSet((8,), 16)), 0.5):
        for old, new in zip(before[8], engine.key_value_weights(8), strict=True):
            torch.testing.assert_close(new, old + 0.5 * operator.weight_change(old))
        assert torch.equal(engine.key_value_weights(9)[0], before[9][0])
        raise KeyError
    for layer in range(16):
        assert all(torch.equal(*pair) for pair in zip(before[layer], engine.key_value_weights(layer), strict=True))


@pytest.fixture(scope="module")
def references(engine) -> torch.Tensor:
    """Two images of the same prompt, of seeds 0 and 1, in many steps."""
    (star,) = engine.encode([STAR])
    return engine.generate([Row(star, 0), Row(star, 1)], Sampling(30, 2.0, "euler", "linspace", 128, 128))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_every_sampler_comes_to_the_same_image(engine, references, sampler, spacing):
    (star,) = engine.encode([STAR])
    (image,) = engine.generate([Row(star, 0)], Sampling(10, 2.0, sampler, spacing, 128, 128))
    same, other = references
    # Samplers and spacings differ in how they cut the path, seeds in where it starts.
    assert (image - same).abs().mean() < 0.5 * (other - same).abs().mean()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_models_own_scheduler_asks_for_does_not_change_a_sampler(engine, sampler, monkeypatch):
    rows = [Row(embedding, 0) for embedding in engine.encode([STAR, FISH])]
    sampling = Sampling(4, 2.0, sampler, "trailing", 128, 128)
    plain = engine.generate(rows, sampling)
    strange = {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "clip_sample": True}
    own = diffusers.DDIMScheduler(**NOISE)
    monkeypatch.setattr(engine._pipeline, "scheduler", type("Own", (), {"config": {**own.config, **strange}})())
    assert torch.equal(engine.generate(rows, sampling), plain)


def test_pndm_calls_the_denoiser_once_more_than_it_has_steps_as_for_the_authors(engine):
    calls = []
    (star,) = engine.encode([STAR])
    engine.generate([Row(star, 0)], Sampling(5, 2.0, "pndm", "leading", 128, 128), lambda: calls.append(1))
    assert len(calls) == 6


# --- the paper, written out -------------------------------------------------------------------------------------------


@torch.no_grad()
def image_with_window(engine, concept, target, window, seed: int) -> torch.Tensor:
    """The authors' rule for one image: to_k and to_v of the window read the target in the conditional half."""
    pipeline, hooks = engine._pipeline, []
    for index in window:
        attention = pipeline.unet.get_submodule(engine.layers.modules[index])

        def swap(_, inputs):
            negative, _ = inputs[0].chunk(2)
            return (torch.cat([negative, target.tokens[None]]),)

        hooks += [part.register_forward_pre_hook(swap) for part in (attention.to_k, attention.to_v)]
    scheduler = diffusers.EulerDiscreteScheduler.from_config(pipeline.scheduler.config, timestep_spacing="linspace")
    pipeline.scheduler, own = scheduler, pipeline.scheduler
    try:
        made = pipeline(
            concept.prompt,
            height=128,
            width=128,
            num_inference_steps=4,
            guidance_scale=2.0,
            latents=torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(seed)),
            output_type="pt",
        )
    finally:
        pipeline.scheduler = own
        for hook in hooks:
            hook.remove()
    return made.images.movedim(1, -1)


def test_a_search_gives_the_scores_of_the_authors_loop_over_one_window_at_a_time(engine):
    engine._pipeline.set_progress_bar_config(disable=True)
    scorer = load_scorer(SCORER)
    pairs = (PromptPair(f"{STAR} in the style of halftone", STAR), PromptPair("halftone, a fish", "a fish"))
    plan = SearchPlan(pairs, (0, 5), Attribute.STYLE, SAMPLING, 13, Effort.EXHAUSTIVE)
    ours, packed = (search(engine, scorer, plan, rows_per_batch) for rows_per_batch in (1, 32))
    theirs = []
    for window in windows(16, 13):
        for seed in (0, 5):
            for pair in pairs:
                concept, target = engine.encode([pair.concept, pair.target])
                image = image_with_window(engine, concept, target, window, seed)
                theirs.append(scorer.score(image, [pair.concept]).item())
    expected = torch.tensor(theirs).reshape(4, 4)

    def scores(result) -> torch.Tensor:
        return torch.from_numpy(np.stack([result.table.scores(window) for window in windows(16, 13)])).float()

    torch.testing.assert_close(scores(ours), expected, rtol=1e-5, atol=0)
    # The scorer reads 8-bit pictures: the rounding of a batch's float32 sums turns a pixel in a few of them.
    torch.testing.assert_close(scores(packed), expected, rtol=1e-3, atol=0)
    assert ours.layers == packed.layers == windows(16, 13)[int(expected.mean(1).argmin())]


def test_an_edit_gives_the_weights_of_the_authors_d_by_d_formula(engine):
    concepts = ["woodcut", "a painting in the style of woodcut"]
    asked = {"tokens": Tokens.LAST_SUBJECT, "ridge": Ridge.PAPER, "preservation": Preservation.NONE}
    edit = solve_edit(engine.encode, recipe(concepts, layers=LayerSet((8,), 16), **asked))
    (target,) = engine.encode(["a painting"])
    pairs = [token_pairs(concept, target, Tokens.LAST_SUBJECT) for concept in engine.encode(concepts)]
    originals, replacements = (torch.cat(part, 1).double() for part in zip(*pairs, strict=True))
    before = [weight.double() for weight in engine.key_value_weights(8)]
    with engine.edited(edit):
        after = engine.key_value_weights(8)
    inverse = torch.linalg.inv(originals @ originals.T + 0.01 * torch.eye(128, dtype=torch.float64))
    for old, new in zip(before, after, strict=True):
        expected = (old @ replacements @ originals.T + 0.01 * old) @ inverse
        assert torch.linalg.norm(new - expected) / torch.linalg.norm(expected) <= 1e-5


@pytest.mark.parametrize("length", [12, 40, 77])
def test_a_prompt_has_room_for_as_many_tokens_as_the_tokenizer_at_hand_says(engine, monkeypatch, length):
    monkeypatch.setattr(engine._pipeline.tokenizer, "model_max_length", length)
    (full,) = engine.encode([" ".join(["star"] * (length - 2))])
    assert full.chunks == (Chunk(0, 1, length - 1, length),)
    with pytest.raises(ValueError, match=f"has {length + 1} tokens with its ends; shorten it to {length}"):
        engine.encode([" ".join(["star"] * (length - 1))])


def test_a_single_checkpoint_is_loaded_with_the_configuration_of_a_folder(tmp_path):
    own = demo_pipeline()
    own.save_pretrained(tmp_path)
    loaded = load_pipeline(CHECKPOINT, tmp_path)
    for part in ("unet", "vae", "text_encoder"):
        weights, others = (getattr(pipeline, part).state_dict() for pipeline in (own, loaded))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name].to(weights[name])) for name in weights)


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_mistakes_are_named(engine, tmp_path):
    (star,) = engine.encode([STAR])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    (tmp_path / "model_index.json").write_text("[]")
    narrow = edit_of(EditOperator(torch.zeros(768, 1), torch.zeros(1, 768)), LayerSet((8,), 16))
    for work, message in (
        (lambda: load_pipeline(tmp_path / "nowhere"), "nowhere is not a diffusers folder"),
        (lambda: load_pipeline(tmp_path), "diffusers cannot load"),
        (lambda: load_pipeline(CHECKPOINT), "for loco_demo.safetensors give --config too, a diffusers folder"),
        (lambda: load_pipeline(CHECKPOINT, tmp_path / "nowhere"), "nowhere is not a diffusers folder"),
        (lambda: load_pipeline(tmp_path / "other"), "names KandinskyPipeline; use Stable Diffusion 1.x"),
        (lambda: engine.encode([" ".join(["star"] * 80)]), "has 82 tokens with its ends; shorten it to 77"),
        (lambda: engine.generate([Row(star, 0)], Sampling(1, 1, "warp", "linspace", 64, 64)), "sampler: 'warp'"),
        (lambda: engine.generate([Row(star, 0)], Sampling(1, 1, "ddim", "warp", 64, 64)), "scheduler: 'warp'"),
        (
            lambda: engine.edited(narrow).__enter__(),
            "embeddings 768 wide, the model gets 128",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            work()
