"""The blueprint as a person uses it: searched for, put on an empty canvas, connected, and run on the demo model."""

from __future__ import annotations

import json

import pytest

from demo.server import ROOT
from host.browser.frontend import CLASSIC, NODES_2

pytestmark = pytest.mark.slow

NAME = "Remove a Style (LoCo)"
# What the demo model knows, in place of what the blueprint begins with.
VALUES = {"concept": "woodcut", "preserve": "a picture of a red star\na picture of a blue fish\nhalftone"}
CONNECT = """([checkpoint, values]) => {
    const [blueprint] = app.graph.nodes;
    const [loader, preview] = ["CheckpointLoaderSimple", "PreviewAny"].map(type => LiteGraph.createNode(type));
    for (const node of [loader, preview]) app.graph.add(node);
    loader.widgets[0].value = checkpoint;
    for (const widget of blueprint.widgets) widget.value = values[widget.name];
    loader.connect(0, blueprint, "model");
    loader.connect(1, blueprint, "clip");
    blueprint.connect(blueprint.findOutputSlot("report"), preview, 0);
    return preview.id;
}"""
# What the closed blueprint says on its node, and what is saved of it.
SAID = 'app.graph.nodes[0].widgets.find(({ name }) => name === "$$node-text-preview")?.value'
SAVED = "app.graph.nodes[0].serialize().widgets_values"


@pytest.mark.parametrize("frontend", [CLASSIC, NODES_2], indirect=True)
def test_the_blueprint_is_found_by_its_deed_and_removes_a_style(frontend):
    page = frontend.page
    page.evaluate("() => { app.graph.clear(); app.graph.id = crypto.randomUUID(); }")  # as a new one has
    page.wait_for_timeout(1500)  # of starting
    page.mouse.dblclick(800, 500)
    page.wait_for_timeout(1500)  # of opening the search
    page.keyboard.type("remove style")
    page.get_by_test_id("result-item").filter(has_text=NAME).first.click()
    page.mouse.click(800, 500)
    page.wait_for_function("() => app.graph.nodes.length === 1")
    preview = page.evaluate(CONNECT, ["loco_demo.safetensors", VALUES])
    (report,) = frontend.run()[str(preview)]["text"]
    assert report.startswith("gone: ") and 'layers 8-9 respond to "woodcut" as to "a painting"' in report
    said = page.wait_for_function(SAID).json_value()
    assert said.count(report.split("\n")[0]) == said.count("layers 8-9 respond to") == 1
    assert page.evaluate(SAVED) == list(VALUES.values())  # what it says is not a value of the workflow


def test_the_nodes_of_the_blueprint_have_the_inputs_that_it_knows(browser_server):
    known = browser_server.get("/object_info")
    blueprint = json.loads((ROOT / "subgraphs" / f"{NAME}.json").read_text(encoding="utf-8"))
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    for node in subgraph["nodes"]:
        inputs = known[node["type"]]["input"]
        assert {socket["name"] for socket in node["inputs"]} == {*inputs["required"], *inputs.get("optional", {})}
