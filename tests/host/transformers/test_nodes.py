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


def test_an_edit_says_why_it_is_not_made(execute, narrow):
    with pytest.raises(ValueError, match="^model: the blocks of .* get the text as other parts"):
        execute("LoCo_Remove", model=narrow.model, clip=narrow.clip, concept="Van Gogh", preserve="a cat", size=64)
