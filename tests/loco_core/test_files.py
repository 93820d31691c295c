"""Files are the old one or the new one, never half of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loco_core.files import replacing, write_picture, write_text


def test_a_file_is_written_into_a_folder_that_is_not_there_yet(tmp_path):
    write_text(tmp_path / "new" / "file.txt", "\u00e9")
    assert (tmp_path / "new" / "file.txt").read_text(encoding="utf-8") == "\u00e9"


def test_a_picture_is_a_png(tmp_path):
    write_picture(tmp_path / "grey.png", np.full((2, 3, 3), 128, np.uint8))
    assert Image.open(tmp_path / "grey.png").size == (3, 2)


def test_after_a_failure_the_old_file_stands_alone(tmp_path):
    write_text(tmp_path / "file.txt", "old")
    with pytest.raises(KeyError), replacing(tmp_path / "file.txt") as unfinished:
        unfinished.write_text("half")
        raise KeyError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file.txt", "old")]


@pytest.fixture
def held_open(monkeypatch) -> set[str]:
    """Names of files that cannot be replaced, as on Windows while another program has them open."""
    names: set[str] = set()
    replace = Path.replace

    def refusing(path: Path, target: Path) -> Path:
        if target.name in names:
            raise PermissionError(13, "Access is denied", str(target))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", refusing)
    return names


def test_a_file_that_is_open_elsewhere_gets_one_name_beside_it_and_is_told_of(tmp_path, held_open, caplog):
    write_text(tmp_path / "images.csv", "old")
    held_open.add("images.csv")
    for text in ("1 image", "2 images"):
        write_text(tmp_path / "images.csv", text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "images.csv": "old",
        "images_2.csv": "2 images",
    }
    assert caplog.messages[-1].endswith("images.csv is open in another program; what belongs there is in images_2.csv")
    held_open.clear()
    write_text(tmp_path / "images.csv", "3 images")
    assert (tmp_path / "images.csv").read_text() == "3 images"


def test_a_file_whose_other_name_is_open_too_gets_a_third(tmp_path, held_open):
    held_open |= {"grey.png", "grey_2.png"}
    write_picture(tmp_path / "grey.png", np.full((2, 3, 3), 128, np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["grey_3.png"]


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path, held_open):
    held_open |= {"file.txt", *(f"file_{number}.txt" for number in range(2, 10))}
    with pytest.raises(PermissionError):
        write_text(tmp_path / "file.txt", "new")
    assert list(tmp_path.iterdir()) == []
