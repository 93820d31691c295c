"""What a node says while it works."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    """The lines shown on the node."""
    lines: list[str] = []
    monkeypatch.setattr(pack("nodes.progress"), "show_text", lambda text, node_id: lines.append(text))
    return lines


@pytest.fixture
def plan(pack):
    core, prompts = pack("loco_core.engine"), pack("loco_core.prompts")
    pairs = (prompts.PromptPair("a woodcut", "a picture"),) * 4
    sampling = core.Sampling(20, 7.5, "euler", "normal", 512, 512)
    return pack("loco_core.search").SearchPlan(pairs, (1, 2), "style", 2, sampling)


def test_a_search_says_how_many_images_before_it_makes_any(pack, said, plan):
    pack("nodes.progress").SearchProgress(plan, 16, 32, None)
    assert said == ["128 images: 8 without a change and for each of 15 windows"]


def test_after_the_first_batch_it_says_which_window_and_how_long(pack, said, plan, monkeypatch):
    module = pack("nodes.progress")
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = module.SearchProgress(plan, 16, 32, None)
    progress.on_batch(np.zeros(32), 128, "window 3 of 15 (layers 2-3)", np.zeros((8, 8, 3), np.uint8))
    assert said[-1] == "32 of 128 images, window 3 of 15 (layers 2-3), 2 min left"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (95, "2 min"), (3600, "1 h 0 min")])
def test_durations_are_said_as_people_say_them(pack, seconds, words):
    assert pack("nodes.progress").duration(seconds) == words
