"""Zarei's score of transformers' blocks, against the score written by hand from the weights, and where tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from comfy.ldm.modules.attention import attention_pytorch

from host.transformers.narrow import JOINT, WIDTH, joint_model
from loco_core.localization.attention import Attention, concept_score
from loco_core.localization.localize import localize
from loco_core.localization.plan import ProbePlan
from loco_core.localization.probe import Prober
from loco_core.localization.probe_report import probe_report
from loco_core.models.engine import Chunk, Intervention, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet
from loco_core.prompts import PromptPair

SAMPLING = Sampling(steps=2, guidance=3.0, sampler="euler", scheduler="normal", width=64, height=64)
OWN, OTHER = "a red star in woodcut", "a red star"
CONCEPT, TOKENS = [3, 4], 20
# Of Flux.2 prompts are padded in front, to so many tokens.
FLUX2_TOKENS = 512


# Wan's attention is not of text and image together.
SCORED = [name for name in JOINT if name != "wan"]


@pytest.fixture(scope="module", params=SCORED)
def family(host, request) -> str:
    return request.param


def embedding(prompt: str) -> TextEmbedding:
    generator = torch.Generator().manual_seed(sum(map(ord, prompt)))
    tokens, pooled = torch.randn(TOKENS, WIDTH, generator=generator), torch.ones(32)
    return TextEmbedding(prompt, tokens, (Chunk(0, 0, TOKENS - 1, TOKENS),), pooled)


@pytest.fixture
def engine(model, engine_of, monkeypatch, pack):
    """An engine whose text encoder is made up."""
    engine = engine_of(model)
    monkeypatch.setattr(engine, "encode", lambda prompts: [embedding(prompt) for prompt in prompts])
    monkeypatch.setattr(pack("nodes.host.engine"), "concept_rows", lambda clip, own, target: CONCEPT)
    return engine


@pytest.fixture
def row() -> Row:
    return Row(embedding(OWN), 3, Intervention(LayerSet(tuple(range(6)), 6), embedding(OTHER)))


@torch.inference_mode()
def scores_at(engine, rows: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """[rows, layers], and the latents."""
    latents = engine.latents_at(rows, SAMPLING, [1])[:, 0]
    return engine.attention_scores(rows, latents, SAMPLING, 1), latents


# --- by hand ----------------------------------------------------------------------------------------------------------


def score(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, concept: list[int], output: torch.Tensor) -> float:
    """[heads, T, d] each, of the image's queries and of all keys and values; output [d_out, heads * d]."""
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    given = torch.einsum("hik,hkd->ihd", weights[..., concept], v[:, concept]).flatten(1)
    return (given @ output.T).norm(dim=-1).mean().item()


def heads(made: torch.Tensor, count: int) -> torch.Tensor:
    """[T, count * d] -> [count, T, d]."""
    return made.unflatten(-1, (count, -1)).transpose(0, 1)


def joined(text: list[torch.Tensor], image: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.cat([own, other], 1) for own, other in zip(text, image, strict=True)]


def sd3_by_hand(block, call: dict) -> float:
    def qkv(part, x):
        shift, scale = part.adaLN_modulation(call["c"])[0].chunk(9 if part.x_block_self_attn else 6)[:2]
        q, k, v = (part.attn.qkv(part.norm1(x) * (1 + scale) + shift)).chunk(3, -1)
        return [part.attn.ln_q(heads(q, 2)), part.attn.ln_k(heads(k, 2)), heads(v, 2)]

    q, k, v = joined(qkv(block.context_block, call["context"][0]), qkv(block.x_block, call["x"][0]))
    return score(q[:, TOKENS:], k, v, CONCEPT, block.x_block.attn.proj.weight)


def turned(x: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
    """Rotary positions of [heads, T, d]; pe [1, 1, T, d/2, 2, 2]."""
    pairs = x.unflatten(-1, (-1, 1, 2))
    return (pe[0] * pairs).sum(-1).flatten(-2)


def double_by_hand(block, call: dict) -> float:
    def qkv(kind, x):
        attention, modulation = getattr(block, f"{kind}_attn"), getattr(block, f"{kind}_mod")
        own, _ = modulation(call["vec"])
        q, k, v = attention.qkv(block.img_norm1(x) * (1 + own.scale[0]) + own.shift[0]).chunk(3, -1)
        return [attention.norm.query_norm(heads(q, 4)), attention.norm.key_norm(heads(k, 4)), heads(v, 4)]

    q, k, v = joined(qkv("txt", call["txt"][0]), qkv("img", call["img"][0]))
    q, k = turned(q, call["pe"]), turned(k, call["pe"])
    return score(q[:, TOKENS:], k, v, CONCEPT, block.img_attn.proj.weight)


def single_by_hand(block, call: dict) -> float:
    own, _ = block.modulation(call["vec"])
    made = block.linear1(block.pre_norm(call["x"][0]) * (1 + own.scale[0]) + own.shift[0])
    q, k, v = (heads(part, 4) for part in made[:, : 3 * 128].chunk(3, -1))
    q, k = turned(block.norm.query_norm(q), call["pe"]), turned(block.norm.key_norm(k), call["pe"])
    return score(q[:, TOKENS:], k, v, CONCEPT, block.linear2.weight[:, :128])


BY_HAND = {"sd3": sd3_by_hand, "double": double_by_hand, "single": single_by_hand}


@pytest.mark.parametrize(
    ("family", "kind", "index"),
    [("sd3", "sd3", index) for index in range(5)]
    + [("flux", "double", index) for index in range(3)]
    + [("flux", "single", index) for index in range(3, 6)],
    indirect=["family"],
)
def test_the_score_is_the_definition_written_by_hand(engine, model, row, pack, kind, index):
    """In SD 3's last block the text's modulation has two parts, all else is the same."""
    block = pack("nodes.host.families.joint").blocks_of(model.model.diffusion_model)[index]
    expected = []

    def before(module, args, kwargs):
        call = block.kind.named(args, kwargs)
        copies = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in call.items()}
        expected.append(BY_HAND[kind](module, copies))

    latents = engine.latents_at([row], SAMPLING, [1])[:, 0]
    handle = block.module.register_forward_pre_hook(before, with_kwargs=True)
    with torch.inference_mode():
        scores = engine.attention_scores([row], latents, SAMPLING, 1)
    handle.remove()
    assert len(expected) == 1
    assert scores[0, index].item() == pytest.approx(expected[0], rel=1e-4)


# --- every family -----------------------------------------------------------------------------------------------------


def test_every_block_has_a_score_and_each_row_its_own(engine, row):
    """Other prompts beside it, of one length or of another, change a row's scores by rounding alone."""
    short = TextEmbedding("short", row.embedding.tokens[:9], (Chunk(0, 0, 8, 9),), row.embedding.pooled)
    rows = [row, Row(embedding("a blue moon"), 4, row.intervention), Row(short, 5, row.intervention)]
    together, _ = scores_at(engine, rows)
    alone = torch.cat([scores_at(engine, [one])[0] for one in rows])
    assert together.shape == (3, 6)
    assert torch.isfinite(together).all() and (together > 0).all()
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=0)
    assert not torch.allclose(together[0], together[1], rtol=0.01)


def test_what_is_predicted_is_the_same_to_the_bit(engine, row, pack, monkeypatch):
    predicted = []
    sample = engine._sample
    monkeypatch.setattr(engine, "_sample", lambda *given: predicted.append(sample(*given)) or predicted[-1])
    with torch.inference_mode():
        latents = engine.latents_at([row], SAMPLING, [1])[:, 0]
        for ask in (engine.predict, engine.attention_scores, engine.predict):
            ask([Row(row.embedding, 3) if ask == engine.predict else row], latents, SAMPLING, 1)
    _, before, watched, after = predicted
    assert torch.equal(before, watched) and torch.equal(before, after)


def test_another_nodes_attention_still_acts(model, engine_of, engine, row):
    """It is called with what it would get, once for each attention of the model."""
    called = []

    def attend(func, *args, **kwargs):
        called.append(len(args))
        return func(*args, **kwargs)

    changed = model.clone()
    changed.model_options["transformer_options"]["optimized_attention_override"] = attend
    other = engine_of(changed)
    expected, latents = scores_at(engine, [row])
    other._negatives[""] = embedding("")
    with torch.inference_mode():
        scores = other.attention_scores([row], latents, SAMPLING, 1)
    assert torch.equal(scores, expected)
    assert len(called) >= 6


def test_a_concept_that_cannot_be_told_has_no_score(engine, row, pack, monkeypatch):
    monkeypatch.setattr(pack("nodes.host.engine"), "concept_rows", lambda clip, own, target: [])
    scores, _ = scores_at(engine, [row])
    assert scores.isnan().all()


@pytest.mark.parametrize("family", ["flux2"], indirect=True)
def test_flux_2_pads_prompts_in_front_and_the_tokens_are_followed(engine, row, pack, monkeypatch):
    scores, _ = scores_at(engine, [row])
    padding = FLUX2_TOKENS - TOKENS
    tokens = torch.nn.functional.pad(row.embedding.tokens, (0, 0, padding, 0))
    padded = TextEmbedding(OWN, tokens, (Chunk(0, 0, FLUX2_TOKENS - 1, FLUX2_TOKENS),), row.embedding.pooled)
    engine._concepts.clear()
    places = [padding + place for place in CONCEPT]
    monkeypatch.setattr(pack("nodes.host.engine"), "concept_rows", lambda clip, own, target: places)
    expected, _ = scores_at(engine, [Row(padded, 3, row.intervention)])
    assert torch.equal(scores, expected)


def test_the_probe_tells_a_second_ranking_at_a_row_for_each_place(engine):
    plan = ProbePlan((PromptPair(OWN, OTHER),), (3,), SAMPLING, levels=2)
    with torch.inference_mode():
        found = localize(Prober(engine, plan, 8), engine.layers, window_size=2)
    assert found.probe.attention.shape == (6,) and (found.probe.attention > 0).all()
    assert max(found.attention_shares.values()) == 1
    assert found.probe.rows == plan.rows(5 + 1)
    assert "by attention, what the concept's own words give the image there" in str(probe_report(found))


@pytest.mark.parametrize("family", ["wan"], indirect=True)
def test_blocks_whose_attention_is_not_of_text_and_image_together_are_not_ranked_by_it(engine):
    plan = ProbePlan((PromptPair(OWN, OTHER),), (3,), SAMPLING, levels=2)
    with torch.inference_mode():
        found = localize(Prober(engine, plan, 8), engine.layers, window_size=2)
    assert found.probe.attention is None
    assert "by attention" not in str(probe_report(found))


# The layer that makes the values of a block's text.
VALUES = {"sd3": "context_block.attn.qkv", "flux": "txt_attn.qkv", "qwen": "attn.add_v_proj"}


@pytest.mark.parametrize("family", VALUES, indirect=True)
def test_a_block_whose_text_gives_much_more_is_first_by_attention_and_by_the_probe(
    family, engine_of, pack, monkeypatch
):
    planted, strong = 2, joint_model(family)
    blocks = pack("nodes.host.families.joint").blocks_of(strong.model.diffusion_model)
    with torch.no_grad():
        blocks[planted].module.get_submodule(VALUES[family]).weight[-128:] *= 10
    engine = engine_of(strong)
    monkeypatch.setattr(engine, "encode", lambda prompts: [embedding(prompt) for prompt in prompts])
    monkeypatch.setattr(pack("nodes.host.engine"), "concept_rows", lambda clip, own, target: list(range(TOKENS)))
    plan = ProbePlan((PromptPair(OWN, OTHER),), (3,), SAMPLING, levels=2)
    with torch.inference_mode():
        found = localize(Prober(engine, plan, 8), engine.layers, window_size=1)
    assert found.layers.indices == (planted,)
    assert np.argmax(found.probe.attention) == planted


def test_layers_of_u_nets_have_no_such_score(demo, engine_of):
    engine = engine_of(demo.model, demo.clip)
    plan = ProbePlan((PromptPair(OWN, OTHER),), (3,), SAMPLING, levels=1)
    with torch.inference_mode():
        found = localize(Prober(engine, plan, 16), engine.layers, window_size=8)
    assert found.probe.attention is None and found.attention_shares == {}
    assert "attention" not in str(probe_report(found))
    assert found.probe.rows == plan.rows(9)


def test_the_model_is_as_before(engine, model, row):
    scores_at(engine, [row])
    assert "optimized_attention_override" not in model.model_options["transformer_options"]
    assert not any(module._forward_pre_hooks for module in model.model.diffusion_model.modules())


@pytest.mark.parametrize("shape", [(9, 9), (2, 1, 9), (2, 9, 9), (1, 4, 9, 9), (2, 4, 1, 9)], ids=str)
@pytest.mark.parametrize("hides", [True, False])
def test_masks_act_as_in_the_hosts_attention(pack, shape, hides):
    """All tokens are the concept's: what they give is what the host's function gives."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 9, 8, generator=generator)
    mask = torch.randn(shape, generator=generator)
    mask = mask > -1 if hides else mask
    expected = attention_pytorch(q, k, v, 4, mask, skip_reshape=True)[:, 3:].norm(dim=-1).mean(-1)
    bias = pack("nodes.host.attention")._bias
    for row in range(2):
        own = Attention(q[row, :, 3:], k[row], v[row], 8**-0.5, bias(mask, row, 3))
        assert concept_score(own, range(9), lambda given: given) == pytest.approx(expected[row].item(), rel=1e-5)


# --- where the concept's tokens are -----------------------------------------------------------------------------------


def test_the_concepts_tokens_are_found_in_the_demos_text_encoder(demo, pack, encoder):
    encode, concept_rows = encoder(demo.clip), pack("nodes.host.text_encoder").concept_rows
    styled, plain = "a picture of a red star in the style of woodcut", "a picture of a red star"
    (own,) = encode([styled])
    tokens = demo.clip.tokenize(styled)["l"][0]
    words = 1 + len(plain.split())
    found = concept_rows(demo.clip, own, plain)
    assert found == list(range(words, tokens.index((49407, 1.0))))


def test_a_prompt_without_words_of_its_own_has_none_and_says_so(demo, pack, encoder, caplog):
    (own,) = encoder(demo.clip)(["a red star"])
    assert pack("nodes.host.text_encoder").concept_rows(demo.clip, own, "a red star in woodcut") == []
    assert "attention is not scored: 'a red star' has no words that the target prompt lacks" in caplog.text


def words(*numbers: int, start: bool = False, length: int = 0) -> list[list[tuple[int, float, int]]]:
    """A tower's tokens: words, an end, and padding to `length`."""
    tokens = [(1, 1.0, 0)] * start + [(number, 1.0, 1) for number in numbers] + [(2, 1.0, 0)]
    return [tokens + [(0, 1.0, 0)] * (length - len(tokens))]


def fake_clip(loaded: Sequence[str], **towers: dict[str, list]) -> SimpleNamespace:
    """A text encoder whose towers take these prompts for these tokens; `loaded` are those it has."""
    return SimpleNamespace(
        tokenize=lambda prompt, return_word_ids: {name: prompts[prompt] for name, prompts in towers.items()},
        cond_stage_model=SimpleNamespace(**dict.fromkeys(loaded, object())),
    )


CLIP_L = {OWN: words(5, 6, 7, 8, start=True, length=77), OTHER: words(5, 6, start=True, length=77)}
T5 = {OWN: words(31, 32, 33, length=80), OTHER: words(31, 32, length=80)}
LONG_T5 = {OWN: words(31, 32, 33, length=256), OTHER: words(31, 32, length=256)}
# A template in front and one behind, of which the host cuts off the first four tokens.
LLM = {OWN: words(90, 91, 92, 93, 94, 5, 6, 7, 95, 96), OTHER: words(90, 91, 92, 93, 94, 6, 95, 96)}


@pytest.mark.parametrize(
    ("loaded", "towers", "rows", "expected"),
    [
        (["clip_l", "clip_g", "t5xxl"], {"l": CLIP_L, "g": CLIP_L, "t5xxl": T5}, 157, [3, 4, 79]),
        (["clip_l", "clip_g"], {"l": CLIP_L, "g": CLIP_L, "t5xxl": T5}, 77, [3, 4]),
        (["t5xxl"], {"l": CLIP_L, "g": CLIP_L, "t5xxl": T5}, 80, [2]),
        (["clip_l", "t5xxl"], {"l": CLIP_L, "t5xxl": LONG_T5}, 256, [2]),
        (["t5xxl"], {"t5xxl": T5}, 80, [2]),
        (["llm"], {"llm": LLM}, 11, [5, 7]),
        (["llm"], {"llm": LLM}, 7, [1, 3]),
        (["llm"], {"llm": LLM}, 12, []),
        (["clip_l", "t5xxl"], {"l": CLIP_L, "t5xxl": T5}, 100, []),
    ],
    ids=["SD 3", "SD 3 without T5", "SD 3 of T5 alone", "Flux", "Chroma", "Z-Image", "Qwen", "more rows", "others"],
)
def test_tokens_are_counted_as_each_family_lays_its_text_encoders_out(pack, loaded, towers, rows, expected):
    clip, own = fake_clip(loaded, **towers), TextEmbedding(OWN, torch.zeros(rows, 1), ())
    assert pack("nodes.host.text_encoder").concept_rows(clip, own, OTHER) == expected
