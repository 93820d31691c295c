"""What a node says while it works."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def said(pack, monkeypatch) -> list[str]:
    """The lines shown on the node."""
    lines: list[str] = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", lambda text, node_id: lines.append(text))
    return lines


def test_it_says_what_is_to_come_before_any_image_is_made(pack, said):
    pack("nodes.host.progress").ImageProgress(128, 20, None, "128 images")
    assert said == ["128 images"]


def test_after_the_first_batch_it_says_what_is_in_work_and_how_long(pack, said, monkeypatch):
    module = pack("nodes.host.progress")
    clock = iter([100.0, 130.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = module.ImageProgress(128, 20, None, "128 images")
    progress.on_batch(32, 128, "window 3 of 15 (layers 2-3)", np.zeros((8, 8, 3), np.uint8))
    assert said[-1] == "32 of 128 images, window 3 of 15 (layers 2-3), 2 min left"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0 s"), (89, "89 s"), (95, "2 min"), (3600, "1 h 0 min")])
def test_durations_are_said_as_people_say_them(pack, seconds, words):
    assert pack("nodes.host.progress").duration(seconds) == words
