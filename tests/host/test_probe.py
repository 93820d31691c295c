"""LoCo Probe on the demo model, whose styles are planted in layers 8-9 and whose flags in 6-7."""

from __future__ import annotations

import comfy.model_management
import pytest
from comfy_execution.graph_utils import ExecutionBlocker

SMALL = {"width": 128, "height": 128, "steps": 10, "cfg": 2.0, "batch_rows": 32}
STYLED, PLAIN = "a picture of a red star in the style of woodcut", "a picture of a red star"


@pytest.fixture
def probe(execute, demo):
    """probe(concept, target, ...) -> the node's outputs."""

    def run(concept: str, target: str, model=demo.model, **options):
        asked = {"concept_prompts": concept, "target_prompts": target} | SMALL | options
        return execute("LoCo_Probe", model=model, clip=demo.clip, **asked)

    return run


def test_a_style_is_found_where_it_was_planted_with_a_map_a_report_and_a_time(probe):
    layers, smallest, picture, report, start, end = probe(STYLED, PLAIN)
    assert layers.indices == smallest.indices == (8, 9)
    assert report.startswith("localized: layers 8-9 make ")
    assert "\nlayers 8-9: blocks u1.0, u2.0" in report
    assert picture.shape[0] == 1 and picture.shape[3] == 3
    assert start == 0.0 < end < 1.0  # the demo model decides a style early


def test_the_time_in_which_the_layers_act_is_what_the_injector_takes(probe, execute, demo, host):
    layers, *_, start, end = probe(STYLED, PLAIN)
    target = host.nodes.CLIPTextEncode().encode(demo.clip, PLAIN)[0]
    given = {"model": demo.model, "conditioning": target, "layers": layers, "start_percent": start, "end_percent": end}
    assert execute("LoCo_ConditioningInjector", **given)


def test_where_the_prompts_make_hardly_any_difference_what_needs_layers_does_not_run(probe, pack, monkeypatch):
    monkeypatch.setattr(pack("loco_core.localization.localize"), "HARDLY_ANY", 10.0)
    layers, smallest, _, report, *_ = probe(STYLED, PLAIN)
    for blocked in (layers, smallest):
        assert isinstance(blocked, ExecutionBlocker)
        assert blocked.message.startswith("no effect: the two prompts make hardly any difference here.")
    assert report.startswith(blocked.message)


def test_layers_that_got_the_target_already_make_no_difference_between_the_prompts(probe, demo, inject_in, host):
    """All layers together do, as an unmodified model has it: they are what the shares are of."""
    target = host.nodes.CLIPTextEncode().encode(demo.clip, PLAIN)[0]
    with pytest.raises(ValueError, match="target: .* makes no difference to .* in this model"):
        probe(STYLED, PLAIN, inject_in(demo.model, target, list(range(16))))


@pytest.mark.parametrize("press_at", [3, 12], ids=["in the run", "in the predictions"])
def test_cancel_ends_it_within_one_call_of_the_denoiser(probe, demo, press_at):
    model, calls = demo.model.clone(), []

    def denoise(apply_model, call):
        calls.append(1)
        comfy.model_management.interrupt_current_processing(len(calls) == press_at)
        return apply_model(call["input"], call["timestep"], **call["c"])

    model.set_model_unet_function_wrapper(denoise)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        probe(STYLED, PLAIN, model)
    assert len(calls) == press_at


def test_it_says_how_far_it_is(probe, pack, monkeypatch):
    told = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", lambda text, node_id: told.append(text))
    probe(STYLED, PLAIN)
    first, second, *_ = told
    assert first == "probing the layers: 0%"
    assert second == "probing the layers: 2%"  # after a step to the noise levels


def test_prompts_that_say_the_same_are_refused(probe):
    with pytest.raises(ValueError, match="same"):
        probe(PLAIN, PLAIN)
