"""The nodes on transformers whose blocks change the text, with prompts in words, and as many blocks as published models
have. The workflows in the browser search them.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from host.transformers.narrow import COMPLETE

FAMILIES = ["flux", "sd3", "z_image", "qwen"]
STYLED = "a house by the sea in the style of Van Gogh"
PLAIN = "a house by the sea"


@pytest.fixture(params=FAMILIES)
def narrow(host, request) -> SimpleNamespace:
    return COMPLETE[request.param]()


def test_chosen_blocks_read_another_prompt_in_a_graph(execute, narrow, host):
    clip, encode = narrow.clip, host.nodes.CLIPTextEncode().encode
    own, other, empty = (encode(clip, text)[0] for text in (PLAIN, STYLED, ""))
    latent = {"samples": torch.zeros(2, 16, 8, 8)}

    def sampled(model) -> torch.Tensor:
        return host.nodes.common_ksampler(model, 0, 2, 1.0, "euler", "simple", own, empty, latent)[0]["samples"]

    def injected(chosen: str):
        layers, text = execute("LoCo_LayerSelect", model=narrow.model, layers=chosen)
        given = {"model": narrow.model, "conditioning": other, "layers": layers}
        return execute("LoCo_ConditioningInjector", **given)[0]

    with torch.inference_mode():
        plain, some, none = sampled(narrow.model), sampled(injected("7-18")), sampled(injected(""))
    assert torch.equal(none, plain)
    assert (some - plain).norm() > 1e-3 * plain.norm()


def test_the_words_of_a_prompt_are_found_among_the_rows_of_its_embedding(narrow, engine_of, pack):
    """In what each text encoder gives, templates and several towers included: that of the last word ends them."""
    engine = engine_of(narrow.model, narrow.clip)
    (own,) = engine.encode([PLAIN])
    last = pack("nodes.host.text_encoder").concept_rows(narrow.clip, own, PLAIN.rpartition(" ")[0])
    assert [chunk.last_subject for chunk in own.chunks] == last
    words = len(PLAIN.split())
    assert all(words <= chunk.end_of_text - chunk.first_subject <= words + 1 for chunk in own.chunks)  # T5 parts "a"


@pytest.mark.parametrize("chosen", ["all", "2-4"])
def test_a_concept_is_removed_from_its_prompts_in_a_graph(execute, narrow, host, chosen):
    """With random weights: the prompt that is preserved changes less than that of the concept."""
    encode = host.nodes.CLIPTextEncode().encode
    layers, _ = execute("LoCo_LayerSelect", model=narrow.model, layers=chosen)
    asked = {"concept": STYLED, "target": PLAIN, "preserve": "a cat", "settings": "by hand"}
    edit, _ = execute("LoCo_EditSolve", clip=narrow.clip, layers=layers, **asked)
    edited, text = execute("LoCo_EditApply", model=narrow.model, edit=edit)
    latent = {"samples": torch.zeros(1, 16, 8, 8)}
    changes = []
    with torch.inference_mode():
        for prompt in (STYLED, "a cat"):
            own, empty = (encode(narrow.clip, words)[0] for words in (prompt, ""))
            plain, made = (
                host.nodes.common_ksampler(model, 0, 2, 1.0, "euler", "simple", own, empty, latent)[0]["samples"]
                for model in (narrow.model, edited)
            )
            changes.append(((made - plain).norm() / plain.norm()).item())
    assert changes[1] < changes[0]
    assert changes[0] > 1e-4
    assert ("a concept edit" in text) == (chosen == "all")
