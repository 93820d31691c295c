"""ComfyUI's own frontend in headless Chromium, against a real server with the models that the workflows name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from demo.server import ROOT, Server
from host.browser import narrow_models
from host.browser.chromium import chromium

HERE = Path(__file__).parent
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
API = ROOT / "workflows" / "api"
CLASSIC, NODES_2 = "classic", "nodes2"
# Values of the setting Comfy.VueNodes.Enabled.
RENDERINGS = {CLASSIC: False, NODES_2: True}
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
}
# Nodes 2.0 does not keep the images at the node.
IMAGES_SHOWN = """rendering => app.graph.nodes.every(node => node.type !== "SaveImage"
    || (rendering === "classic" ? node.imgs : app.nodeOutputs[node.id]?.images)?.length)"""
WINDOW = {"width": 1600, "height": 900}
ON_CANVAS = """() => app.graph.nodes.map(node => ({
    type: node.type, known: node.type in LiteGraph.registered_node_types,
    left: node.boundingRect[0], top: node.boundingRect[1],
    right: node.boundingRect[0] + node.boundingRect[2], bottom: node.boundingRect[1] + node.boundingRect[3],
}))"""
SET_WIDGETS = """changes => app.graph.nodes.forEach(node => (node.widgets ?? []).forEach(widget => {
    const value = changes[node.type]?.[widget.name];
    if (value !== undefined) widget.value = value;
}))"""


def install_models(folder: Path) -> None:
    """Puts models where a user's are, by the names that the workflows have: narrow ones, and the demo's scorer."""
    narrow_models.install(folder)
    scorer = folder / "models" / "open_clip" / "ViT-B-16"
    scorer.mkdir(parents=True, exist_ok=True)
    clip = ROOT / "demo" / "open_clip" / "loco_demo_clip"
    shutil.copy(clip.with_suffix(".safetensors"), scorer / "open_clip_model.safetensors")
    config = {"model_cfg": json.loads(clip.with_suffix(".json").read_text()), "preprocess_cfg": {}}
    (scorer / "open_clip_config.json").write_text(json.dumps(config))


class Frontend:
    """One page of the frontend: what a person does on it."""

    def __init__(self, page: Page, server: Server, rendering: str) -> None:
        self.page, self.server, self.rendering = page, server, rendering
        server.post("/settings", {**SETTINGS, "Comfy.VueNodes.Enabled": RENDERINGS[rendering]})
        page.goto(server.address)
        page.wait_for_function("() => window.app?.extensionManager && app.graph?.nodes.length", timeout=60_000)

    def load(self, workflow: Path) -> None:
        """Puts the workflow on the canvas and shows all of it."""
        self.page.evaluate("graph => app.loadGraphData(graph)", json.loads(workflow.read_text(encoding="utf-8")))
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        places = None
        while places != (places := self.nodes()):  # they move, and widgets are laid out, for a second or more
            self.page.wait_for_timeout(1000)

    def nodes(self) -> list[dict]:
        """Type and place of every node on the canvas, and whether the frontend knows the type."""
        return self.page.evaluate(ON_CANVAS)

    def zoom(self) -> float:
        return self.page.evaluate("() => app.canvas.ds.scale")

    def links(self) -> int:
        return self.page.evaluate("() => app.graph.links.size")

    def titles(self, node_type: str) -> dict[str, str]:
        """The titles of the nodes of a type, by node id."""
        nodes = self.page.evaluate("() => app.graph.nodes.map(({ id, type, title }) => [String(id), type, title])")
        return {node_id: title for node_id, type_, title in nodes if type_ == node_type}

    def prompt(self) -> dict:
        """The workflow in the API form."""
        return self.page.evaluate("() => app.graphToPrompt().then(({ output }) => output)")

    def set_widgets(self, changes: dict[str, dict]) -> None:
        """Values by node type and widget."""
        self.page.evaluate(SET_WIDGETS, changes)

    def run(self) -> dict:
        """Presses Run and waits for the end; the outputs by node id. A node's error is raised."""
        with self.page.expect_response("**/api/prompt") as answer:
            self.page.evaluate("() => app.queuePrompt(0)")
        outputs = self.server.outputs(answer.value.json()["prompt_id"])
        self.page.wait_for_function(IMAGES_SHOWN, arg=self.rendering, timeout=60_000)
        return outputs

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path)


@contextmanager
def running_server(comfyui: Path, folder: Path) -> Iterator[Server]:
    install_models(folder)
    with Server(comfyui, folder) as server:
        yield server


@contextmanager
def open_frontend(server: Server, rendering: str) -> Iterator[Frontend]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield Frontend(browser.new_page(viewport=WINDOW), server, rendering)
        browser.close()
