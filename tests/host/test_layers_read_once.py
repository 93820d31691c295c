"""A node looks for a model's text layers once, whatever it then does with them, and only where it takes a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from loco_core.models.layers import LayerSet

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
# All but the one that needs a CLIP Vision of the same CLIP; it takes no model.
NODES = sorted({page.stem for page in (ROOT / "web" / "docs").glob("LoCo_*.md")} - {"LoCo_CLIPVisionScorer"})
# Nodes that find or make themselves what they are not given.
ON_THE_SPOT = [("LoCo_EditSolve", "layers"), ("LoCo_NeuronDetect", "layers")]
SETTINGS = {
    "concept": "woodcut",
    "without": "a picture of a star\na picture of a fish",
    "preserve": "",
    "concept_prompts": "a picture of a red star in the style of woodcut",
    "target_prompts": "a picture of a red star",
    "keep_prompts": "a picture of a blue fish in the style of halftone",
    "count": 64,
    "counts": "50%",
    "runs": "16",
    "rounds": 1,
    "seed_count": 1,
    "steps": 4,
    "levels": 2,
    "cfg": 2.0,
    "width": 128,
    "height": 128,
    "batch_rows": 16,
}


@pytest.fixture(scope="module")
def wired(host, execute, demo) -> dict[str, object]:
    """What goes into a socket, by the socket's type."""
    layers = LayerSet((8, 9), 16)
    edit, _ = execute("LoCo_EditSolve", clip=demo.clip, layers=layers, concept=SETTINGS["concept"], preserve="")
    asked = {name: SETTINGS[name] for name in ("concept", "without")}
    return {
        "CLIP": demo.clip,
        "VAE": demo.vae,
        "CONDITIONING": host.nodes.CLIPTextEncode().encode(demo.clip, "a blue fish")[0],
        "LOCO_SCORER": execute("LoCo_CLIPScorer", file="loco_demo_clip.safetensors")[0],
        "LOCO_LAYERS": layers,
        "LOCO_EDIT": edit,
        "LOCO_NEURONS": execute("LoCo_NeuronDetect", model=demo.model, clip=demo.clip, layers=layers, **asked)[0],
    }


@pytest.fixture(scope="module")
def files(execute, demo, wired) -> dict[str, str]:
    """The file that a node loads."""
    images = {name: SETTINGS[name] for name in ("concept_prompts", "target_prompts", "seed_count", "cfg")}
    images |= {"steps": 3, "width": 128, "height": 128, "batch_rows": 16}
    engine = {"model": demo.model, "clip": demo.clip, "vae": demo.vae, "scorer": wired["LOCO_SCORER"]}
    report = execute("LoCo_LayerSearch", **engine, **images)[4]
    saved = {
        "LoCo_EditLoad": execute("LoCo_EditSave", edit=wired["LOCO_EDIT"])[0],
        "LoCo_NeuronLoad": execute("LoCo_NeuronSave", neurons=wired["LOCO_NEURONS"])[0],
    }
    named = {node_id: Path(file).name for node_id, file in saved.items()}
    searched = report.rsplit("saved as ", 1)[1]
    return named | {"LoCo_CLIPScorer": "loco_demo_clip.safetensors", "LoCo_LayersLoad": searched}


@pytest.mark.parametrize(("node_id", "left_out"), [*((node_id, None) for node_id in NODES), *ON_THE_SPOT])
def test_the_layers_of_each_model_are_read_once(
    host, pack, execute, demo, wired, files, monkeypatch, node_id, left_out
):
    unet, read = pack("nodes.host.families.unet"), []
    find_layers = unet.find_layers

    def noted(model):
        read.append(model)
        return find_layers(model)

    monkeypatch.setattr(unet, "find_layers", noted)
    kinds = {socket.id: socket.get_io_type() for socket in host.nodes.NODE_CLASS_MAPPINGS[node_id].GET_SCHEMA().inputs}
    models = {name: demo.model.clone() for name, kind in kinds.items() if kind == "MODEL"}
    given = {name: wired[kind] for name, kind in kinds.items() if kind in wired and name != left_out}
    given |= {name: SETTINGS[name] for name in kinds.keys() & SETTINGS.keys()}
    given |= {"file": files[node_id]} if "file" in kinds else {}
    execute(node_id, **models, **given)
    assert read == list(models.values())
