"""What nodes say and show is where they are: in a subgraph that was closed while it ran, and after the page is loaded
again.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

import pytest

from demo.server import ROOT, Server
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
PROBE = ROOT / "workflows" / "Demo 3 - Probe the layers.json"
PICTURES = """() => app.graph.nodes.filter(node => node.type === "LoCo_Probe")
    .flatMap(({ id }) => [...document.querySelectorAll(`[data-node-id="${id}"] img`)].map(({ src }) => src))"""
BOXES = """() => app.graph.nodes.find(node => node.type === "LoCo_Probe").widgets
    .map(({ element }) => element?.style.backgroundImage ?? "").join()"""
# In which the node of the same id as that of GRAPH is of the same type.
OTHER = ROOT / "workflows" / "Demo 5 - Two prompts in one picture.json"
CHOSEN = "layers 8-9, blocks u1.0, u2.0"
# A node that changes the model, between the loader and nothing; then with what takes its model.
INJECT = """() => {
    const [loader, select] = app.graph.nodes;
    const types = ["CLIPTextEncode", "LoCo_ConditioningInjector", "LoCo_LayerSelect"];
    const [prompt, injector, last] = types.map(type => LiteGraph.createNode(type));
    [prompt, injector, last].forEach((node, place) => { app.graph.add(node); node.pos = [400 * place, 500]; });
    loader.connect(1, prompt, 0);
    loader.connect(0, injector, 0);
    prompt.connect(0, injector, 1);
    select.connect(0, injector, 2);
    loader.connect(0, last, 0);
}"""
CONNECT = """() => app.graph.nodes.find(({ type }) => type === "LoCo_ConditioningInjector")
    .connect(0, app.graph.nodes.at(-1), 0)"""
INJECTED = """() => app.graph.nodes.find(({ type }) => type === "LoCo_ConditioningInjector").widgets
    .find(({ name }) => name === "$$node-text-preview")?.value ?? ``"""


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


def test_what_a_node_said_is_on_no_node_of_another_workflow(page):
    page.run()
    wait_for_text(page)
    page.load(OTHER)
    assert page.page.evaluate(SAID) == []


def test_what_a_node_says_while_another_workflow_is_on_the_canvas_is_on_no_node_of_that(page):
    page.page.evaluate("() => { app.queuePrompt(0); }")
    page.load(OTHER)
    assert page.page.evaluate(SAID) == []


def test_a_subgraph_that_was_closed_while_it_ran_shows_the_texts_of_its_nodes_when_it_is_opened(page):
    page.page.evaluate(CLOSE)
    page.run()
    page.page.evaluate(OPEN)
    wait_for_text(page)
    reload(page)
    page.page.evaluate(OPEN)
    wait_for_text(page)


def test_what_was_shown_while_a_node_worked_gives_way_to_its_pictures(page):
    """In classic by the host's pictures of the node, in Nodes 2.0 by what is drawn."""
    page.load(PROBE)
    page.set_widgets({"LoCo_Probe": {"steps": 2, "levels": 2}})
    page.run()
    page.page.wait_for_function("() => !Object.keys(app.nodePreviewImages).length", timeout=10_000)
    page.page.wait_for_timeout(2000)  # of drawing both pictures, if one stayed
    if page.rendering == NODES_2:
        (shown,) = page.page.evaluate(PICTURES)
        assert "/view?filename=" in shown


def test_a_changed_model_that_goes_nowhere_is_told_until_it_is_connected(page):
    page.page.evaluate(INJECT)
    page.run()
    page.page.wait_for_function(f"() => ({INJECTED})().startsWith('WARNING: the model that')", timeout=10_000)
    page.page.evaluate(CONNECT)
    page.page.wait_for_function(f"() => ({INJECTED})().startsWith('layers 8-9 get this prompt')", timeout=10_000)


def test_text_boxes_are_named_in_both_renderings(page):
    page.load(PROBE)
    shown = page.page.content() if page.rendering == NODES_2 else unquote(page.page.evaluate(BOXES))
    name = "concept_prompts" if page.rendering == NODES_2 else ">concept prompts</text>"
    assert name in shown


# Of the text on LoCo Layer Select: how much of it lies below its box, in pixels, and how words are broken.
SHOWN = """() => {
    const text = [...document.querySelectorAll(".break-all")].find(each => each.textContent.startsWith("Stopped."));
    const box = text.closest(".overflow-y-auto"), hidden = box.scrollHeight - box.clientHeight;
    return { text: text.textContent, hidden, breaks: getComputedStyle(text).wordBreak };
}"""


def test_a_mistake_is_on_its_node_as_a_whole_sentence_without_broken_words(server):
    with open_frontend(server, CLASSIC) as page:
        page.page.evaluate(GRAPH)
        page.page.evaluate(
            """() => app.graph.nodes.find(({ type }) => type === "LoCo_LayerSelect").widgets
                .find(({ name }) => name === "layers").value = "abc" """
        )
        page.page.evaluate("() => app.queuePrompt(0)")
        page.page.wait_for_function("() => document.body.textContent.includes('Stopped. layers:')", timeout=30_000)
        page.page.wait_for_timeout(1000)
        shown = page.page.evaluate(SHOWN)
    assert shown["text"].startswith("Stopped. layers: 'abc' is not understood; give indices like")
    assert shown["hidden"] <= 1
    assert shown["breaks"] == "normal"
