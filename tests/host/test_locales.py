"""The translations of what nodes are called and do: complete, and of nodes that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

LOCALES = Path(__file__).resolve().parents[2] / "locales"
# How a language quotes the name of another node.
QUOTED = {"zh": "“([^”]+)”", "ja": "「([^」]+)」"}
OURS = re.compile("LoCo ")

every_language = pytest.mark.parametrize("language", QUOTED)


def translated(language: str) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


@every_language
def test_every_node_has_a_name_and_a_description(host, language):
    ours = {name for name in host.nodes.NODE_CLASS_MAPPINGS if name.startswith("LoCo_")}
    nodes = translated(language)
    assert nodes.keys() == ours
    assert all(node["display_name"] and node["description"] for node in nodes.values())


@every_language
def test_nodes_name_each_other_as_they_are_called(language):
    nodes = translated(language)
    names = {node["display_name"] for node in nodes.values()}
    quoted = {name for node in nodes.values() for name in re.findall(QUOTED[language], node["description"])}
    assert {name for name in quoted if OURS.match(name)} <= names


@every_language
def test_inputs_that_are_translated_exist(host, language):
    for node_id, node in translated(language).items():
        schema = host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA()
        assert node.get("inputs", {}).keys() <= {socket.id for socket in schema.inputs}
