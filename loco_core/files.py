"""Writing files so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, which becomes `path` when all went well and is gone when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG."""
    with replacing(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="png")
