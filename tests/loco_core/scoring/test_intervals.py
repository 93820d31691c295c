from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from loco_core.scoring.intervals import estimate, margin


def test_how_the_pairs_differ_is_no_noise():
    """Two pairs far apart, each the same in all its images: another run with other seeds gives the same."""
    value = estimate(np.array([1.0, 9.0, 1.0, 9.0]), pairs=2)
    assert (value.mean, value.standard_error, value.freedom) == (5.0, 0.0, 2)
    assert (value.low, value.high) == (5.0, 5.0)


def test_with_one_image_of_each_pair_both_count_as_noise():
    value = estimate(np.array([1.0, 9.0]), pairs=2)
    assert value.standard_error == pytest.approx(4.0)
    assert value.freedom == 1


def test_every_pair_weighs_alike_though_one_has_more_images():
    assert estimate(np.array([0.0, 6.0, 0.0]), pairs=2).mean == 3.0


def test_a_single_image_says_nothing_of_its_noise():
    value = estimate(np.array([3.0]), pairs=4)
    assert value.mean == 3.0
    assert np.isnan(value.low) and value.confidence_positive == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "seeds"), [(4, 2), (4, 4), (4, 8), (1, 6)])
@pytest.mark.parametrize("unequal", [False, True])
def test_95_percent_intervals_hold_the_truth_in_92_to_98_percent_of_cases(pairs, seeds, unequal):
    """Pairs that differ by far more than their seeds do. From two seeds, the degrees of freedom are a rough estimate,
    on the careful side where all pairs vary alike.
    """
    random = np.random.default_rng(0)
    offsets, held = np.linspace(0, 100, pairs), 0
    spread = np.where(np.arange(pairs) == 0, 5.0, 1.0) if unequal else np.ones(pairs)
    for _ in range(4000):
        value = estimate((offsets + spread * random.standard_normal((seeds, pairs))).ravel(), pairs)
        held += value.low <= offsets.mean() <= value.high
    assert 0.92 <= held / 4000 <= (0.98 if seeds > 2 else 0.99)


def test_a_margin_on_the_same_images_is_paired():
    value = margin(np.array([5.0, 16.0, 28.0]), np.array([1.0, 11.0, 24.0]), pairs=1)
    assert value.mean == pytest.approx(13 / 3)
    assert value.standard_error == pytest.approx(1 / 3)  # though each of the two varies by 7 and more


def test_a_margin_of_samples_of_different_size_is_welchs():
    first, second = np.array([5.0, 6.0, 9.0, 9.0]), np.array([1.0, 2.0])
    value = margin(first, second, pairs=1)
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert value.mean / value.standard_error == pytest.approx(expected.statistic)
    assert value.freedom == pytest.approx(expected.df)
    assert value.images == 2
