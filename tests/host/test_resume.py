"""A search whose server is killed goes on where it was when it is queued again."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from demo.comfy_host import inputs, workflow
from demo.server import Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ["COMFYUI_PATH"])
# How often the server is killed. Each time it must start anew, which takes most of the time.
KILLS = int(os.environ.get("LOCO_KILLS", "2"))


def quick_search() -> dict:
    """136 images in batches of 4."""
    graph = workflow("Demo 4 - Find the layers of a style")
    inputs("LoCo_LayerSearch", graph).update(steps=2, seed_count=2, effort="exhaustive", window_size=2, batch_rows=4)
    return graph


def found(server: Server) -> dict:
    return json.loads(max((server.output / "loco").glob("search_*.json")).read_text(encoding="utf-8"))


def scores(result: dict) -> list[float]:
    return [scored["score"] for scored in result["scores"]]


def finished(server: Server) -> int:
    """Images in the journal."""
    batches = (server.output / "loco" / "journals").glob("*/batch_*.npz")
    return sum(len(np.load(batch)["scores"]) for batch in batches)


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict:
    """What a search finds that is left alone."""
    with Server(COMFYUI, tmp_path_factory.mktemp("whole")) as server:
        server.run(quick_search())
        return found(server)


def test_killed_at_random_moments_it_finds_the_same_and_repeats_nothing(expected, tmp_path):
    choose, before = random.Random(0), 0
    for _ in range(KILLS):
        with Server(COMFYUI, tmp_path) as server:
            server.queue(quick_search())
            deadline = time.monotonic() + 120
            while finished(server) == before and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(choose.uniform(0, 1.0))  # a batch takes about a second
            server.kill()
        assert finished(server) > before
        before = finished(server)
    with Server(COMFYUI, tmp_path) as server:
        server.run(quick_search())
        result = found(server)
        log = server.log.read_text(errors="replace")
    assert result["layers"] == expected["layers"]
    assert result["verdict"]["kind"] == expected["verdict"]["kind"]
    assert scores(result) == pytest.approx(scores(expected), abs=1e-4)
    assert f"{before} images of this search are known from before" in log


def test_a_finished_search_asked_again_after_a_restart_makes_no_image(expected, tmp_path):
    """The host drops what it has cached when it ends, and when memory is short."""
    made = 0
    for _ in range(2):
        with Server(COMFYUI, tmp_path) as server:
            server.run(quick_search())
            assert scores(found(server)) == pytest.approx(scores(expected), abs=1e-4)
            assert ("images of this search are known" in server.log.read_text(errors="replace")) == bool(made)
            assert made in (0, finished(server))
            made = finished(server)
