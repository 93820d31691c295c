"""A search through a full-size model: with random weights it finds nothing, but it looks everywhere."""

from __future__ import annotations

import pytest

WINDOWS = 2


@pytest.fixture
def scorer(execute):
    """The demo's small CLIP: it can read any image."""
    return execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")[0]


@pytest.mark.parametrize(("family", "layer_count"), [("sd15", 16), ("sd21", 16), ("sdxl", 70)])
def test_a_search_scores_every_window(execute, scorer, loaded, layer_count, pack, monkeypatch):
    monkeypatch.setattr(
        pack("loco_core.search"), "shows", lambda table, pairs: bool(table.ask({table.whole: 1}) or True)
    )
    layers, plot, sheet, report, _ = execute(
        "LoCo_LayerSearch",
        model=loaded.model,
        clip=loaded.clip,
        vae=loaded.vae,
        scorer=scorer,
        window_size=layer_count - WINDOWS + 1,
        seed_count=1,
        steps=2,
        cfg=1.0,
        width=64,
        height=64,
        filename_prefix="loco/full_size",
    )
    assert layers.indices in [tuple(range(first, first + layer_count - 1)) for first in range(WINDOWS)]
    assert 0 <= sheet.min() < sheet.max() <= 1 and plot.ndim == 4
    assert f"style: layers {layers}" in report
