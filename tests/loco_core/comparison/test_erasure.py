"""The erasure report's figures and sentences, on engines and scorers whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loco_core.comparison.erasure import (
    AT_ONCE,
    Change,
    ErasurePlan,
    erasure_report,
    image_maker,
    measure_before,
    measure_erasure,
)
from loco_core.comparison.pictures import erasure_sheet
from loco_core.images import QUIET, Progress
from loco_core.models.engine import Sampling
from loco_core.prompts import PromptPair
from made_up import GreyScorer, Painter

SAMPLING = Sampling(1, 1.0, "euler", "normal", 8, 8)
STYLED, PLAIN, KEPT = "a star in woodcut", "a star", "a fish in halftone"


def measure(after: dict[str, float], kept=(KEPT,), seeds=(0, 1, 2, 3), **options):
    before = {STYLED: 0.8, PLAIN: 0.2, KEPT: 0.5}
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), tuple(kept), tuple(seeds), SAMPLING)
    return measure_erasure(Painter(before), Painter(before | after), GreyScorer(), plan, 3, **options)


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ({STYLED: 0.2}, "removed; neighbours kept"),
        ({STYLED: 0.2, KEPT: 0.44}, f"removed, but {KEPT!r} lost 12%"),
        ({STYLED: 0.2, KEPT: 0.49}, "removed; neighbours kept"),
        ({STYLED: 0.45}, "only 58% removed; neighbours kept"),
        ({}, "not removed; neighbours kept"),
    ],
)
def test_the_verdict_is_a_sentence(after, verdict):
    assert measure(after).verdict == verdict


def test_the_verdict_which_is_drawn_above_the_images_names_a_prompt_as_plain_text():
    weighted = "a (fish:1.2) in ((halftone))"
    before, after = {STYLED: 0.8, PLAIN: 0.2, weighted: 0.5}, {STYLED: 0.2, PLAIN: 0.2, weighted: 0.44}
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (weighted,), (0, 1, 2, 3), SAMPLING)
    result = measure_erasure(Painter(before), Painter(after), GreyScorer(), plan, 3)
    assert result.verdict == f"removed, but {KEPT!r} lost 12%"


def test_the_share_removed_is_measured_against_the_target_prompts():
    assert measure({STYLED: 0.5}).removed == pytest.approx(0.5, abs=1e-3)


def test_a_concept_that_scores_no_higher_than_its_target_cannot_be_judged():
    plan = ErasurePlan((PromptPair(PLAIN, STYLED),), (), (0,), SAMPLING)
    painter = Painter({STYLED: 0.8, PLAIN: 0.2})
    result = measure_erasure(painter, painter, GreyScorer(), plan, 3)
    assert np.isnan(result.removed)
    assert result.verdict.startswith("cannot tell whether it is removed: the images before fit the concept no better")
    assert "nan" not in str(erasure_report(result))


@pytest.mark.parametrize("shown", [0.0, 0.002, 0.0039])
def test_of_a_kept_prompt_that_its_images_do_not_fit_no_share_is_told(shown):
    """A tenth of a point less of two tenths would be a loss of half."""
    faint = {STYLED: 0.8, PLAIN: 0.2, KEPT: shown}
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), (0,), SAMPLING)
    result = measure_erasure(Painter(faint), Painter(faint | {STYLED: 0.2, KEPT: 0.0}), GreyScorer(), plan, 3)
    assert result.verdict == f"removed; cannot tell whether {KEPT!r} is kept: the images before do not fit it either"
    assert np.isnan(result.kept_share)


@pytest.mark.parametrize(
    ("pairs", "kept", "sentence"),
    [
        ([(STYLED, STYLED)], (KEPT,), "target prompts: 'a star in woodcut' is the concept prompt too"),
        ([(STYLED, PLAIN), (PLAIN, PLAIN)], (KEPT,), "target prompts: 'a star' is the concept prompt too"),
        ([(STYLED, PLAIN)], (KEPT, STYLED), "keep prompts: 'a star in woodcut' is a concept prompt too"),
    ],
)
def test_what_no_image_can_show_is_refused_before_any_is_made(pairs, kept, sentence):
    with pytest.raises(ValueError, match=sentence):
        ErasurePlan(tuple(PromptPair(*pair) for pair in pairs), kept, (0,), SAMPLING)


def test_a_target_prompt_may_be_a_kept_one():
    assert measure({STYLED: 0.2}, kept=(PLAIN,)).verdict == "removed; neighbours kept"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_loss_that_few_images_leave_unsure_is_told_as_such(seeds):
    class Unsteady(Painter):
        """Half of the kept images' grey is gone in the second seed, all but a little of it in the first."""

        def generate(self, rows, sampling, on_step=None):
            images = super().generate(rows, sampling, on_step)
            spoilt = [0.1 + 0.4 * row.seed if row.embedding.prompt == KEPT else 1.0 for row in rows]
            return images * torch.tensor(spoilt)[:, None, None, None]

    before = {STYLED: 0.8, PLAIN: 0.2, KEPT: 0.5}
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), seeds, SAMPLING)
    result = measure_erasure(Painter(before), Unsteady(before | {STYLED: 0.2}), GreyScorer(), plan, 3)
    assert (
        result.verdict == f"removed, but {KEPT!r} may have lost {90 if seeds == (0,) else 70}% (more seeds would tell)"
    )


def test_the_interval_is_students_t_of_the_paired_differences():
    change = Change(np.array([10.0, 20.0, 30.0]), np.array([9.0, 18.0, 27.0]))
    # differences -1, -2, -3: mean -2, standard error 1 / sqrt(3), t(0.975, 2) = 4.3027
    assert (change.estimate.low, change.estimate.high) == pytest.approx(
        (-2 - 4.3027 / 3**0.5, -2 + 4.3027 / 3**0.5), abs=1e-3
    )
    assert not change.certain


def test_one_image_has_no_interval():
    alone = Change(np.ones(1), np.zeros(1)).estimate
    assert np.isnan(alone.low) and np.isnan(alone.high)


def test_kept_images_are_compared_with_themselves():
    result = measure({STYLED: 0.2, KEPT: 0.4})
    assert result.similarity == pytest.approx([90] * 4, abs=0.4)  # images have 8 bits
    assert "likeness before and after" in str(erasure_report(result))


def test_images_are_kept_as_8_bit_numbers_and_scored_some_at_a_time():
    sizes = []

    class Watched(GreyScorer):
        def score(self, images, texts):
            sizes.append(len(images))
            return super().score(images, texts)

    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), tuple(range(AT_ONCE + 1)), SAMPLING)
    painter = Painter({STYLED: 0.8, PLAIN: 0.2, KEPT: 0.5})
    before = measure_before(painter, Watched(), plan, image_maker(plan, 3, plan.images, QUIET))
    assert before.images.dtype == torch.uint8
    greys = [100 * grey + seed / 10 for grey in (0.8, 0.5) for seed in plan.seeds]
    assert before.scores == pytest.approx(greys, abs=0.2)  # half of 100 / 255
    assert max(sizes) <= AT_ONCE < sum(sizes)


def test_the_report_needs_no_more_images_than_it_says_and_tells_of_each_batch():
    seen = []
    result = measure({STYLED: 0.2}, progress=Progress(lambda done, total, label, thumbnail: seen.append((done, total))))
    assert seen[-1] == (20, 20) == (result.plan.images, result.plan.images)
    assert erasure_report(result).brief.startswith("in images: removed; neighbours kept")


def test_the_sheet_shows_concepts_and_kept_prompts():
    assert erasure_sheet(measure({})).shape[0] > erasure_sheet(measure({}, kept=())).shape[0]


def test_no_seeds_is_an_error():
    with pytest.raises(ValueError, match="seeds: 0"):
        measure({}, seeds=())


def test_prompts_of_which_the_scorer_sees_the_beginning_alone_stand_in_the_report(caplog):
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), (0,), SAMPLING)
    painter = Painter({STYLED: 0.8, PLAIN: 0.2, KEPT: 0.5})
    text = erasure_report(measure_erasure(painter, painter, GreyScorer(words=3), plan, 3)).brief
    for prompt in (STYLED, KEPT):
        warning = f'WARNING: the scorer sees the first 3 of 4 tokens of "{prompt}"'
        assert warning in text
        assert warning in caplog.text


def test_a_concept_after_all_that_the_scorer_sees_is_an_error_before_any_image_is_made():
    plan = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), (0,), SAMPLING)
    without_images = Painter({})
    with pytest.raises(ValueError, match="scorer: it sees the first 2 tokens of a prompt"):
        measure_erasure(without_images, without_images, GreyScorer(words=2), plan, 3)
