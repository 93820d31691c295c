"""A loader that does not find a part in its file gives None for it: every node says what to connect instead."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import pytest
from safetensors.torch import load_file, save_file

from demo.server import ROOT

LOADED = ("MODEL", "CLIP", "VAE", "CLIP_VISION")
# A checkpoint's keys begin so, by part.
PREFIXES = {"clip": "cond_stage_model.", "vae": "first_stage_model."}


@pytest.fixture(scope="module")
def sockets(host) -> list[tuple[str, str, str]]:
    """Node, input and type of every input that a loader's output is connected to."""
    return [
        (node_id, socket.id, socket.get_io_type())
        for node_id, node in host.nodes.NODE_CLASS_MAPPINGS.items()
        if node_id.startswith("LoCo_")
        for socket in node.GET_SCHEMA().inputs
        if socket.get_io_type() in LOADED
    ]


def refusal(execute, node_id: str, **inputs) -> str:
    with pytest.raises(ValueError) as raised:
        execute(node_id, **inputs)
    return str(raised.value)


def test_every_node_names_the_input_for_which_its_loader_found_nothing(execute, sockets):
    assert {kind for *_, kind in sockets} == set(LOADED)
    assert {node_id for node_id, *_ in sockets} > {
        "LoCo_EditSolve",
        "LoCo_NeuronAblate",
        "LoCo_Probe",
    }  # also where it is optional
    for node_id, name, _ in sockets:
        assert refusal(execute, node_id, **{name: None}).startswith(f"{name}: the loader it is connected to found no ")


def test_a_vae_that_holds_no_model_is_as_none(execute, sockets):
    empty = comfy.sd.VAE(sd={})
    for node_id, name, kind in sockets:
        if kind == "VAE":
            assert refusal(execute, node_id, **{name: empty}).startswith("vae: the loader it is connected to found no ")


@pytest.fixture(scope="module")
def checkpoint_without(host, tmp_path_factory):
    """checkpoint_without(part) -> what the host's own loader gives of the demo's checkpoint without that part."""
    folder = tmp_path_factory.mktemp("checkpoints")
    host.folder_paths.add_model_folder_path("checkpoints", str(folder))
    weights = load_file(Path(ROOT) / "demo" / "checkpoints" / "loco_demo.safetensors")

    def load(part: str) -> dict:
        left = {name: weight for name, weight in weights.items() if not name.startswith(PREFIXES[part])}
        save_file(left, folder / f"without_{part}.safetensors")
        loaded = host.nodes.CheckpointLoaderSimple().load_checkpoint(f"without_{part}.safetensors")
        return dict(zip(("model", "clip", "vae"), loaded, strict=True))

    return load


@pytest.mark.parametrize(
    ("part", "advice"),
    [
        ("clip", "clip: the loader it is connected to found no text encoder; connect the CLIP of Load CLIP, or of a"),
        ("vae", "vae: the loader it is connected to found no VAE; connect the VAE of Load VAE, or of a checkpoint"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused_with_what_to_connect(execute, checkpoint_without, part, advice):
    for node_id in ("LoCo_LayerSearch", "LoCo_NeuronSweep", "LoCo_NeuronEffects"):
        assert refusal(execute, node_id, **checkpoint_without(part), scorer=None).startswith(advice)


def test_an_unclip_checkpoint_without_vision_tower_is_refused_with_what_to_connect(execute, demo, host):
    *_, clip_vision = host.nodes.unCLIPCheckpointLoader().load_checkpoint("loco_demo.safetensors")
    message = refusal(execute, "LoCo_CLIPVisionScorer", clip=demo.clip, clip_vision=clip_vision)
    assert message == "clip_vision: the loader it is connected to found no vision tower; connect Load CLIP Vision"


def test_what_is_not_connected_is_not_a_part_that_was_not_found(execute, demo):
    assert refusal(execute, "LoCo_EditSolve", clip=demo.clip).startswith("layers: none are connected")
