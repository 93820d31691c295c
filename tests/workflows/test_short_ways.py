"""The ways to remove a style that need no knowledge of the parts: app pages, and the blueprint of a subgraph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = ["Demo 1 - Remove a concept", "2 Remove a style - SD 1.5", "1 Remove a style - SDXL"]
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.mark.parametrize("name", APPS)
def test_an_app_page_asks_for_the_style_and_shows_images_before_and_after(name):
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    nodes, page = {str(node["id"]): node for node in workflow["nodes"]}, workflow["extra"]["linearData"]
    for node, widget in page["inputs"]:
        assert widget in [socket["name"] for socket in nodes[node]["inputs"] if "widget" in socket]
    assert [widget for _, widget in page["inputs"]] == ["concept", "preserve", "text"]
    assert [nodes[node]["title"] for node in page["outputs"]] == ["Before", "After"]


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_a_blueprint_is_one_node_that_says_what_it_is_for(path):
    blueprint = json.loads(path.read_text(encoding="utf-8"))
    (node,), (subgraph,) = blueprint["nodes"], blueprint["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and node["title"] == subgraph["name"] == path.stem
    assert subgraph["description"] and subgraph["category"] == "loco"
    assert "remove style" in blueprint["extra"]["BlueprintSearchAliases"]


@pytest.mark.parametrize("path", BLUEPRINTS, ids=lambda path: path.stem)
def test_both_ends_of_a_blueprints_links_know_them(path):
    (subgraph,) = json.loads(path.read_text(encoding="utf-8"))["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for link in subgraph["links"]:
        if link["origin_id"] == subgraph["inputNode"]["id"]:
            assert link["id"] in subgraph["inputs"][link["origin_slot"]]["linkIds"]
        else:
            assert link["id"] in nodes[link["origin_id"]]["outputs"][link["origin_slot"]]["links"]
        if link["target_id"] == subgraph["outputNode"]["id"]:
            assert link["id"] in subgraph["outputs"][link["target_slot"]]["linkIds"]
        else:
            assert link["id"] == nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"]
