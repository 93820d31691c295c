"""Names of concepts from a text file in ComfyUI's input folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loco_core.models.layers import LayerSet


@pytest.fixture(scope="module")
def solve(execute, demo):
    """solve(concept) -> (edit, report) of LoCo Edit Solve."""
    layers = LayerSet((8, 9), 16)
    return lambda concept: execute("LoCo_EditSolve", clip=demo.clip, layers=layers, concept=concept, preserve="")


@pytest.fixture(scope="module", autouse=True)
def folder(host) -> Path:
    """The input folder."""
    found = Path(host.folder_paths.get_input_directory())
    found.mkdir(exist_ok=True)
    return found


def test_the_names_of_many_concepts_come_from_a_text_file_in_the_input_folder(folder, solve):
    (folder / "styles.txt").write_text("woodcut\nnames: halftone, blueprint\n", encoding="utf-8")
    _, report = solve("file: styles.txt")
    assert 'concept, taken as 3 names: "woodcut", "halftone", "blueprint"' in report


@pytest.mark.parametrize("file", ["missing.txt", "../outside.txt", "/etc/hostname"])
def test_a_text_file_that_is_not_in_the_input_folder_is_refused(folder, solve, file):
    folder.parent.joinpath("outside.txt").write_text("woodcut", encoding="utf-8")
    with pytest.raises(ValueError, match="is not in ComfyUI's input folder; put the text file there"):
        solve(f"file: {file}")


def test_a_list_of_names_that_is_no_text_is_refused(folder, solve):
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00woodcut")
    with pytest.raises(ValueError, match="'binary.txt' is not a text file in UTF-8"):
        solve("file: binary.txt")


def test_an_edit_is_solved_anew_when_its_text_file_has_changed(host, folder):
    (folder / "changing.txt").write_text("woodcut", encoding="utf-8")
    node = host.nodes.NODE_CLASS_MAPPINGS["LoCo_EditSolve"]
    before = node.fingerprint_inputs(concept="file: changing.txt")
    os.utime(folder / "changing.txt", (1, 1))
    assert node.fingerprint_inputs(concept="file: changing.txt") != before
    assert node.fingerprint_inputs(concept="woodcut") == []
