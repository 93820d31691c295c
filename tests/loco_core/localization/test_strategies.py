"""Searches on made-up scores: 15 windows, the planted one with an effect, noise that differs between windows."""

from __future__ import annotations

import numpy as np
import pytest

from loco_core.localization.score_table import ScoreTable
from loco_core.localization.strategies import Effort, affordable, exhaustive, quick_steps, race
from loco_core.models.layers import windows

IMAGES = 32
TRIED = windows(16, 2)


def table_of(scores: np.ndarray) -> ScoreTable:
    """[windows, images] of effects."""
    known = dict(zip(TRIED, scores, strict=True))
    return ScoreTable(
        lambda cells: np.array([known[c.window][c.image] if c.window else 0.0 for c in cells]), IMAGES, 5, 1, 16
    )


def made_up(seed: int, effect: float) -> tuple[ScoreTable, int]:
    random = np.random.default_rng(seed)
    planted = int(random.integers(15))
    noise = random.standard_normal((15, IMAGES)) * np.where(np.arange(15) == planted, 1.0, 0.3)[:, None]
    return table_of(effect * np.eye(15)[planted][:, None] + noise), planted


def test_an_exhaustive_search_makes_every_image_of_every_window():
    table, planted = made_up(0, 5.0)
    assert exhaustive(table, TRIED) == TRIED[planted]
    assert table.made == 16 * IMAGES


def test_a_race_for_a_clear_effect_ends_after_the_first_images():
    table, planted = made_up(0, 20.0)
    assert race(table, TRIED, 1e9) == TRIED[planted]
    assert table.made <= 16 * IMAGES / 8


def test_a_race_is_right_nearly_as_often_as_an_exhaustive_search_with_half_the_images():
    """At an effect that exhaustive search finds in nine of ten cases; 200 searches."""
    right, cost = np.zeros(2), 0
    for seed in range(200):
        (full, planted), (raced, _) = made_up(seed, 0.35), made_up(seed, 0.35)
        right += exhaustive(full, TRIED) == TRIED[planted], race(raced, TRIED, 0.5 * full.made) == TRIED[planted]
        cost += raced.made / full.made
    assert right[0] / 200 == pytest.approx(0.9, abs=0.05)
    assert right[1] >= right[0] - 0.03 * 200
    assert cost / 200 <= 0.5 + 0.05  # the last round may go over it by a few images


def test_a_race_gives_no_window_more_images_than_there_are():
    table = table_of(np.zeros((15, IMAGES)))
    race(table, TRIED, 1e9)
    assert max(table.count(window) for window in TRIED) <= IMAGES


def test_a_wanted_fall_of_the_score_is_a_positive_effect():
    table = ScoreTable(lambda cells: np.array([0.0 if c.window else 7.0 for c in cells]), 2, 5, -1, 16)
    table.ask({TRIED[3]: 2})
    assert table.effects(TRIED[3]).tolist() == [7.0, 7.0]


def test_what_is_known_is_not_asked_again():
    asked = []

    def evaluate(cells):
        asked.extend(cells)
        return np.zeros(len(cells))

    table = ScoreTable(evaluate, 4, 5, 1, 16)
    table.ask({TRIED[0]: 2})
    table.ask({TRIED[0]: 3, TRIED[1]: 9})
    assert len(asked) == len(set(asked)) == 3 * 4 - 1
    assert table.made == len(asked)


@pytest.mark.parametrize(("steps", "quick"), [(1, 1), (4, 4), (20, 5), (50, 13)])
def test_short_images_have_a_quarter_of_the_steps_but_enough_to_show_something(steps, quick):
    assert quick_steps(steps) == quick


def test_a_race_costs_a_fifth_of_an_exhaustive_search_at_16_layers_and_a_tenth_at_70():
    assert affordable(Effort.BALANCED, 15, 8) <= 0.2 * 16 * 8
    assert affordable(Effort.BALANCED, 66, 8) <= 0.1 * 67 * 8
    assert affordable(Effort.FAST, 15, 8) < affordable(Effort.BALANCED, 15, 8) < affordable(Effort.EXHAUSTIVE, 15, 8)
