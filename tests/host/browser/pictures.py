"""Writes what the frontend makes of workflows and nodes: COMFYUI_PATH=... python tests/host/browser/pictures.py

For every workflow the API form in workflows/api/, where it has changed, and a picture for the Templates browser: of the
demo's after a run, of those for real checkpoints before one, for no image made here would show what such a checkpoint
does. For every node a picture for its help page, with the values that it begins with.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [os.environ["COMFYUI_PATH"], str(ROOT), str(ROOT / "tests")]

import conftest  # noqa: E402, F401 - sets ComfyUI up
from PIL import Image  # noqa: E402

from host.browser.frontend import API, CLASSIC, WORKFLOWS, Frontend, open_frontend, running_server  # noqa: E402

HELP = ROOT / "web" / "docs"
WINDOW = {"width": 1800, "height": 1300}
# Where the graph begins in the window, right of the sidebar and below the menu.
LEFT, TOP = 120, 120
MARGIN = 20
PLACE = """([scale, left, top]) => {
    const boxes = [...app.graph.groups, ...app.graph.nodes].map(item => item.boundingRect ?? item._bounding);
    const x = Math.min(...boxes.map(box => box[0])), y = Math.min(...boxes.map(box => box[1]));
    const right = Math.max(...boxes.map(box => box[0] + box[2]));
    const bottom = Math.max(...boxes.map(box => box[1] + box[3]));
    const canvas = app.canvas.canvas.getBoundingClientRect();
    app.canvas.ds.scale = scale;
    app.canvas.ds.offset = [(left - canvas.left) / scale - x, (top - canvas.top) / scale - y];
    app.canvas.setDirty(true, true);
    return [(right - x) * scale, (bottom - y) * scale];
}"""
# The id must be new: the frontend keeps the values of widgets by node id.
SHOW_NODE = """([type, id]) => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    node.id = id;
    app.graph.add(node);
    node.setSize([400, node.computeSize()[1]]);
}"""


def picture(frontend: Frontend, scale: float) -> Image.Image:
    """All that is on the canvas."""
    width, height = frontend.page.evaluate(PLACE, [scale, LEFT, TOP])
    frontend.page.wait_for_timeout(500)  # of drawing it
    clip = {"x": LEFT - MARGIN, "y": TOP - MARGIN, "width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
    return Image.open(io.BytesIO(frontend.page.screenshot(clip=clip))).convert("RGB")


def write_workflow(frontend: Frontend, workflow: Path) -> None:
    frontend.load(workflow)
    prompt, api = frontend.prompt(), API / workflow.name
    if not api.is_file() or json.loads(api.read_text(encoding="utf-8")) != prompt:
        api.write_text(json.dumps(prompt, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if workflow.stem.startswith("demo_"):
        frontend.run()
    picture(frontend, 0.6).save(workflow.with_suffix(".jpg"), quality=85)


def write_node(frontend: Frontend, page: Path, number: int) -> None:
    frontend.page.evaluate(SHOW_NODE, [page.stem, 1000 + number])
    frontend.page.wait_for_timeout(500)  # of drawing it, which says how large it is
    picture(frontend, 1.0).quantize(256).save(page.with_suffix(".png"), optimize=True)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(Path(os.environ["COMFYUI_PATH"]), Path(folder)) as server,
        open_frontend(server, CLASSIC) as frontend,
    ):
        frontend.page.set_viewport_size(WINDOW)
        for workflow in WORKFLOWS:
            write_workflow(frontend, workflow)
        for number, page in enumerate(sorted(HELP.glob("*.md"))):
            write_node(frontend, page, number)


if __name__ == "__main__":
    main()
