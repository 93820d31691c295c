"""LoCo Probe on the demo model, whose styles are planted in layers 8-9 and whose flags in 6-7."""

from __future__ import annotations

import comfy.model_management
import pytest

SMALL = {"width": 128, "height": 128, "cfg": 2.0, "batch_rows": 32}
STYLED, PLAIN = "a picture of a red star in the style of woodcut", "a picture of a red star"


@pytest.fixture
def probe(execute, demo):
    """probe(concept, target, ...) -> the node's outputs."""

    def run(concept: str, target: str, model=demo.model, **options):
        asked = {"concept_prompts": concept, "target_prompts": target} | SMALL | options
        return execute("LoCo_Probe", model=model, clip=demo.clip, **asked)

    return run


def test_a_style_is_found_where_it_was_planted_with_a_map_and_a_report(probe):
    layers, by_level, report, figure = probe(STYLED, PLAIN)
    assert layers.indices == (8, 9)
    assert report.startswith("localized: layers 8-9 make 1")
    assert by_level.shape[0] == figure.shape[0] == 1 and by_level.shape[3] == figure.shape[3] == 3


def test_layers_that_got_the_target_already_make_no_difference_between_the_prompts(probe, demo, inject_in, host):
    """All layers together do, as an unmodified model has it: they are what the shares are of."""
    target = host.nodes.CLIPTextEncode().encode(demo.clip, PLAIN)[0]
    with pytest.raises(ValueError, match="target: .* makes no difference to .* in this model"):
        probe(STYLED, PLAIN, inject_in(demo.model, target, list(range(16))))


def test_cancel_ends_it(probe, monkeypatch):
    def cancelled() -> None:
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        probe(STYLED, PLAIN)


def test_prompts_that_say_the_same_are_refused(probe):
    with pytest.raises(ValueError, match="same"):
        probe(PLAIN, PLAIN)
