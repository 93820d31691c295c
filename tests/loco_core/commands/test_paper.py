"""`python -m loco_core paper`: the paper's table, repeated on a model."""

from __future__ import annotations

import csv
import json
import re

import pytest

pytest.importorskip("diffusers")

from loco_core.commands import app as command_line
from loco_core.commands import paper, trace
from loco_core.models.layers import LayerSet

PAPER = ["paper", "--steps", "2", "--seeds", "1", "--rows", "32", "--only", "Van Gogh", "--only", "snoopy"]


@pytest.mark.slow
def test_the_papers_concepts_are_searched_for_and_set_beside_the_papers_layers(tmp_path, monkeypatch, capsys):
    found = LayerSet((8, 9), 16)
    monkeypatch.setattr(paper, "paper_layers", lambda layers, attribute: found if attribute == "style" else None)
    assert command_line.main([*PAPER, "--exhaustive", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    style, thing = table["rows"]
    assert (style["concept"], style["paper"]) == ("Van Gogh", [8, 9])
    assert (thing["concept"], thing["paper"], thing["probe"]["overlaps_paper"]) == ("snoopy", None, None)
    own = style["probe"]
    assert own["overlaps_paper"] is (bool({8, 9} & set(own["layers"])) if own["layers"] else None)
    assert thing["exhaustive"]["verdict"] == "no effect"  # the demo model knows no Snoopy
    with (tmp_path / "table.csv").open() as file:
        assert [line["probe verdict"] for line in csv.DictReader(file)] == [
            row["probe"]["verdict"] for row in table["rows"]
        ]
    assert all(row["probe"]["verdict"] in told for row in table["rows"])


@pytest.mark.slow
def test_the_papers_page_shows_the_pictures_of_every_search_and_asks_no_network(tmp_path):
    assert command_line.main([*PAPER, "--out", str(tmp_path)]) == 0
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="([^"]+)"', html)
    assert len(set(pictures)) == 2 * 2
    assert all((tmp_path / name).is_file() for name in pictures)
    assert not re.search(r'(src|href)="(/|\w+:)', html), "it is to be moved as a folder"


@pytest.mark.slow
def test_a_concept_of_the_paper_is_not_searched_again_unless_the_settings_are_others(tmp_path, monkeypatch):
    searched = []

    def counted(workshop, plan, out):
        searched.append(out.relative_to(tmp_path).as_posix())
        return trace.find(workshop, plan, out)

    monkeypatch.setattr(paper, "find", counted)
    asked = [*PAPER[:-2], "--out", str(tmp_path)]
    assert command_line.main(asked) == 0
    assert command_line.main(asked) == 0
    assert searched == ["style_van_gogh/probe"]
    assert command_line.main([*asked, "--seed", "1"]) == 0
    assert len(searched) == 2


@pytest.mark.slow
def test_the_papers_concepts_are_searched_for_in_sd3_and_flux_of_which_it_names_no_layers(tmp_path, transformer_folder):
    assert command_line.main([*PAPER[:-2], *transformer_folder, "--out", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert (row["concept"], row["paper"]) == ("Van Gogh", None)
    assert row["probe"]["verdict"]
