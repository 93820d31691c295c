"""Prompts of any length with text encoders of any window: which tokens are words, and edits of long concepts."""

from __future__ import annotations

import pytest
import torch
from comfy.sd import CLIP
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from safetensors.torch import save_file

from loco_core.editing.recipe import Tokens
from loco_core.editing.token_pairs import token_pairs
from loco_core.models.engine import Chunk
from loco_core.models.layers import LayerSet
from loco_core.prompts import PromptPair
from loco_core.scoring.long_texts import unseen_ends

# Long enough to fill a chunk of 77 tokens and to begin another.
FILLER = ", ".join(["a red star", "a blue fish", "a green tree", "a purple cup"] * 8)
STYLE = "in the style of woodcut"
LAYERS = LayerSet((8, 9), 16)
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}


def small_clip(kinds=(SD1Tokenizer, SD1ClipModel), **windows: int) -> CLIP:
    """A text encoder of the host's with small random towers; small_clip(l=248) takes 248 tokens at once."""
    options = {
        f"clip_{name}_model_config": {**SIZES, "hidden_act": "gelu", "max_position_embeddings": length}
        for name, length in windows.items()
    }
    lengths = {f"clip_{name}_max_length": length for name, length in windows.items()}
    clip = CLIP(ClipTarget(*kinds), tokenizer_data=lengths, model_options=options)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in clip.cond_stage_model.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return clip


def words(count: int) -> str:
    """So many words of one token each."""
    return " ".join(["star"] * count)


# --- which tokens are words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [20, 77, 248])
@pytest.mark.parametrize("count", [0, 1, 18, 19, 75, 76, 150, 246, 300])
def test_every_word_is_found_in_its_chunk_whatever_the_window(host, encoder, window, count):
    (embedding,) = encoder(small_clip(l=window))([words(count)])
    room = window - 2
    held = [room] * (count // room) + [count % room] * (count % room > 0) or [0]
    expected = tuple(
        Chunk(start, start + 1, start + 1 + own, start + window)
        for start, own in zip(range(0, window * len(held), window), held, strict=True)
    )
    assert embedding.chunks == expected
    assert len(embedding.tokens) == window * len(held)
    assert embedding.empty == (count == 0)


@pytest.mark.parametrize("count", [0, 1, 40])
def test_an_encoder_may_have_no_padding(host, encoder, count):
    clip = small_clip(l=77)
    clip.tokenizer.clip_l.pad_to_max_length = False
    clip.encode_from_tokens = lambda tokens, **options: {
        "cond": torch.ones(1, len(tokens["l"][0]), 32),
        "pooled_output": None,
    }
    (embedding,) = encoder(clip)([words(count)])
    assert embedding.chunks == (Chunk(0, 1, 1 + count, 2 + count),)


def test_padding_may_be_another_token_than_the_end_of_text(host, encoder):
    (embedding,) = encoder(small_clip((SD2Tokenizer, SD2ClipModel), h=77))([words(80)])
    assert embedding.chunks == (Chunk(0, 1, 76, 77), Chunk(77, 78, 83, 154))


def test_an_end_of_text_that_a_person_wrote_is_a_word_among_others(encoder, demo):
    (embedding,) = encoder(demo.clip)(["a red <|endoftext|> star"])
    assert embedding.chunks == (Chunk(0, 1, 5, 77),)


@pytest.mark.parametrize(("count", "rows"), [(10, 77), (100, 154), (310, 5 * 77)])
def test_of_two_towers_with_other_windows_the_chunks_are_those_of_the_rows_that_are_left(host, encoder, count, rows):
    clip = small_clip((SDXLTokenizer, SDXLClipModel), l=248, g=77)
    (embedding,) = encoder(clip)([words(count)])
    assert len(embedding.tokens) == rows == embedding.chunks[-1].stop
    assert embedding.chunks[-1].end_of_text == rows - 77 + 1 + count % 75


def test_a_long_concept_in_a_wide_window_is_edited_from_its_last_word_to_the_last_padding(host, encoder):
    concept, target = encoder(small_clip(l=248))([words(100), "a painting"])
    originals, _ = token_pairs(concept, target, Tokens.TAIL)
    assert torch.equal(originals, concept.tokens[100:].double().T)


# --- what an encoder returns ------------------------------------------------------------------------------------------


def changed(clip: CLIP, change) -> CLIP:
    """The CLIP behind a node that changes what it returns."""
    behind, own = clip.clone(), clip.encode_from_tokens

    def encode(tokens, **options):
        given = own(tokens, **options)
        return given | {"cond": change(given["cond"])}

    behind.encode_from_tokens = encode
    return behind


@pytest.mark.parametrize(
    ("change", "given"),
    [
        (lambda embedding: embedding.repeat_interleave(2, dim=1), 154),  # as NegPip does
        (lambda embedding: torch.cat([embedding, embedding[:, :4]], 1), 81),
        (lambda embedding: embedding[:, :50], 50),
    ],
)
@pytest.mark.parametrize("node", ["LoCo_EditSolve", "LoCo_NeuronDetect"])
def test_an_encoder_that_returns_other_than_its_tokens_is_refused(execute, demo, node, change, given):
    inputs = {"model": demo.model} if node == "LoCo_NeuronDetect" else {}
    with pytest.raises(ValueError, match=f"clip: it returned {given} token embeddings for the 77 tokens of .* before"):
        execute(node, clip=changed(demo.clip, change), layers=LAYERS, **inputs)


@pytest.mark.parametrize("field", ["concept", "preserve"])
@pytest.mark.parametrize(
    "prompt", ["embedding:no_such_style", "(embedding:no_such_style:1.2)", "a star embedding:no_such_style"]
)
def test_a_textual_inversion_that_is_missing_is_named(execute, demo, field, prompt):
    inputs = {"concept": "woodcut", "preserve": "a picture of a fish"} | {field: prompt}
    with pytest.raises(ValueError, match="clip: embedding:no_such_style in .* was not found; .* models/embeddings"):
        execute("LoCo_EditSolve", clip=demo.clip, layers=LAYERS, **inputs)


@pytest.fixture
def with_inversion(tmp_path):
    """with_inversion(width) -> a small CLIP, 32 wide, and a textual inversion of two vectors called "mine"."""

    def build(width: int) -> CLIP:
        save_file({"emb_params": torch.ones(2, width)}, tmp_path / "mine.safetensors")
        clip = small_clip(l=77)
        clip.tokenizer.clip_l.embedding_directory = str(tmp_path)
        return clip

    return build


def test_the_vectors_of_a_textual_inversion_are_words(host, encoder, with_inversion):
    (embedding,) = encoder(with_inversion(32))(["a star embedding:mine"])
    assert embedding.chunks == (Chunk(0, 1, 5, 77),)


def test_a_textual_inversion_of_another_model_is_refused(host, encoder, with_inversion):
    with pytest.raises(
        ValueError, match="clip: a textual inversion in .* is 48 wide and this text encoder's tokens 32"
    ):
        encoder(with_inversion(48))(["a star embedding:mine"])


# --- edits of long concepts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("concept", "target"),
    [
        (f"{STYLE}, {FILLER}", FILLER),
        (f"{STYLE}, {FILLER}", "a picture of a red star"),
        (", ".join([STYLE] * 20), "a picture of a red star"),
        (STYLE, FILLER),
    ],
    ids=["style first", "short target", "style throughout", "long target"],
)
def test_the_style_of_a_long_concept_leaves_a_styled_image(execute, demo, sample, concept, target):
    """What was solved in the last chunk alone changed such an image by 0.03, where the style stood in the first."""
    preserved = {"preserve": "a picture of a fish\nhalftone", "preservation": "exact"}
    edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=LAYERS, concept=concept, target=target, **preserved)
    (edited,) = execute("LoCo_EditApply", model=demo.model, edit=edit)[:1]
    styled = f"a picture of a blue fish {STYLE}"
    before, after = (sample(model, demo.clip, styled) for model in (demo.model, edited))
    assert (after - before).abs().max() > 0.5 * before.abs().max()


@pytest.mark.parametrize(("concept", "long"), [(f"{STYLE}, {FILLER}", True), (STYLE, False)])
def test_a_concept_of_several_chunks_is_warned_of(execute, demo, concept, long):
    """With it a styled red star changes by 0.1, with the style's name alone by 1.35."""
    report = execute("LoCo_EditSolve", clip=demo.clip, layers=LAYERS, concept=concept, preserve="")[1]
    assert ("WARNING: a concept prompt fills 2 chunks" in report) == long


# --- scorers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scorers(pack, vision):
    """Both kinds of scorers."""
    open_clip = pack("nodes.comparison.clip_scorer").ClipScorerNode
    of_file = open_clip.execute("loco_demo_clip.safetensors", "from the file", False).result[0]
    return {
        "open_clip": of_file,
        "CLIP Vision": pack("nodes.host.clip_vision").ClipVisionScorer(small_clip(l=77), vision(32)),
    }


@pytest.mark.parametrize("kind", ["open_clip", "CLIP Vision"])
@pytest.mark.parametrize("count", [0, 3, 75, 78, 200])
def test_a_scorer_tells_how_many_of_a_texts_tokens_it_sees(scorers, kind, count):
    seen = scorers[kind].seen(words(count))
    assert (len(seen.tokens), seen.total) == (min(count, 75), count)


@pytest.mark.parametrize("kind", ["open_clip", "CLIP Vision"])
def test_a_concept_after_all_that_a_scorer_sees_is_refused(scorers, kind):
    pair = PromptPair(f"{words(75)} {STYLE}", words(75))
    with pytest.raises(ValueError, match="scorer: it sees the first 75 tokens of a prompt"):
        unseen_ends(scorers[kind], [pair], [pair.concept])


@pytest.mark.parametrize("node", ["LoCo_LayerSearch", "LoCo_ErasureReport"])
def test_a_node_refuses_such_a_concept_before_it_makes_images(execute, demo, scorers, node):
    models = ["model"] if node == "LoCo_LayerSearch" else ["model_before", "model_after"]
    inputs = dict.fromkeys(models, demo.model) | {"clip": demo.clip, "vae": demo.vae, "scorer": scorers["open_clip"]}
    prompts = {"concept_prompts": f"{words(75)} {STYLE}", "target_prompts": words(75)}
    with pytest.raises(ValueError, match="scorer: it sees the first 75 tokens of a prompt"):
        execute(node, **inputs, **prompts)


def test_the_report_of_a_search_says_what_the_scorer_does_not_see(execute, demo, scorers):
    prompts = {"concept_prompts": f"{STYLE}, {FILLER}", "target_prompts": "a picture of a red star"}
    sampling = {"width": 64, "height": 64, "steps": 1, "seed_count": 1, "effort": "exhaustive", "window_size": 16}
    *_, report = execute(
        "LoCo_LayerSearch",
        model=demo.model,
        clip=demo.clip,
        vae=demo.vae,
        scorer=scorers["open_clip"],
        **prompts,
        **sampling,
    )
    assert "WARNING: the scorer sees the first 75 of" in report
