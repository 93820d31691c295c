"""Files: written so that a crash leaves the old one or the new one, never half of one; read without pickle.

with replacing(path) as unfinished:
    save_file(tensors, unfinished)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

logger = logging.getLogger(__name__)

# In the names that are tried where another program holds a file open: "images_2.csv" to "images_9.csv".
OTHER_NAMES = range(2, 10)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder, which becomes `path` when all went well and is gone when not.

    Where another program holds `path` open, as spreadsheets do on Windows, the file gets a name beside it and a
    warning says so: hours of work must not be lost to that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    try:
        yield unfinished
        _rename(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _rename(unfinished: Path, path: Path) -> None:
    try:
        unfinished.replace(path)
    except PermissionError:
        for number in OTHER_NAMES:
            other = path.with_name(f"{path.stem}_{number}{path.suffix}")
            with suppress(PermissionError):
                unfinished.replace(other)
                logger.warning("%s is open in another program; what belongs there is in %s", path, other.name)
                return
        raise


def read_safetensors(path: Path, format_name: str) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a .safetensors file; an error where its metadata name another format."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != format_name:
            raise ValueError(f"its format is {metadata.get('format')!r}, not {format_name!r}")
        return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary


def write_text(path: Path, text: str) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as PNG."""
    with replacing(path) as unfinished:
        Image.fromarray(picture).save(unfinished, format="png")
