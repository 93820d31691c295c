"""Writes what the frontend makes of workflows and nodes: COMFYUI_PATH=... python tests/host/browser/pictures.py

For every workflow the API form in workflows/api/, where it has changed, and a cover for the Templates browser: what it
does, in large letters, above its pictures before and after, or its map. Of those for real checkpoints the cover shows
the graph, for no image made here would show what such a checkpoint does. For every node a picture for its help page,
with the values that it begins with.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [os.environ["COMFYUI_PATH"], str(ROOT), str(ROOT / "tests")]

import conftest  # noqa: E402, F401 - sets ComfyUI up
from PIL import Image, ImageDraw, ImageFont, ImageOps  # noqa: E402

from host.browser.frontend import API, CLASSIC, WORKFLOWS, Frontend, open_frontend, running_server  # noqa: E402

HELP = ROOT / "web" / "docs"
WINDOW = {"width": 1800, "height": 1300}
# Where the graph begins in the window, right of the sidebar and below the menu.
LEFT, TOP = 120, 120
MARGIN = 20
# Pixels of a cover, its colours, and the place of its pictures. The Templates browser shows it at a third of the size.
COVER, PAPER, INK, DIM = (720, 480), "#20222a", "#ffffff", "#9aa0ad"
BAND = 130
EDGED = {"stroke_width": 4, "stroke_fill": PAPER}
# "1 Remove a style - SDXL", "Demo 1 - Remove a concept".
NAME = re.compile(r"\d+ (?P<does>.+) - (?P<model>.+)|(?P<demo>Demo) \d+ - (?P<shows>.+)")
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
    name = NAME.fullmatch(workflow.stem)
    if name["demo"]:
        outputs, titles = frontend.run(), frontend.titles("SaveImage")
        shown = {title: frontend.server.images(outputs[node]["images"])[0] for node, title in titles.items()}
        made = [Image.open(path).convert("RGB") for title, path in shown.items() if title in ("Before", "After")]
        made = made or [Image.open(next(iter(shown.values()))).convert("RGB")]
    else:
        made = [picture(frontend, 0.6)]
    cover(name["does"] or name["shows"], name["model"] or "demo model", made).save(
        workflow.with_suffix(".jpg"), quality=90
    )


def cover(does: str, model: str, pictures: list[Image.Image]) -> Image.Image:
    """What a workflow does, above its one picture, or those before and after."""
    sheet, width = Image.new("RGB", COVER, PAPER), COVER[0] // len(pictures)
    pen = ImageDraw.Draw(sheet)
    pen.text((24, 16), does, fill=INK, font=ImageFont.load_default(44))
    pen.text((24, 76), model, fill=DIM, font=ImageFont.load_default(32))
    room = width - 24, COVER[1] - BAND - 16
    for number, shown in enumerate(pictures):
        fitted = ImageOps.contain(shown, room)
        sheet.paste(fitted, (number * width + (width - fitted.width) // 2, BAND))
        if len(pictures) > 1:
            label = ("before", "after")[number]
            pen.text((number * width + 32, COVER[1] - 60), label, fill=INK, font=ImageFont.load_default(32), **EDGED)
    return sheet


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
