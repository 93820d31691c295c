"""A CLIP and a CLIP Vision of the host as a scorer, against transformers' CLIPModel on the same random weights."""

from __future__ import annotations

import json

import comfy.model_management
import pytest
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from transformers import CLIPConfig, CLIPModel

from loco_core.scoring.tower_check import COLOUR_PIXELS, COLOUR_TEXT, COLOURS

TEXTS = ["a red star", "a blue fish in the style of woodcut", r"a (green:1.4) boat \(small\)"]
FIRST_WEIGHT = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
TOWER = {"num_attention_heads": 4, "hidden_act": "quick_gelu"}
VISION = {**TOWER, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "image_size": 32}
VISION |= {"patch_size": 8, "num_channels": 3, "model_type": "clip_vision_model"}


def text_config(width: int, layers: int) -> dict:
    return {**TOWER, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}


def clip_model(width: int, layers: int = 3) -> CLIPModel:
    """transformers' CLIP, with random weights that all show, in float16's grid, as the host keeps them."""
    special = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407, "vocab_size": 49408}
    config = CLIPConfig(text_config=text_config(width, layers) | special, vision_config=VISION, projection_dim=width)
    model = CLIPModel(config).eval()
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or name.endswith("class_embedding"):
                parameter.normal_(std=(parameter.numel() / len(parameter)) ** -0.5, generator=generator)
            parameter.copy_(parameter.half())
    return model


def text_weights(model: CLIPModel) -> dict[str, torch.Tensor]:
    return {key: weight for key, weight in model.state_dict().items() if key.startswith("text_")}


def load_clip(*models: CLIPModel, without_projection: bool = False) -> CLIP:
    """The text towers as the host has them, in its own sizes for a test: one is SD 1's, two are SDXL's."""
    files = [text_weights(model) for model in models]
    if without_projection:
        files = [{key: weight for key, weight in file.items() if key != "text_projection.weight"} for file in files]
    configs = [model.config.text_config for model in models]
    sizes = [text_config(config.hidden_size, config.num_hidden_layers) for config in configs]
    options = {f"{name}_model_config": size for name, size in zip(("clip_l", "clip_g"), sizes, strict=False)}
    classes = (SD1Tokenizer, SD1ClipModel) if len(models) == 1 else (SDXLTokenizer, SDXLClipModel)
    return CLIP(ClipTarget(*classes), state_dict=files, model_options=options)


@pytest.fixture
def load_vision(tmp_path):
    """load_vision(model, ...) -> its vision tower as the host has it."""

    def load(model: CLIPModel, **changes) -> ClipVisionModel:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(VISION | {"projection_dim": model.config.projection_dim} | changes))
        vision = ClipVisionModel(str(path))
        weights = {key: weight for key, weight in model.state_dict().items() if key.startswith("vis")}
        missing, _ = vision.load_sd(weights)
        assert not missing or changes
        return vision

    return load


@pytest.fixture(scope="module")
def scorer_of(pack):
    return pack("nodes.host.clip_vision").ClipVisionScorer


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Three pictures of the vision tower's size, in whole grey levels, which the host rounds to."""
    return torch.randint(256, (3, 32, 32, 3), generator=torch.Generator().manual_seed(0)) / 255


@torch.no_grad()
def reference(model: CLIPModel, clip, images: torch.Tensor, tower: str = "l") -> torch.Tensor:
    """transformers' cosines x 100: [images, texts]."""
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    tokens = torch.tensor([[token for token, _ in clip.tokenize(text)[tower][0]] for text in TEXTS])
    out = model(input_ids=tokens, pixel_values=((images - mean) / deviation).movedim(-1, 1))
    return 100 * out.logits_per_image / model.logit_scale.exp()


def scores(scorer, images: torch.Tensor) -> torch.Tensor:
    """[images, texts]"""
    return torch.stack([scorer.score(images, [text] * len(images)) for text in TEXTS], 1)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    """Cosines x 100 of two programs in float32: sums in another order, a ten-thousandth of what tells texts apart."""
    torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_scores_are_the_cosines_of_transformers_clip(host, scorer_of, load_vision, images):
    model = clip_model(32)
    clip = load_clip(model)
    expected = reference(model, clip, images)
    assert expected.std() > 1
    close(scores(scorer_of(clip, load_vision(model)), images), expected.clamp(min=0))


@pytest.mark.parametrize(("width", "tower"), [(32, "l"), (16, "g")])
def test_of_sdxls_two_towers_the_one_as_wide_as_the_vision_tower_is_read(
    host, scorer_of, load_vision, images, width, tower
):
    models = {32: clip_model(32), 16: clip_model(16, layers=31)}  # by the 31st layer the host knows SDXL's second
    clip = load_clip(models[32], models[16])
    expected = reference(models[width], clip, images, tower)
    close(scores(scorer_of(clip, load_vision(models[width])), images), expected.clamp(min=0))


def test_similarity_is_the_cosine_of_two_images(host, scorer_of, load_vision, images):
    scorer = scorer_of(load_clip(clip_model(32)), load_vision(clip_model(32)))
    similar = scorer.similarity(images, images[[0, 2, 1]])
    assert similar[0] == pytest.approx(100, abs=1e-3)
    assert similar[1] == pytest.approx(similar[2].item(), abs=1e-3)
    assert similar[1] < 99


def test_a_scorer_leaves_the_clip_as_it_was(host, scorer_of, load_vision, images):
    model = clip_model(32)
    clip = load_clip(model)
    encode = lambda: clip.encode_from_tokens(clip.tokenize(TEXTS[0]), return_pooled=True)  # noqa: E731
    before = encode()
    scorer_of(clip, load_vision(model)).score(images, TEXTS)
    for one, other in zip(before, encode(), strict=True):
        assert torch.equal(one, other)


def test_scorers_of_other_weights_have_another_digest_also_after_a_lora(host, scorer_of, load_vision):
    model = clip_model(32)
    clip, vision = load_clip(model), load_vision(model)
    patched = clip.clone()
    assert patched.add_patches({FIRST_WEIGHT: ("diff", (torch.ones(64, 32),))})
    digests = [scorer_of(*pair).digest for pair in ((clip, vision), (load_clip(model), vision), (patched, vision))]
    assert digests[0] == digests[1] != digests[2]


def test_a_lora_that_another_scorer_has_loaded_does_not_change_the_digest(scorer_of, load_vision):
    model = clip_model(32)
    clip, vision = load_clip(model), load_vision(model)
    own = scorer_of(clip, vision).digest
    patched = clip.clone()
    assert patched.add_patches({FIRST_WEIGHT: ("diff", (torch.ones(64, 32),))})
    scorer_of(patched, vision).embed_texts(TEXTS)  # loads it, into the weights that both share
    assert scorer_of(clip, vision).digest == own


def test_cancel_ends_the_reading_of_texts_and_the_seeing_of_images(host, scorer_of, load_vision, images):
    scorer = scorer_of(load_clip(clip_model(32)), load_vision(clip_model(32)))
    for work in (lambda: scorer.embed_texts(TEXTS), lambda: scorer.embed_images(images)):
        comfy.model_management.interrupt_current_processing(True)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            work()


@pytest.fixture
def knowing(scorer_of, load_vision) -> CLIPModel:
    """A CLIP whose text projection is such that the colours' names are embedded where their pictures are."""
    model = clip_model(32)
    model.text_projection.weight.data = torch.eye(32)
    scorer = scorer_of(load_clip(model), load_vision(model))
    pictures = torch.tensor(list(COLOURS.values()))[:, None, None].expand(-1, COLOUR_PIXELS, COLOUR_PIXELS, -1)
    by_text = scorer.embed_texts([COLOUR_TEXT.format(colour) for colour in COLOURS]).double()
    by_image = scorer.embed_images(pictures).double()
    model.text_projection.weight.data = (torch.linalg.pinv(by_text) @ by_image).T.half().float()
    return model


def test_the_node_takes_two_towers_that_know_colours(host, execute, knowing, load_vision, images):
    clip = load_clip(knowing)
    (scorer,) = execute("LoCo_CLIPVisionScorer", clip=clip, clip_vision=load_vision(knowing))
    close(scores(scorer, images), reference(knowing, clip, images).clamp(min=0))
    assert scorer.name == "SD1ClipModel's clip_l with a CLIP Vision, 32 wide"


def test_a_clip_whose_file_lacks_the_projection_is_refused(host, execute, knowing, load_vision):
    clip = load_clip(knowing, without_projection=True)
    weight = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    left_over = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    for content, message in (
        (torch.zeros_like(weight), "has no projection to the space that images share"),
        (torch.full_like(weight, float("nan")), "has no projection to the space that images share"),
        (left_over, "do not tell plain colours apart. Either the CLIP's file has no text projection"),
    ):
        weight.data = content  # the host leaves in it what the memory held before
        with pytest.raises(ValueError, match=message):
            execute("LoCo_CLIPVisionScorer", clip=clip, clip_vision=load_vision(knowing))


def test_a_checkpoint_without_projection_is_refused_as_the_host_loads_it(host, execute, knowing, load_vision):
    clip = load_clip(knowing, without_projection=True)
    with pytest.raises(ValueError, match="clip"):
        execute("LoCo_CLIPVisionScorer", clip=clip, clip_vision=load_vision(knowing))


def test_towers_of_different_widths_are_refused(host, execute, load_vision):
    clip = load_clip(clip_model(32), clip_model(16, layers=31))
    with pytest.raises(
        ValueError, match=r"text towers are 16 \(clip_g\), 32 \(clip_l\) wide|towers are 32 \(clip_l\), 16"
    ):
        execute("LoCo_CLIPVisionScorer", clip=clip, clip_vision=load_vision(clip_model(24)))


def test_a_vision_tower_without_projection_is_refused(host, execute, knowing, load_vision):
    vision = load_vision(knowing)
    vision.model.visual_projection = torch.nn.Identity()  # so v0.33.0 loads a file that lacks it; SigLIP's is a lambda
    with pytest.raises(ValueError, match="clip_vision: it has no projection to a space shared with text"):
        execute("LoCo_CLIPVisionScorer", clip=load_clip(knowing), clip_vision=vision)
