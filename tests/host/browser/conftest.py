"""One server for all tests in the browser, ended after them for it holds SDXL, and one page for each rendering."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host.browser.frontend import open_frontend, running_server


@pytest.fixture(scope="module")
def browser_server(tmp_path_factory: pytest.TempPathFactory):
    with running_server(Path(os.environ["COMFYUI_PATH"]), tmp_path_factory.mktemp("comfyui")) as server:
        yield server


@pytest.fixture(scope="module")
def frontend(browser_server, request: pytest.FixtureRequest):
    with open_frontend(browser_server, request.param) as opened:
        yield opened
