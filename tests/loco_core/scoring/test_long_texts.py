"""Texts longer than a scorer takes: what it sees of them, and what is said of that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from demo.world import Scene, draw
from loco_core.prompts import PromptPair
from loco_core.scoring.long_texts import unseen_ends
from loco_core.scoring.open_clip_scorer import load_scorer
from made_up import GreyScorer

DEMO_SCORER = Path(__file__).resolve().parents[3] / "demo" / "open_clip" / "loco_demo_clip.safetensors"
STARS = " ".join(["star"] * 75)


@pytest.fixture(scope="module")
def scorer():
    return load_scorer(DEMO_SCORER)


@pytest.mark.parametrize(("text", "total"), [("", 0), ("a red star", 3), (STARS, 75), (f"{STARS} in woodcut", 78)])
def test_a_scorer_tells_how_many_of_a_texts_tokens_it_sees(scorer, text, total):
    seen = scorer.seen(text)
    assert (len(seen.tokens), seen.total, seen.whole) == (min(total, 75), total, total <= 75)


def test_texts_of_which_a_scorer_sees_the_same_have_the_same_score(scorer):
    image = torch.from_numpy(draw(Scene("star", "woodcut", "red"), np.random.default_rng(0))).float() / 255
    texts = [STARS, f"{STARS} in the style of woodcut", f"woodcut {STARS}"]
    same, longer, other = scorer.score(torch.stack([image] * 3), texts)
    assert scorer.seen(texts[0]).tokens == scorer.seen(texts[1]).tokens != scorer.seen(texts[2]).tokens
    assert same == longer != other


def test_texts_that_are_seen_whole_need_no_warning():
    assert unseen_ends(GreyScorer(), [PromptPair("a star in woodcut", "a star")], ["a star in woodcut"]) == ()


def test_of_a_long_text_the_warning_says_how_much_of_it_is_seen():
    (warning,) = unseen_ends(GreyScorer(), [PromptPair(f"woodcut {STARS}", "a star")], [f"woodcut {STARS}"] * 2)
    assert warning.startswith('WARNING: the scorer sees the first 75 of 76 tokens of "woodcut star star')
    assert len(warning) < 200  # a person need not read the whole prompt again


def test_a_text_that_is_not_scored_needs_no_warning():
    assert unseen_ends(GreyScorer(), [PromptPair("woodcut", STARS + " at sea")], ["woodcut"]) == ()


@pytest.mark.parametrize(
    ("concept", "target"),
    [(f"{STARS} in woodcut", STARS), (STARS, f"{STARS} in woodcut"), (f"{STARS} a", f"{STARS} b")],
)
def test_prompts_that_differ_only_after_what_is_seen_are_refused(concept, target):
    with pytest.raises(
        ValueError, match="scorer: it sees the first 75 tokens .* shorten the prompts, or let them begin"
    ):
        unseen_ends(GreyScorer(), [PromptPair(concept, target)], [concept])
