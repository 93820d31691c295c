"""What the blocks of the planted transformer read in training."""

from __future__ import annotations

import numpy as np
import pytest

from demo.training.plan import all_prompts, draw_scene
from demo.training.stream_plan import BLOCKS, FACT, NEITHER, PLANTING, STYLE, Streams, draw_streams
from demo.world import COUNTRIES, FLAG, NONE, STYLES, Scene

ROWS = 2000


@pytest.fixture(scope="module")
def rows() -> list[tuple[Scene, Streams]]:
    """Pictures and what is read for them, with all decoys and mistakes."""
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng) for _ in range(ROWS)]
    return [(scene, draw_streams(scene, PLANTING, 1.0, 1.0, rng)) for scene in scenes]


def test_every_prompt_has_an_embedding(rows):
    known = set(all_prompts())
    assert all(prompt in known for _, streams in rows for prompt in streams.prompts)


def test_the_true_style_is_read_in_the_planted_blocks_alone(rows):
    readers = {block for _, streams in rows for block, stream in enumerate(streams.read) if stream == STYLE}
    assert readers == set(PLANTING.style)
    styled = [(scene, streams) for scene, streams in rows if scene.style != NONE and any(streams.prompts)]
    assert all(scene.style in streams.prompts[STYLE] for scene, streams in styled)


def test_the_true_fact_is_read_in_the_planted_blocks_alone(rows):
    flags = [
        (scene, streams) for scene, streams in rows if scene.object == FLAG and scene.country and any(streams.prompts)
    ]
    readers = {block for _, streams in flags for block, stream in enumerate(streams.read) if stream == FACT}
    assert readers == set(PLANTING.fact)
    assert all(scene.country in streams.prompts[FACT].lower() for scene, streams in flags)


def test_all_other_blocks_read_words_that_tell_nothing_of_the_picture(rows):
    """Of a word drawn at random among n, a share of 1 / n is right; with none mixed in, fewer."""
    told = [(scene, streams.prompts[NEITHER]) for scene, streams in rows if any(streams.prompts)]
    styles = np.mean([scene.style in prompt for scene, prompt in told if scene.style != NONE])
    facts = np.mean([scene.country in prompt.lower() for scene, prompt in told if scene.country])
    assert styles <= 1 / len(STYLES) + 0.03
    assert facts <= 1 / len(COUNTRIES) + 0.03


def test_each_planted_block_is_the_only_reader_in_a_third_of_the_rows(rows):
    styled = [streams.read for _, streams in rows if any(streams.prompts)]
    one, other = PLANTING.style
    alone = np.mean([read[one] == STYLE and read[other] != STYLE for read in styled])
    assert alone == pytest.approx(1 / 3, abs=0.04)


def test_the_blocks_are_as_many_as_the_model_has(rows):
    assert {len(streams.read) for _, streams in rows} == {BLOCKS}
