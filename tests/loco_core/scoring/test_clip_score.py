from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo.world import STYLES, Scene, draw
from loco_core.scoring.open_clip_scorer import ClipScorer, load_scorer
from loco_core.weights_digest import weights_digest

DEMO_SCORER = Path(__file__).resolve().parents[3] / "demo" / "open_clip" / "loco_demo_clip.safetensors"


@pytest.fixture(scope="module")
def scorer():
    return load_scorer(DEMO_SCORER)


def drawings(*scenes: Scene) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.stack([torch.from_numpy(draw(scene, rng)).float() / 255 for scene in scenes])


@pytest.mark.parametrize("style", STYLES)
def test_a_drawing_in_a_style_fits_that_style_better_than_a_plain_one(scorer, style):
    images = drawings(Scene("star", style, "red"), Scene("star", colour="red"))
    styled, plain = scorer.score(images, [f"a picture of a red star in the style of {style}"] * 2)
    assert styled > plain + 10


def test_scores_are_cosines_times_100_and_never_negative(scorer):
    images = drawings(*(Scene("star", style, "red") for style in STYLES))
    scores = scorer.score(images, ["a flag"] * len(images))
    assert 0 <= scores.min() and scores.max() <= 100


def test_an_image_has_the_same_score_alone_and_in_a_batch(scorer):
    images = drawings(Scene("star", "woodcut", "red"), Scene("fish", colour="blue"))
    texts = ["woodcut", "a blue fish"]
    alone = torch.cat([scorer.score(image[None], [text]) for image, text in zip(images, texts, strict=True)])
    torch.testing.assert_close(alone, scorer.score(images, texts), rtol=0, atol=1e-3)  # float32, other batch shapes


@pytest.mark.parametrize(
    ("prompt", "caption"),
    [
        ("a (red:1.3) star, ((woodcut))", "a red star, woodcut"),
        (r"embedding:woodcut \(red\)", "woodcut (red)"),
        ("(a star in the style of (woodcut:1.4):0.8)", "a star in the style of woodcut"),
    ],
)
@torch.no_grad()
def test_a_prompt_is_scored_as_what_it_says_without_weights(scorer, prompt, caption):
    images = drawings(Scene("star", "woodcut", "red"))
    expected = 100 * torch.cosine_similarity(scorer.embed_texts([caption]), scorer.embed_images(images))
    torch.testing.assert_close(scorer.score(images, [prompt]), expected.clamp(min=0), rtol=0, atol=1e-3)  # float32


def test_one_text_per_image_is_required(scorer):
    with pytest.raises(ValueError, match="1 images and 2 texts"):
        scorer.score(drawings(Scene("star", colour="red")), ["a", "b"])


def test_a_file_that_tells_no_architecture_is_an_error_that_says_what_to_do(tmp_path):
    shutil.copy(DEMO_SCORER, tmp_path / "lonely.safetensors")
    with pytest.raises(ValueError, match="choose it, or put open_clip's model configuration beside it as lonely.json"):
        load_scorer(tmp_path / "lonely.safetensors")


@pytest.mark.parametrize(
    ("weights", "configuration"),
    [("mine.safetensors", "mine.json"), ("open_clip_model.safetensors", "open_clip_config.json")],
)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "cannot be read as JSON"),
        (b"\xff", "cannot be read as JSON"),
        (b"[]", "is not an open_clip model configuration"),
        (b"{}", "is not an open_clip model configuration"),
    ],
)
def test_a_configuration_of_another_kind_is_an_error_that_names_it(tmp_path, weights, configuration, content, said):
    shutil.copy(DEMO_SCORER, tmp_path / weights)
    (tmp_path / configuration).write_bytes(content)
    with pytest.raises(ValueError, match=f"^scorer: {configuration} {said}.*; put the model's own in its place"):
        load_scorer(tmp_path / weights)


def test_weights_of_another_architecture_are_an_error_of_one_line(tmp_path):
    """Not one of every weight that does not fit."""
    save_file({"weight": torch.zeros(2), "bias": torch.zeros(2)}, tmp_path / "mine.safetensors")
    shutil.copy(DEMO_SCORER.with_suffix(".json"), tmp_path / "mine.json")
    with pytest.raises(ValueError, match="scorer: mine.safetensors does not hold a model .*state_dict") as error:
        load_scorer(tmp_path / "mine.safetensors")
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_scorer_is_an_error(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ValueError, match="does not hold a model that open_clip can load"):
        load_scorer(tmp_path / "text.safetensors", "ViT-B-32")


def test_a_folder_from_the_hub_is_read_as_it_is(tmp_path):
    config = DEMO_SCORER.with_suffix(".json").read_text()
    (tmp_path / "open_clip_config.json").write_text(f'{{"model_cfg": {config}, "preprocess_cfg": {{}}}}')
    shutil.copy(DEMO_SCORER, tmp_path / "open_clip_model.safetensors")
    images = drawings(Scene("star", "woodcut", "red"))
    expected, copied = load_scorer(DEMO_SCORER), load_scorer(tmp_path / "open_clip_model.safetensors")
    torch.testing.assert_close(copied.score(images, ["woodcut"]), expected.score(images, ["woodcut"]))
    assert copied.name == tmp_path.name  # all files from there have one name


@pytest.mark.parametrize("architecture", [None, "ViT-B-32"])
@pytest.mark.parametrize(
    "names",
    [
        ["logit_scale", "text_model.encoder.layers.0.mlp.fc1.weight", "vision_model.embeddings.class_embedding"],
        ["text_model.embeddings.token_embedding.weight"],  # clip_l.safetensors
        ["vision_model.post_layernorm.weight", "visual_projection.weight"],  # a CLIP Vision
    ],
)
def test_a_file_of_transformers_is_named_as_such_with_what_to_take_instead(tmp_path, names, architecture):
    save_file({name: torch.zeros(2) for name in names}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match="scorer: model.safetensors is in transformers' format; take open_clip_model.s"
    ):
        load_scorer(tmp_path / "model.safetensors", architecture)


@pytest.fixture
def folder_of_two(tmp_path):
    """A folder as the Hub offers it, with other weights beside those."""
    config = DEMO_SCORER.with_suffix(".json").read_text()
    (tmp_path / "open_clip_config.json").write_text(f'{{"model_cfg": {config}, "preprocess_cfg": {{}}}}')
    halved = {name: tensor / 2 for name, tensor in load_file(DEMO_SCORER).items()}
    save_file(halved, tmp_path / "open_clip_model.safetensors")
    shutil.copy(DEMO_SCORER, tmp_path / "chosen.safetensors")
    return tmp_path


def test_the_file_chosen_is_read_whatever_else_is_in_its_folder(folder_of_two, scorer):
    shutil.copy(DEMO_SCORER.with_suffix(".json"), folder_of_two / "chosen.json")
    assert load_scorer(folder_of_two / "chosen.safetensors").digest == scorer.digest


def test_the_architecture_chosen_is_that_of_the_file_whatever_else_is_in_its_folder(folder_of_two):
    with pytest.raises(ValueError, match="chosen.safetensors does not hold a model that open_clip can load"):
        load_scorer(folder_of_two / "chosen.safetensors", "ViT-B-32")  # too large for these weights


def test_a_file_from_the_hub_tells_its_own_architecture(folder_of_two):
    with pytest.raises(ValueError, match="architecture: 'ViT-B-16', but open_clip_config.json beside"):
        load_scorer(folder_of_two / "open_clip_model.safetensors", "ViT-B-16")


def test_a_model_that_reads_other_tokens_than_clips_is_an_error():
    with torch.device("meta"):
        siglip = open_clip.create_model("ViT-B-16-SigLIP", device="meta")
    with pytest.raises(ValueError, match="scorer: siglip has other tokens than CLIP's"):
        ClipScorer(siglip, "siglip")


def test_the_digest_tells_weights_apart_whatever_kind_of_numbers_they_are():
    weights = [torch.randn(300, 40, generator=torch.Generator().manual_seed(0)), torch.tensor(4.6)]
    changed = [weights[0] + 1e-3, weights[1]]
    for kind in (torch.float32, torch.bfloat16, torch.float8_e4m3fn):
        one, same, other = ([weight.to(kind) for weight in each] for each in (weights, weights, changed))
        assert weights_digest(one) == weights_digest(same) != weights_digest(other)
    assert weights_digest(weights) == weights_digest([weights[0].T.contiguous().T, weights[1]])
