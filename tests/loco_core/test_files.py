"""Files are the old one or the new one, never half of one."""

from __future__ import annotations

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
