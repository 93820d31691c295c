"""Whether the workflows can be tested in a browser here."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from importlib import metadata
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
FRONTEND = "comfyui-frontend-package"
NO_CHROMIUM = "no Chromium is installed; LOCO_BROWSER names one"
NO_PLAYWRIGHT = "playwright is not installed; `python dev.py test` brings it"


def chromium() -> str | None:
    """The browser to use: the one that LOCO_BROWSER names, or one that is installed."""
    return os.environ.get("LOCO_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


def obstacle(comfyui: Path) -> str | None:
    """Why the frontend of this ComfyUI cannot be tested, None where it can be."""
    if chromium() is None:
        return NO_CHROMIUM
    if importlib.util.find_spec("playwright") is None:
        return NO_PLAYWRIGHT
    wanted = re.search(rf"^{FRONTEND}==(\S+)", (comfyui / "requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    if wanted and wanted[1] != metadata.version(FRONTEND):
        return f"{FRONTEND} {metadata.version(FRONTEND)} is installed, and this ComfyUI asks for {wanted[1]}"
    return None
