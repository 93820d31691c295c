"""Full-size checkpoints in the host of this process: one family in memory at a time, its tests in a row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from host.full_size.cache_folder import folder
from host.full_size.checkpoints import FAMILIES
from host.full_size.measures import Loaded, OneAtATime

HERE = Path(__file__).parent
FLOAT16, LOADER = "loaded_float16", "one_at_a_time"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of a family one after the other, those on weights kept in float16 last: each is loaded once."""
    ours = [place for place, item in enumerate(items) if HERE in item.path.parents]
    order = [*FAMILIES, None]

    def turn(item: pytest.Item) -> tuple[int, bool]:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return order.index(parameters.get("family")), FLOAT16 in item.fixturenames

    for place, item in zip(ours, sorted((items[place] for place in ours), key=turn), strict=True):
        items[place] = item


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """No family is kept in memory after the last test that needs one."""
    if LOADER in item.fixturenames and (nextitem is None or LOADER not in nextitem.fixturenames):
        item.funcargs[LOADER].release()


@pytest.fixture(scope="session")
def one_at_a_time(host):
    host.folder_paths.add_model_folder_path("checkpoints", str(folder()))
    return OneAtATime()


@pytest.fixture
def loaded(one_at_a_time: OneAtATime, family: str) -> Loaded:
    """The family's checkpoint as the stock loader loads it: on a CPU it turns the float16 file to float32."""
    return one_at_a_time(family)


@pytest.fixture
def loaded_float16(one_at_a_time: OneAtATime, family: str) -> Loaded:
    """The same with the U-Net's weights kept in float16, as on a GPU; a CPU computes with each in float32."""
    return one_at_a_time(family, torch.float16)
