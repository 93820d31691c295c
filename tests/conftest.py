"""Which tests run, and what they run on.

    python -m pytest            # the fast tier
    python -m pytest --all      # the tests marked slow too

The rule: a test is slow if it needs a full-size model or a browser, or if the fast tier (`python dev.py test`) would
take more than a quarter of an hour with it. A slow module says so at its top, `pytestmark = pytest.mark.slow`, a slow
test in its decorator. Slow tests run only with --all, also where a path names them.

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

from host.browser.chromium import NO_PLAYWRIGHT, obstacle  # noqa: E402 - the path is set above
from host.full_size.cache_folder import announcement  # noqa: E402

# What full-size SDXL takes, in bytes: its U-Net in float32, its text towers, what the host needs to load them, and the
# tests that `dev.py test` runs beside.
MEMORY = 20e9
FULL_SIZE = not COMFYUI or importlib.import_module("psutil").virtual_memory().total > MEMORY
DIFFUSERS = importlib.util.find_spec("diffusers") is not None
NO_BROWSER = obstacle(Path(COMFYUI)) if COMFYUI else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    complete = DIFFUSERS and (FULL_SIZE or not config.option.all)
    if not (COMFYUI and complete) and os.environ.get("CI"):
        raise pytest.UsageError(
            "COMFYUI_PATH is not set, diffusers is missing, or memory for full-size models: CI must run all tests"
        )
    if config.option.all and NO_BROWSER == NO_PLAYWRIGHT and (os.environ.get("CI") or os.environ.get("LOCO_BROWSER")):
        raise pytest.UsageError(f"the workflows cannot be tested in the browser: {NO_BROWSER}")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Says what will be written, before it is; xdist's workers have no terminal."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    to_write = announcement() if session.config.option.all and COMFYUI and FULL_SIZE else None
    if terminal and to_write:
        terminal.write_line(to_write, yellow=True)


def pytest_collection_modifyitems(items: list[pytest.Item], config: pytest.Config) -> None:
    if not config.option.all:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_terminal_summary(terminalreporter, exitstatus, config) -> None:
    if COMFYUI is None:
        terminalreporter.write_line(
            "NOT TESTED: everything that needs ComfyUI; set COMFYUI_PATH to its folder", red=True
        )
    if not config.option.all:
        terminalreporter.write_line("NOT TESTED: the tests marked slow; `python dev.py test --all` runs them")
    elif not FULL_SIZE:
        terminalreporter.write_line(
            f"NOT TESTED: full-size models; they take {MEMORY / 1e9:.0f} GB of memory", red=True
        )
    if config.option.all and NO_BROWSER:
        terminalreporter.write_line(f"NOT TESTED: the workflows in a browser; {NO_BROWSER}", red=True)
    if not DIFFUSERS:
        terminalreporter.write_line(
            "NOT TESTED: everything that needs diffusers; `python dev.py test` brings it", red=True
        )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Without a host, a browser, or memory for full-size models, their tests are left out; the summary says so."""
    if not FULL_SIZE and collection_path.name == "full_size":
        return True
    if NO_BROWSER and collection_path.parent.name == "browser":  # so that naming the folder does not run them either
        return True
    return True if COMFYUI is None and collection_path.name in ("host", "nodes") else None
