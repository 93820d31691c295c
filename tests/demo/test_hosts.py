"""The demo's jobs on diffusers; `python dev.py demo` runs them in ComfyUI."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("diffusers")

from demo import diffusers_host
from demo.jobs import readings, searches, style_ablation, style_edit, styled_pictures
from demo.judge import load_judge
from demo.world import HELD_OUT_TEMPLATES

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path, monkeypatch):
    quick = diffusers_host.Sampling(6, 2.0, "euler", "linspace", 128, 128)
    monkeypatch.setattr(diffusers_host, "SAMPLING", quick)
    return diffusers_host.DiffusersHost(tmp_path)


def test_a_style_is_found_and_removed_by_an_edit_or_by_ablated_neurons(host, tmp_path):
    found = host.search(searches()["style"])
    assert found["window"] == [8, 9]
    assert found["verdict"] == "localized"
    assert json.loads((tmp_path / "search_style.json").read_text())["layers"] == [8, 9]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"search_style{rest}" for rest in (".json", ".csv", "_map.png", "_images.png")}

    groups = {"pointillism": styled_pictures("pointillism", 1, 2)}
    judge = load_judge()
    changes = (None, style_edit("pointillism"), style_ablation("pointillism"))
    before, edited, ablated = (readings(host, judge, change, groups)["pointillism"] for change in changes)
    assert len(before.images) == 2 * len(HELD_OUT_TEMPLATES)
    assert before.share("style", "pointillism") >= 0.75
    assert max(after.share("style", "pointillism") for after in (edited, ablated)) <= 0.25
