"""What finds the knowledge that was planted in the demo transformer: a probe, images of every window, attention, and
the definition that lets the other text flow.

Every style and the flags, changed in three ways, have four pairs of prompts. What is right is that both planted blocks
are found and no other. The figures are collected by benchmarks/transformers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from benchmarks.score_tables import concepts
from demo.training.stream_plan import BLOCKS, PLANTING
from loco_core.diffusers_host.demo_model import SCORER
from loco_core.localization.localize import Localization, localize
from loco_core.localization.plan import Effort, ProbePlan, SearchPlan
from loco_core.localization.probe import Prober
from loco_core.localization.search import search
from loco_core.models.engine import Engine, Sampling
from loco_core.models.layers import LayerSet, windows
from loco_core.prompts import Attribute, PromptPair
from loco_core.scoring.open_clip_scorer import load_scorer

pytestmark = pytest.mark.slow

PLANTED = {Attribute.STYLE: LayerSet(PLANTING.style, BLOCKS), Attribute.FACT: LayerSet(PLANTING.fact, BLOCKS)}
PAIRS = {name: own for name, own in concepts().items() if own[0] in PLANTED}
SAMPLING = Sampling(20, 2.0, "euler", "normal", 128, 128)
# Of images that are scored: scores rank windows as those of 20 steps do.
QUICK = Sampling(6, 2.0, "euler", "normal", 128, 128)
ROWS = 48
PAIRS_OF_BLOCKS = windows(BLOCKS, 2)

Ask = Callable[[Attribute, tuple[PromptPair, ...]], LayerSet]


@pytest.fixture(scope="module")
def engine(demo_transformer, engine_of) -> Engine:
    return engine_of(demo_transformer.model, demo_transformer.clip, demo_transformer.vae)


@pytest.fixture(scope="module")
def probed(engine) -> Callable[[tuple[PromptPair, ...]], tuple[Prober, Localization]]:
    """What a probe of these pairs finds, and the prober, which can be asked further."""

    @cache
    def of(pairs: tuple[PromptPair, ...]) -> tuple[Prober, Localization]:
        with torch.inference_mode():
            prober = Prober(engine, ProbePlan(pairs, (0,), SAMPLING), ROWS)
            return prober, localize(prober, engine.layers)

    return of


@pytest.fixture(scope="module")
def scorer():
    return load_scorer(SCORER)


def share_right(ask: Ask, attribute: Attribute) -> float:
    """Of the concepts of a kind, the share for which exactly the planted blocks are named."""
    named = [ask(own, pairs) for own, pairs in PAIRS.values() if own is attribute]
    return float(np.mean([found == PLANTED[attribute] for found in named]))


@pytest.mark.parametrize("attribute", PLANTED)
def test_a_probe_finds_what_was_planted(probed, record_property, attribute):
    right = share_right(lambda _, pairs: probed(pairs)[1].layers, attribute)
    record_property(f"planted probe_{attribute}", right)
    assert right >= 0.8


@pytest.mark.parametrize("attribute", PLANTED)
def test_images_of_every_window_find_what_was_planted(engine, scorer, record_property, attribute):
    def ask(own: Attribute, pairs: tuple[PromptPair, ...]) -> LayerSet:
        plan = SearchPlan(pairs, (0,), own, QUICK, effort=Effort.EXHAUSTIVE, window_size=2)
        with torch.inference_mode():
            return search(engine, scorer, plan, ROWS).layers

    right = share_right(ask, attribute)
    record_property(f"planted exhaustive_{attribute}", right)
    assert right >= 0.8


@pytest.mark.parametrize("attribute", PLANTED)
def test_a_text_that_flows_on_from_a_block_is_most_of_all_where_it_enters_first(probed, record_property, attribute):
    """The other text enters at a block and stays: all later blocks read it too, so no later block can have more."""

    def ask(_: Attribute, pairs: tuple[PromptPair, ...]) -> LayerSet:
        ends = [LayerSet(tuple(range(first, BLOCKS)), BLOCKS) for first in range(BLOCKS)]
        with torch.inference_mode():
            probe = probed(pairs)[0].measure(ends)
        best = int(np.argmax([probe.share(own) for own in ends]))
        return LayerSet((best, min(best + 1, BLOCKS - 1)), BLOCKS)

    right = share_right(ask, attribute)
    record_property(f"planted naive_{attribute}", right)
    assert right <= 0.2


@pytest.mark.parametrize("attribute", PLANTED)
def test_attention_finds_no_more_than_a_probe(probed, record_property, attribute):
    """It is a second ranking, beside the probe's."""

    def ask(_: Attribute, pairs: tuple[PromptPair, ...]) -> LayerSet:
        attention = probed(pairs)[1].probe.attention
        return max(PAIRS_OF_BLOCKS, key=lambda window: float(attention[list(window)].sum()))

    right = share_right(ask, attribute)
    record_property(f"planted attention_{attribute}", right)
    assert right <= share_right(lambda _, pairs: probed(pairs)[1].layers, attribute)
