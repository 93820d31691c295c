"""A search through a full-size model: with random weights it finds nothing, but it looks everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

# In one process: two full-size models do not fit into memory.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("full size")]

WINDOWS = 2


@pytest.fixture
def scorer(execute):
    """The demo's small CLIP: it can read any image."""
    return execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")[0]


@pytest.mark.parametrize(("family", "layer_count"), [("sd15", 16), ("sd21", 16), ("sdxl", 70)])
def test_a_search_scores_every_window(execute, scorer, loaded, layer_count, pack, host, monkeypatch):
    # Random weights show no concept.
    monkeypatch.setattr(pack("loco_core.localization.verdict"), "LEAST_EFFECT", float("-inf"))
    layers, _, plot, sheet, report = execute(
        "LoCo_LayerSearch",
        model=loaded.model,
        clip=loaded.clip,
        vae=loaded.vae,
        scorer=scorer,
        effort="exhaustive",
        window_size=layer_count - WINDOWS + 1,
        concept_prompts="a house in the style of Van Gogh",
        target_prompts="a house",
        seed_count=1,
        steps=2,
        cfg=1.0,
        width=64,
        height=64,
        filename_prefix="loco/full_size",
    )
    windows = [list(range(first, first + layer_count - 1)) for first in range(WINDOWS)]
    newest = max(Path(host.folder_paths.get_output_directory()).glob("loco/full_size_*.json"))
    found = json.loads(newest.read_text(encoding="utf-8"))
    assert sorted(found["windows"]) == windows
    assert len(set(found["shares"])) == WINDOWS  # each window's own, and not that of another
    assert list(layers) in windows
    assert 0 <= sheet.min() < sheet.max() <= 1 and plot.ndim == 4
    assert f"style: layers {layers}" in report
