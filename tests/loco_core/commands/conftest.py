"""Folders of models that commands are given."""

from __future__ import annotations

import pytest

pytest.importorskip("diffusers")

from narrow_pipelines import PIPELINES


@pytest.fixture(params=PIPELINES)
def transformer_folder(request, tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp(request.param)
    PIPELINES[request.param]().save_pretrained(folder)
    return ["--model", str(folder), "--size", "64"]
