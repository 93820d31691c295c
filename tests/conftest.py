"""Puts the real ComfyUI and loco_core within reach of the tests.

ComfyUI's folder comes first on the path, for it has a top-level module `nodes`; the pack's root comes last.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMFYUI = os.environ.get("COMFYUI_PATH") or None

sys.path += [str(ROOT), str(ROOT / "tests")]
if COMFYUI:
    sys.path.insert(0, COMFYUI)
    from comfy.cli_args import args

    args.cpu = True
    args.use_pytorch_cross_attention = True
    import utils.extra_config  # noqa: F401 - before `nodes`, or the host's `utils` is not found


DIFFUSERS = importlib.util.find_spec("diffusers") is not None


def pytest_configure(config: pytest.Config) -> None:
    if not (COMFYUI and DIFFUSERS) and os.environ.get("CI"):
        raise pytest.UsageError("COMFYUI_PATH is not set, or diffusers is missing: CI must run all tests")


def pytest_terminal_summary(terminalreporter, exitstatus, config) -> None:
    if COMFYUI is None:
        terminalreporter.write_line(
            "NOT TESTED: everything that needs ComfyUI; set COMFYUI_PATH to its folder", red=True
        )
    if not DIFFUSERS:
        terminalreporter.write_line(
            "NOT TESTED: everything that needs diffusers; `python dev.py test` brings it", red=True
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a host, its tests are left out, and the summary says so."""
    return True if COMFYUI is None and collection_path.name in ("host", "nodes") else None
