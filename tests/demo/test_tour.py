"""The demo's tour and whole programme with a host that draws what it should make, and the progress line."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from demo import programme, tour
from demo.jobs import FACT_TARGETS, Change, Edit, LoRA, NeuronAblation, Picture, Search
from demo.judge import load_judge
from demo.page import write_page
from demo.progress import Progress, clock
from demo.world import COUNTRIES, NONE, STYLES, Scene, draw


class DrawingHost:
    """Draws the pictures; after a change, what a perfect one would leave."""

    name = "a host that draws"

    def __init__(self, output: Path) -> None:
        self._output = output

    def search(self, search: Search) -> dict:
        saved = {
            "layers": [8, 9],
            "layer_count": 16,
            "verdict": {"text": "localized: layers 8-9"},
            "windows": [[7, 8], [8, 9]],
            "shares": [-0.02, 1.01],
        }
        (self._output / f"search_{search.attribute}.json").write_text(json.dumps(saved))
        return {"window": [8, 9], "verdict": "localized", "text": "localized: layers 8-9"}

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        images = [
            draw(changed(picture.scene, change), np.random.default_rng(picture.seed + copy))
            for picture in pictures
            for copy in range(picture.count)
        ]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255

    def save_lora(self, edit: Edit) -> Path:
        file = self._output / "lora.safetensors"
        file.write_bytes(bytes(12_000))
        return file


class BlankHost(DrawingHost):
    """Makes blank pictures, where what they show does not matter."""

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        return torch.zeros(sum(picture.count for picture in pictures), 3, 128, 128)


def changed(scene: Scene, change: Change | None) -> Scene:
    if isinstance(change, LoRA):
        return replace(scene, style=NONE)
    if isinstance(change, Edit | NeuronAblation) and change.concept == scene.style:
        return replace(scene, style=NONE)
    if isinstance(change, Edit) and scene.country and scene.country in change.concept:
        return replace(scene, country=FACT_TARGETS[scene.country])
    return scene


@pytest.fixture
def progress() -> Progress:
    return Progress(io.StringIO())


def test_the_page_shows_the_pictures_and_the_judges_figures(tmp_path, progress):
    seen = tour.tour(DrawingHost(tmp_path), load_judge(), progress, tmp_path)
    page = write_page(tmp_path, seen, "a host that draws", "2:40")
    html = page.read_text(encoding="utf-8")

    assert page == tmp_path / "index.html"
    figures = re.findall(r"<dd>(\d+) &rarr; (\d+) <small>of (\d+)", html)
    assert figures == [("12", "0", "12"), ("10", "10", "10"), ("22", "22", "22"), ("0", "6", "6"), ("6", "6", "6")]
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(pictures) == len(set(pictures)) == 3 * 6 + 2 * 5 + 2 * 6 + 2 * 6
    assert all((tmp_path / name).is_file() for name in pictures)
    assert not re.search(r'(src|href)="(/|\w+:)', html), "it is to be moved as a folder, and asks no network"
    assert "layers 8-9 of 16" in html and "12 kB" in html and "2:40" in html
    assert html.count('class="found"') == 2
    assert "Removed: pointillism was in 12 of 12 pictures, now it is in 0." in progress._stream.getvalue()


def test_the_tour_announces_as_many_images_as_it_makes(tmp_path, progress, monkeypatch):
    begun = []
    monkeypatch.setattr(progress, "begin", lambda title, images=0.0: begun.append(images))
    tour.tour(BlankHost(tmp_path), load_judge(), progress, tmp_path)
    assert sum(begun) == tour.IMAGES


@pytest.mark.slow
def test_the_whole_programme_has_the_keys_of_its_summary(tmp_path, progress, monkeypatch):
    begun = []
    monkeypatch.setattr(progress, "begin", lambda title, images=0.0: begun.append(images))
    summary = programme.Programme(BlankHost(tmp_path), load_judge(), progress, tmp_path).run()

    assert sum(begun) == programme.IMAGES
    assert set(summary) == {"host", "search", "edit", "ablate", "edit_fact", "seconds"}
    assert set(summary["seconds"]) == {"search", "edit", "ablate"}
    assert {name: set(found) for name, found in summary["search"].items()} == {
        name: {"window", "verdict", "text"} for name in ("object", "fact", "style")
    }
    kept = {"other_styles_before", "other_styles_after", "objects_before", "objects_after"}
    for key in ("edit", "ablate"):
        assert list(summary[key]) == list(STYLES)
        assert all(set(row) == {"judge_before", "judge_after", "none_after", *kept} for row in summary[key].values())
    facts = {"judge_before", "new_fact", "other_facts_before", "other_facts_after"}
    assert list(summary["edit_fact"]) == list(COUNTRIES)
    assert all(set(row) == facts for row in summary["edit_fact"].values())
    assert len(list(tmp_path.glob("before_after_*.png"))) == 2 * len(STYLES) + len(COUNTRIES)
    assert "pointillism" in programme.table(json.loads(json.dumps(summary)))


def test_the_line_says_what_is_done_how_far_it_is_and_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("demo.progress.time.monotonic", lambda: now[0])
    progress = Progress(io.StringIO())
    progress.begin("starting")
    now[0] = 10.0
    assert progress.line() == "0:10  starting"
    progress.expect(40)
    progress.begin("searching", 30)
    now[0] = 40.0
    progress.share(1 / 3)
    assert progress.line() == "0:40  [######------------------]  25%  searching, about 1:30 left"
    progress.begin("pictures", 10)
    progress.share(1.0)
    assert progress.line() == "0:40  [########################] 100%  pictures"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (65, "1:05"), (3600, "60:00")])
def test_a_clock(seconds, words):
    assert clock(seconds) == words


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_the_line_is_rewritten_and_what_was_said_stays(monkeypatch):
    monkeypatch.setattr("demo.progress.TICK", 0.01)
    terminal = Terminal()
    with Progress(terminal) as progress:
        progress.begin("searching")
        while terminal.getvalue().count("searching") < 3:
            pass
        progress.say("Found: layers 8-9")
    assert terminal.getvalue().count("\n") == 1
    assert "\rFound: layers 8-9\n" in terminal.getvalue()
