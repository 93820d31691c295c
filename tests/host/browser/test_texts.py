"""What nodes say is where they are: in a subgraph that was closed while it ran, and after the page is loaded again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from demo.server import Server
from host.browser.frontend import CLASSIC, NODES_2, Frontend, open_frontend

pytestmark = pytest.mark.slow

# A graph of one checkpoint and one node that says which layers it has chosen.
GRAPH = """() => {
    app.graph.clear();
    app.graph.id = crypto.randomUUID();
    const [loader, select] = ["CheckpointLoaderSimple", "LoCo_LayerSelect"].map(type => LiteGraph.createNode(type));
    [loader, select].forEach(node => app.graph.add(node));
    loader.pos = [0, 0];
    select.pos = [500, 0];
    loader.widgets.find(widget => widget.name === "ckpt_name").value = "loco_demo.safetensors";
    loader.connect(0, select, 0);
}"""
CLOSE = """() => {
    const select = app.graph.nodes.find(node => node.type === "LoCo_LayerSelect");
    app.graph.convertToSubgraph(new Set([select]));
}"""
OPEN = """() => {
    const node = app.graph.nodes.find(node => node.subgraph);
    app.canvas.openSubgraph(node.subgraph, node);
}"""
SAID = """() => app.canvas.graph.nodes.filter(node => node.type === "LoCo_LayerSelect")
    .flatMap(node => node.widgets.filter(({ name }) => name === "$$node-text-preview")).map(({ value }) => value)"""
CHOSEN = "layers 8-9: u1.0, u2.0"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    with Server(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(params=[CLASSIC, NODES_2])
def page(server, request):
    with open_frontend(server, request.param) as opened:
        opened.page.evaluate(GRAPH)
        yield opened


def reload(page: Frontend) -> None:
    """Loads the page again, once the frontend has kept the workflow as a draft."""
    page.page.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()")
    page.page.wait_for_timeout(2000)
    page.page.reload()
    page.page.wait_for_function("() => window.app?.extensionManager && app.graph?.nodes.length === 2", timeout=60_000)


def wait_for_text(page: Frontend) -> None:
    page.page.wait_for_function(f"() => ({SAID})()[0] === '{CHOSEN}'", timeout=10_000)


def test_a_text_is_on_its_node_after_the_run_and_after_the_page_is_loaded_again(page):
    assert page.page.evaluate(SAID) == []
    page.run()
    wait_for_text(page)
    reload(page)
    wait_for_text(page)


def test_a_subgraph_that_was_closed_while_it_ran_shows_the_texts_of_its_nodes_when_it_is_opened(page):
    page.page.evaluate(CLOSE)
    page.run()
    page.page.evaluate(OPEN)
    wait_for_text(page)
    reload(page)
    page.page.evaluate(OPEN)
    wait_for_text(page)
