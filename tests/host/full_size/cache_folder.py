"""Where the full-size checkpoints are kept, and how they are removed: `python dev.py test --clean`.

Only files with the names below are removed, for LOCO_FULL_SIZE_CACHE may name a folder that holds other files too.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# A file's size by the name of its family, in GB.
SIZES = {"sd15": 2.1, "sd15_inpainting": 2.1, "sd21": 2.6, "sdxl": 6.9, "sdxl_refiner": 6.1}
# Part of the files' names: raise it with every change of what is in them.
RECIPE = 1

_OURS = re.compile(rf"({'|'.join(SIZES)})_r\d+\.safetensors(\.part)?")


def folder() -> Path:
    return Path(os.environ.get("LOCO_FULL_SIZE_CACHE") or Path.home() / ".cache" / "comfyui-loco" / "full_size")


def checkpoint_path(family: str) -> Path:
    return folder() / f"{family}_r{RECIPE}.safetensors"


def announcement() -> str | None:
    """What is still to be written, and where; None once everything is there."""
    missing = [size for family, size in SIZES.items() if not checkpoint_path(family).exists()]
    if not missing:
        return None
    return (
        f"FULL-SIZE MODELS: up to {sum(missing):.0f} GB will be written to {folder()}, once; "
        "`python dev.py test --clean` removes them"
    )


def clean() -> int:
    """Removes the checkpoints, whole or unfinished, of any recipe; returns the bytes freed."""
    ours = [file for file in folder().glob("*") if _OURS.fullmatch(file.name)]
    freed = sum(file.stat().st_size for file in ours)
    for file in ours:
        file.unlink()
    return freed


if __name__ == "__main__":
    sys.stdout.write(f"{clean() / 1e9:.1f} GB freed in {folder()}\n")
