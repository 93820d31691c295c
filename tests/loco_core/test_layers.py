from __future__ import annotations

import pytest

from loco_core.layers import LayerSet, windows


def test_there_is_a_window_for_every_start_that_fits():
    found = windows(16, 2)
    assert len(found) == 15
    assert found[0].indices == (0, 1)
    assert found[-1].indices == (14, 15)


@pytest.mark.parametrize("size", [0, 17])
def test_a_window_that_does_not_fit_is_an_error_that_names_the_legal_sizes(size):
    with pytest.raises(ValueError, match=f"window size: {size}.*16 layers.*1 to 16"):
        windows(16, size)


def test_layers_are_sorted_and_without_repeats():
    assert LayerSet((9, 8, 9), 16).indices == (8, 9)


def test_layers_print_as_ranges():
    assert str(LayerSet((1, 4, 5, 6, 9), 16)) == "1, 4-6, 9"


def test_layers_that_do_not_exist_are_an_error():
    with pytest.raises(ValueError, match=r"\[16\] do not exist.*0 to 15"):
        LayerSet((3, 16), 16)
