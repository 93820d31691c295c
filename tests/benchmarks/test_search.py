"""The exhaustive search on the stored scores of the demo model, and the probes it is compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers")

from benchmarks.exhaustive_replays import exhaustive_verdicts, replays, scale_for
from benchmarks.probe_cases import SAMPLING, Excerpt, Pooling, Setting, Weakened, planted, pooled, strength_for
from benchmarks.score_tables import NARROW, concepts
from loco_core.diffusers_host.demo_model import DEMO, demo_pipeline
from loco_core.localization.localize import localize
from loco_core.localization.plan import ProbePlan
from loco_core.localization.probe import Prober
from loco_core.models.engine import Intervention, Row

FEW_STEPS = replace(SAMPLING, steps=4, width=64, height=64)


@pytest.fixture(scope="module")
def engine() -> Weakened:
    return Weakened(demo_pipeline())


@pytest.fixture(scope="module")
def pairs():
    return concepts()["woodcut"][1]


@pytest.fixture(scope="module")
def prober(engine, pairs) -> Prober:
    return Prober(engine, ProbePlan(pairs, (0,), FEW_STEPS, levels=4), rows_per_batch=36)


@pytest.mark.parametrize("name", concepts())
def test_styles_and_facts_are_localized_where_they_were_planted_and_objects_are_not(name):
    attribute, _ = concepts()[name]
    known = planted(DEMO).get(attribute)
    expected = f"localized: layers {known}" if known else "spread over several layers"
    assert exhaustive_verdicts()[name].startswith(expected)


def test_scaled_effects_make_exhaustive_search_right_as_often_as_asked():
    searches = replays("woodcut", np.random.default_rng(0))
    scale = scale_for(searches, 0.9)
    assert np.mean([search.right(scale) for search in searches]) == pytest.approx(0.9, abs=0.01)


def test_an_excerpt_says_what_a_probe_of_these_runs_and_levels_says(engine, pairs, prober):
    own = Prober(engine, ProbePlan(pairs[1:3], (0,), FEW_STEPS, levels=2, most_places=3), rows_per_batch=36)
    excerpt = Excerpt(prober, (1, 2), Setting(2, 2, 3))
    expected, found = (localize(asked, engine.layers) for asked in (own, excerpt))
    assert (found.layers, found.smallest, found.probe.rows) == (expected.layers, expected.smallest, expected.probe.rows)
    for window in NARROW:
        assert found.probe.share(window) == pytest.approx(expected.probe.share(window), abs=1e-4)


@pytest.mark.parametrize("pooling", Pooling)
def test_levels_are_pooled_as_named(prober, pooling):
    probe = prober.measure(NARROW)
    along, whole, weights = probe.along[NARROW[8]], probe.whole, probe.weights
    expected = {
        Pooling.WEIGHTED: (along * weights).sum() / (whole * weights).sum(),
        Pooling.PLAIN: along.sum() / whole.sum(),
        Pooling.MEAN: (along / whole).mean(),
    }
    assert pooled(probe, pooling).share(NARROW[8]) == pytest.approx(expected[pooling])


def test_a_weakened_target_is_the_concept_at_strength_0_and_the_target_at_1(engine, pairs):
    concept, target = engine.encode([pairs[0].concept, pairs[0].target])
    change = Intervention(engine.layers.all, target)
    latents = engine.latents_at([Row(concept, 0)], FEW_STEPS, [0])[:, 0]

    def predicted(row):
        return engine.predict([row], latents, FEW_STEPS, 0)

    try:
        engine.strength = 0.0
        nothing = predicted(Row(concept, 0, change))
    finally:
        engine.strength = 1.0
    assert nothing.allclose(predicted(Row(concept, 0)), atol=1e-5)
    assert predicted(Row(concept, 0, change)).allclose(predicted(Row(target, 0)), atol=1e-5)


def test_the_strength_for_a_share_of_the_effect_is_read_between_those_measured():
    effects = np.array([0.0, 0.0, 1.0, 2.0, 4.0, 6.0, 8.0, 9.0, 10.0, 10.0])
    assert strength_for(0.3, effects) == pytest.approx(0.45)
