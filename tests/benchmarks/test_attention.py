"""What is told of two rankings beside the planted truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers")

from benchmarks.attention import Ranked, places, summary

FOUND = Ranked("woodcut", (6, 7), (1, 2), (1, 3), 0.5, 100, 5, (), ())


def test_places_count_from_1_for_the_largest():
    assert places(np.array([0.1, 0.7, 0.0, 0.9]), (1, 3)) == (1, 2)
    assert places(np.array([0.1, 0.7, 0.0, 0.9]), (0, 2)) == (3, 4)


def test_a_ranking_is_right_by_its_best_block_and_by_all_that_were_planted():
    figures = summary([FOUND, replace(FOUND, places_by_attention=(2, 3), agreement=0.7)])
    assert figures["by_share"] == {"first": 1, "all_first": 1}
    assert figures["by_attention"] == {"first": 0.5, "all_first": 0}
    assert (figures["concepts"], figures["agreement"]) == (2, 0.6)
