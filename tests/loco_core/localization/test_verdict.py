"""The verdict on made-up effects: 7 windows of two layers, four images each, all layers last."""

from __future__ import annotations

import numpy as np
import pytest

from loco_core.localization.score_table import ScoreTable
from loco_core.localization.verdict import Kind, judge, shows
from loco_core.models.layers import windows

TRIED, (ALL,) = windows(8, 2), windows(8, 8)
FEW = np.array([-0.1, 0.1, -0.1, 0.1])


def table_of(effects: list[float], whole: float, noise: np.ndarray = FEW) -> ScoreTable:
    """`noise`: of all windows alike, [images]; or of each, [windows + 1, images], all layers last."""
    known = dict(zip((*TRIED, ALL), (*effects, whole), strict=True))
    own = dict(zip(known, np.broadcast_to(noise, (len(known), noise.shape[-1])), strict=True))

    def evaluate(cells):
        return np.array([0 if not c.window else known[c.window] + own[c.window][c.image] for c in cells])

    return ScoreTable(evaluate, noise.shape[-1], 1, 8)


def verdict(effects: list[float], whole: float):
    table = table_of(effects, whole)
    table.ask([table.whole, *TRIED])
    return judge(table, TRIED[int(np.argmax(effects))], TRIED, pairs=2)


def concept_shows(whole: float, noise: np.ndarray = FEW) -> bool:
    table = table_of([0] * 7, whole, noise)
    table.ask([table.whole])
    return shows(table, pairs=2)


def test_localized_is_what_has_most_of_the_effect_and_no_second_home():
    found = verdict([0, 0, 0, 10, 20, 10, 0], whole=20)
    assert found.kind is Kind.LOCALIZED
    assert found.rival.margin.mean == pytest.approx(20)
    assert found.rival.margin.images == 4


@pytest.mark.parametrize(
    ("effects", "whole"),
    [
        ([0, 0, 0, 4, 8, 4, 0], 20),  # less than half of what all layers have
        ([0, 6, 0, 10, 20, 10, 0], 26),  # another window, apart from it, has a third of its effect
        ([0, 0, 0, 10, 20, 10, 20], 40),  # another is as good
    ],
)
def test_spread_is_what_is_not_in_one_window(effects, whole):
    assert verdict(effects, whole).kind is Kind.SPREAD


def test_any_window_apart_may_be_the_second_home_not_only_the_one_with_the_largest_mean():
    """The rival's effect is that of two images of 32, the last window's is sure: a third of the best one's."""
    noise = np.zeros((8, 32))
    noise[0, [7, 23]] = 104
    table = table_of([0, 0, 0, 10, 20, 10, 6.4], whole=26, noise=noise)
    table.ask([table.whole, *TRIED])
    found = judge(table, TRIED[4], TRIED[:6], pairs=2)
    assert (found.kind, found.rival.window) == (Kind.LOCALIZED, TRIED[0])
    assert judge(table, TRIED[4], TRIED, pairs=2).kind is Kind.SPREAD


def test_windows_that_share_a_layer_with_the_best_are_no_rivals():
    assert not set(verdict([0, 0, 0, 19, 20, 19, 0], whole=20).rival.window) & {4, 5}


def test_a_clear_concept_shows_and_one_that_makes_no_difference_does_not():
    assert concept_shows(whole=20)
    assert not concept_shows(whole=0)


def test_a_difference_lost_in_noise_does_not_show():
    assert not concept_shows(whole=2, noise=np.array([-9.0, -7.0, 9.0, 7.0]))


def test_a_sure_but_tiny_difference_does_not_show():
    assert not concept_shows(whole=0.3)


@pytest.mark.parametrize(("size", "first"), [(5, 1), (4, 2), (8, 0)])  # over half; in the middle; all layers
def test_a_window_beside_which_no_other_fits_is_not_called_spread(size, first):
    tried = windows(8, size)
    table = ScoreTable(lambda cells: np.array([20.0 * (cell.window is not None) for cell in cells]), 4, 1, 8)
    table.ask([table.whole, *tried])
    found = judge(table, tried[first], tried, pairs=2)
    assert (found.kind, found.rival) == (Kind.NO_RIVAL, None)
    assert found.share == pytest.approx(1)
