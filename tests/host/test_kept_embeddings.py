"""Embeddings of prompts are kept as long as nothing on which they depend has changed."""

from __future__ import annotations

import pytest
import torch

RED, BLUE = "a red star", "a blue star"


@pytest.fixture
def clip(demo):
    return demo.clip.clone()


@pytest.fixture
def encode(pack, monkeypatch):
    """encode(clip, prompts); `encode.asked` are the prompts that the text encoder took."""
    module = pack("nodes.host.text_encoder")
    asked, encoded = [], module._encoded

    def watched(clip, prompt):
        asked.append(prompt)
        return encoded(clip, prompt)

    monkeypatch.setattr(module, "_encoded", watched)

    def run(clip, *prompts):
        return module.encode(clip, prompts)

    run.asked = asked
    return run


def test_of_a_changed_field_the_changed_lines_are_encoded(encode, clip):
    first = encode(clip, RED)[0]
    again, _ = encode(clip, RED, BLUE)
    assert encode.asked == [RED, BLUE]
    assert again is first


def test_another_text_encoder_gives_its_own(encode, clip):
    other = clip.clone()
    bias = "clip_l.transformer.text_model.final_layer_norm.bias"
    assert other.add_patches({bias: ("diff", (torch.ones(128),))})
    assert not torch.equal(encode(clip, RED)[0].tokens, encode(other, RED)[0].tokens)


@pytest.mark.parametrize("change", ["patches", "last layer", "tokenizer option"])
def test_the_same_text_encoder_changed_in_place_encodes_anew(encode, clip, change):
    encode(clip, RED)
    if change == "patches":
        clip.add_patches({"clip_l.transformer.text_model.final_layer_norm.bias": ("diff", (torch.ones(128),))})
    elif change == "last layer":
        clip.clip_layer(-2)
    else:
        clip.set_tokenizer_option("min_length", 3)
    encode(clip, RED)
    assert encode.asked == [RED, RED]


def test_the_least_recently_used_are_given_up_beyond_the_stated_size(encode, clip, pack, monkeypatch):
    size = encode(clip, RED)[0].tokens.nbytes
    monkeypatch.setattr(pack("nodes.host.text_encoder"), "KEPT_BYTES", 2 * size)
    encode(clip, BLUE, RED, "a green star", RED, BLUE)
    assert encode.asked == [RED, BLUE, "a green star", BLUE]


def test_a_prompt_with_a_textual_inversion_is_read_anew_for_its_file_may_change(encode, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(clip.tokenizer.clip_l, "embedding_directory", [str(tmp_path)])
    torch.save({"emb_params": torch.zeros(1, 128)}, tmp_path / "mine.pt")
    for _ in range(2):
        encode(clip, "a star, embedding:mine")
    assert len(encode.asked) == 2
