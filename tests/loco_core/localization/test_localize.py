"""Where a difference is made, on denoisers that make it in known layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loco_core.localization.localize import ENOUGH, Localization, about_rows, localize, smallest_set
from loco_core.localization.plan import ProbePlan
from loco_core.localization.probe import Prober
from loco_core.localization.probe_report import probe_report
from loco_core.localization.verdict import Kind
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet
from loco_core.prompts import PromptPair
from made_up import SD15, SDXL, Denoiser, added, any_of

PLAN = ProbePlan((PromptPair("a star in woodcut", "a star"),), (0,), Sampling(10, 2.0, "euler", "normal", 64, 64))
COUNT = 16
Shown = Callable[[frozenset[int]], float]


def located(shown: Shown, window_size: int = 0) -> Localization:
    return localize(prober(shown), SD15, window_size)


def prober(shown: Shown) -> Prober:
    return Prober(Denoiser(PLAN.pairs[0].concept, shown, SD15), PLAN, 8)


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({8: 0.7, 9: 0.3}, (8, 9)),
        ({8: 1.0}, (8,)),
        ({8: 0.95, 9: 0.05}, (8,)),
        ({0: 0.5, 1: 0.5}, (0, 1)),
        ({13: 0.4, 14: 0.4, 15: 0.2}, (13, 14, 15)),
    ],
    ids=str,
)
def test_the_window_found_is_as_large_as_the_difference(held, expected):
    found = located(added(held))
    assert (found.kind, found.layers.indices) == (Kind.LOCALIZED, expected)
    assert found.share == pytest.approx(sum(held.get(layer, 0) for layer in expected))


@pytest.mark.parametrize("holding", [(10, 11, 12), (0, 1, 2, 3), (8, 9)], ids=str)
def test_layers_each_of_which_is_enough_alone_are_found_together(holding):
    found = located(any_of(*holding))
    assert (found.kind, found.layers.indices, found.smallest.indices) == (Kind.LOCALIZED, holding, holding)


@pytest.mark.parametrize(("alone", "window"), [(0.25, (6, 7)), (0.05, (7,))])
def test_a_layer_belongs_to_the_window_for_what_it_makes_alone_too(alone, window):
    """As on the demo model, where a flag changes by 91 % in layer 7 alone, by 25 % in layer 6, in both by all."""
    left = {(): 0.0, (6,): 0.09, (7,): 1 - alone, (6, 7): 1.0}
    found = located(lambda layers: left[tuple(layer for layer in (6, 7) if layer in layers)])
    assert (found.kind, found.layers.indices) == (Kind.LOCALIZED, window)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (any_of(3, 10), (3, 10)),
        (added({2: 0.4, 7: 0.3, 12: 0.3}), (2, 7, 12)),
        (added({6: 0.3, 7: 0.35, 9: 0.35}), (6, 7, 9)),
    ],
    ids=["each is enough", "each adds", "a window and another layer"],
)
def test_a_concept_in_layers_apart_is_spread_and_the_smallest_set_has_them(shown, expected):
    found = located(shown)
    assert (found.kind, found.smallest.indices) == (Kind.SPREAD, expected)
    assert f"The smallest set found, layers {found.smallest}, alone make 100%." in str(probe_report(found))


def test_layers_of_a_window_that_are_not_missed_are_left_out_of_the_smallest_set():
    engine = Denoiser(PLAN.pairs[0].concept, added({40: 0.5, 42: 0.5}), SDXL)
    found = localize(Prober(engine, PLAN, 8), SDXL)
    assert (found.kind, found.layers.indices, found.smallest.indices) == (Kind.LOCALIZED, (40, 41, 42), (40, 42))


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        ({8: 0.4, 9: 0.3, 2: 0.05}, Kind.LOCALIZED),
        ({8: 0.4, 9: 0.3, 2: 0.3}, Kind.SPREAD),
        (dict.fromkeys(range(COUNT), 1 / COUNT), Kind.SPREAD),
        (dict.fromkeys(range(6), 1 / 6), Kind.SPREAD),  # adjacent, but more than a third of all layers
        ({8: 0.03}, Kind.NO_EFFECT),
    ],
    ids=str,
)
def test_the_verdict_is_localized_where_few_layers_side_by_side_make_most_of_the_difference(held, kind):
    assert located(added(held)).kind is kind


def test_a_single_layer_is_named_as_one():
    assert str(probe_report(located(added({8: 1.0})))).startswith("localized: layer 8 makes 100% of the difference")


def test_a_share_above_all_is_explained():
    found = located(added({8: 1.2, 12: -0.2}))
    assert "layer 8 makes 120% of the difference between the prompts, more than all layers together" in str(
        probe_report(found)
    )


def test_a_window_size_that_is_asked_for_is_kept():
    found = located(added({8: 1.0}), window_size=3)
    assert len(found.layers) == len(found.smallest) == 3
    assert 8 in found.layers


def test_a_window_of_all_layers_has_no_rival():
    found = located(added({8: 1.0}), window_size=COUNT)
    assert (found.kind, found.rival) == (Kind.NO_RIVAL, None)
    assert "no other window fits beside them to compare with" in str(probe_report(found))


def test_for_what_hardly_differs_no_smallest_set_is_looked_for():
    """The first windows, and the two halves of the best."""
    engine = Denoiser(PLAN.pairs[0].concept, added({8: 0.03}), SD15)
    localize(Prober(engine, PLAN, 8), SD15)
    assert engine.asked == PLAN.levels * (3 + 15 + 2)


@pytest.mark.parametrize("holding", [{4}, {8, 9}, {1, 6, 13}, set(range(COUNT))], ids=str)
def test_no_layer_of_the_smallest_set_can_be_left_out(holding):
    """Each holds as much as every other, and all together are needed: the set may lack what is not missed."""
    asking = prober(added(dict.fromkeys(holding, 1 / len(holding))))
    found = smallest_set(asking, SD15.all)
    assert set(found) <= holding
    assert asking.measure([found]).share(found) >= ENOUGH
    for layer in found:
        rest = LayerSet(tuple(set(found) - {layer}), COUNT)
        assert asking.measure([rest]).share(rest) < ENOUGH


def test_a_window_acts_where_most_of_its_effect_arises():
    """The difference falls from step to step; nine tenths of it are made before six tenths of the denoising."""
    assert located(added({8: 1.0})).acts == (0, 6)


@pytest.mark.parametrize("layers", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_the_rows_told_before_are_about_those_it_takes(layers):
    engine = Denoiser(PLAN.pairs[0].concept, any_of(8, 9), layers)
    found = localize(Prober(engine, PLAN, 8), layers)
    assert found.probe.rows == pytest.approx(about_rows(PLAN, layers), rel=0.15)


@pytest.mark.parametrize(("beside", "layers"), [(0.15, (8, 9)), (0.3, (8, 9, 10))])
def test_a_layer_beside_the_best_window_is_taken_in_for_what_it_adds(beside, layers):
    found = located(added({8: 0.5, 9: 0.5, 10: beside}))
    assert found.layers.indices == layers
