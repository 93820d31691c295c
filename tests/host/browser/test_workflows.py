"""Every workflow in ComfyUI's own frontend: loaded, converted to the API form, and run.

Those for real checkpoints run on narrow models by the same file names, with fewer and smaller images and fewer prompts;
tests/loco_core/test_workflows.py reads the prompts they are saved with. A picture of each is left in screenshots/.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from demo.server import Server
from host.browser.frontend import API, CLASSIC, HERE, NODES_2, WORKFLOWS, Frontend

pytestmark = pytest.mark.slow

QUICK_IMAGES = {"seed_count": 1, "steps": 2, "width": 64, "height": 64, "batch_rows": 32}
STYLED = "a house in the style of Van Gogh"
ONE_PROMPT = {"concept_prompts": STYLED, "target_prompts": "a house"}
# Values of widgets, by node, that make a workflow run in seconds on a CPU.
QUICK = {
    "KSampler": {"steps": 2},
    "EmptyLatentImage": {"width": 64, "height": 64, "batch_size": 2},
    "EmptySD3LatentImage": {"width": 64, "height": 64, "batch_size": 2},
    "LoCo_EditSolve": {"preserve": "a photo of a cat", "settings": "by hand", "size": 64},
    "LoCo_Remove": {"preserve": "a cat", "size": 64},
    "LoCo_NeuronAblate": {"count": 64, "size": 64},
    # No name, and no prompt beside itself in the style: where that is is measured in images of the model's own size.
    "LoCo_NeuronDetect": {"concept": f"{STYLED}\na cat in the style of Van Gogh", "without": "a dog\na boat"},
    "LoCo_LayerSearch": {**QUICK_IMAGES, **ONE_PROMPT, "steps": 1},
    "LoCo_ErasureReport": {**QUICK_IMAGES, **ONE_PROMPT, "keep_prompts": "a house"},
}
# For the demo model, which must show the style: what needs its layers does not run without.
QUICK_DEMO = QUICK | {"LoCo_LayerSearch": {"seed_count": 1, "steps": 5}, "LoCo_EditSolve": {}, "LoCo_Remove": {}}
# For the narrow Flux, which has fewer double blocks than the published one.
QUICK_FLUX = QUICK | {"LoCo_LayerSelect": {"layers": "double 1-2"}}

# Below a zoom of 0.57 the classic rendering draws no text.
READABLE = 0.6

# Nodes that show what they showed while they worked, though they have made pictures of their own.
HALF_DONE = """() => app.graph.nodes.filter(({ id, type }) =>
    type.startsWith("LoCo_") && app.nodeOutputs[id]?.images && app.nodePreviewImages[id]).map(({ type }) => type)"""

DEMOS = [path for path in WORKFLOWS if path.stem.startswith("Demo ")]
every_workflow = pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
classic = pytest.mark.parametrize("frontend", [CLASSIC], indirect=True)
both_renderings = pytest.mark.parametrize("frontend", [CLASSIC, NODES_2], indirect=True)


def overlapping(nodes: list[dict]) -> list[tuple[str, str]]:
    """The pairs of nodes of which one covers a part of the other."""
    return [
        (one["type"], other["type"])
        for one, other in combinations(nodes, 2)
        if one["left"] < other["right"]
        and other["left"] < one["right"]
        and one["top"] < other["bottom"]
        and other["top"] < one["bottom"]
    ]


@both_renderings
@every_workflow
def test_a_workflow_loads_and_converts_to_its_api_form(frontend, workflow: Path):
    frontend.load(workflow)
    nodes = frontend.nodes()
    assert [node["type"] for node in nodes if not node["known"]] == []
    assert frontend.links() == len(json.loads(workflow.read_text(encoding="utf-8"))["links"])
    assert overlapping(nodes) == []
    assert frontend.zoom() >= READABLE
    assert frontend.prompt() == json.loads((API / workflow.name).read_text(encoding="utf-8"))
    frontend.screenshot(HERE / "screenshots" / f"{workflow.stem}_{frontend.rendering}.png")


@classic
@every_workflow
def test_a_workflow_runs_to_images(frontend, browser_server, workflow: Path):
    run_to_images(frontend, browser_server, workflow)


@pytest.mark.parametrize("frontend", [NODES_2], indirect=True)
@pytest.mark.parametrize("workflow", DEMOS, ids=lambda path: path.stem)
def test_a_demo_runs_to_images_in_nodes_2(frontend, browser_server, workflow: Path):
    run_to_images(frontend, browser_server, workflow)


def run_to_images(frontend: Frontend, browser_server: Server, workflow: Path) -> None:
    """Nodes grow to hold what they show, and cover no other then."""
    frontend.load(workflow)
    frontend.set_widgets(QUICK_DEMO if workflow in DEMOS else QUICK_FLUX if "Flux" in workflow.stem else QUICK)
    outputs = frontend.run()
    savers = [key for key, node in frontend.prompt().items() if node["class_type"] == "SaveImage"]
    saved = [Image.open(file) for key in savers for file in browser_server.images(outputs[key]["images"])]
    assert len({image.tobytes() for image in saved}) == len(saved) > 0  # before and after differ, also by seed
    frontend.page.wait_for_timeout(1000)  # of drawing the images
    frontend.screenshot(HERE / "screenshots" / f"{workflow.stem}_{frontend.rendering}_run.png")
    assert overlapping(frontend.nodes()) == []
    assert frontend.page.evaluate(HALF_DONE) == []
