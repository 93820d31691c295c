"""Saved edits: the same when loaded, refused in a sentence when they are anything else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from loco_core.editing.file import load_edit, save_edit
from loco_core.editing.solve import solve_edit
from made_up import encode, recipe, shared_operator


@pytest.fixture
def edit():
    asked = recipe(["woodcut", "a halftone"], preserve=["a cat"], pooled=True)
    return solve_edit(encode, replace(asked, taken=("concept, taken as 2 prompts: x, y",)))


@pytest.fixture
def path(edit, tmp_path):
    save_edit(edit, tmp_path / "edit.safetensors", {"torch": "1"})
    return tmp_path / "edit.safetensors"


def test_a_loaded_edit_is_the_saved_one(edit, path):
    loaded = load_edit(path)
    assert loaded.recipe == edit.recipe
    assert loaded.figures == edit.figures
    assert loaded.width == edit.width
    assert list(loaded.operators) == list(edit.operators)
    for one, other in ((shared_operator(loaded), shared_operator(edit)), (loaded.pooled, edit.pooled)):
        assert torch.equal(one.up, other.up)
        assert torch.equal(one.down, other.down)


def test_the_file_tells_a_reader_without_this_package_how_it_was_made(path):
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["loco_recipe"])
    assert told["pairs"][0] == {"concept": "woodcut", "target": "a painting"}
    assert told["layers"] == [8, 9]
    assert told["settings"]["ridge"] == "relative"
    assert told["text_encoder"] == "a text encoder"
    assert told["taken"] == ["concept, taken as 2 prompts: x, y"]
    assert told["model"] == "a model with 16 cross-attention layers and embeddings 32 wide"
    assert told["width"] == 32


def test_a_failed_save_leaves_nothing_behind(edit, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no space")

    monkeypatch.setattr("loco_core.editing.file.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        save_edit(edit, tmp_path / "edit.safetensors", {})
    assert list(tmp_path.iterdir()) == []


def changed(path, tensors=None, metadata=None, drop=()):
    """Rewrites the file with some tensors or metadata replaced."""
    with safe_open(path, "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys() if key not in drop}  # noqa: SIM118
        told = file.metadata()
    save_file(kept | (tensors or {}), path, metadata=told | (metadata or {}))


def broken(path, kind: str) -> None:
    up = shared_operator(load_edit(path)).up
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["loco_recipe"])
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "no safetensors":
        path.write_bytes(b"PK\x03\x04 a pickle, perhaps")
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "wrong shapes":
        changed(path, {"0.up": up[:, :1].contiguous()})
    elif kind == "larger than it can be":
        changed(path, {"0.up": torch.zeros(4, 9).double(), "0.down": torch.zeros(9, 4).double()})
    elif kind == "half precision":
        changed(path, {"0.up": up.half()})
    elif kind == "NaN":
        changed(path, {"0.up": up * float("nan")})
    elif kind == "no operator":
        changed(path, drop=("0.up", "0.down"))
    elif kind == "one factor":
        changed(path, drop=("0.up",))
    elif kind == "more tensors":
        changed(path, {"../../etc": up})
    elif kind == "an operator for a layer that is not edited":
        changed(path, metadata={"loco_operators": json.dumps({7: 0, 8: 0, 9: 0})})
    elif kind == "a layer without an operator":
        changed(path, metadata={"loco_operators": json.dumps({8: 0})})
    else:
        told |= {
            "layers that no model has": {"layers": [99]},
            "layers of text": {"layers": "../x"},
            "unknown setting": {"settings": told["settings"] | {"tokens": "some"}},
            "a width that is not the operator's": {"width": 16},
            "new setting": {"settings": told["settings"] | {"other": 1}},
            "prompts that are none": {"pairs": [{"concept": 1, "target": None}]},
            "no prompts": {"pairs": []},
        }[kind]
        changed(path, metadata={"loco_recipe": json.dumps(told)})


@pytest.mark.parametrize(
    "kind",
    [
        "truncated",
        "no safetensors",
        "foreign",
        "wrong shapes",
        "larger than it can be",
        "half precision",
        "NaN",
        "no operator",
        "one factor",
        "more tensors",
        "layers that no model has",
        "layers of text",
        "unknown setting",
        "a width that is not the operator's",
        "an operator for a layer that is not edited",
        "a layer without an operator",
        "new setting",
        "prompts that are none",
        "no prompts",
    ],
)
def test_any_other_file_is_refused_in_one_sentence(path, kind):
    broken(path, kind)
    with pytest.raises(ValueError, match="^file: 'edit.safetensors' is not an edit saved by LoCo Edit Save") as refusal:
        load_edit(path)
    assert "\n" not in str(refusal.value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_that_is_not_there_is_refused_alike(tmp_path):
    with pytest.raises(ValueError, match="file: 'none.safetensors' is not an edit"):
        load_edit(tmp_path / "none.safetensors")
