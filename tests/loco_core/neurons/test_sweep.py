"""Removal against what is kept, by count: on engines and scorers whose scores are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from loco_core.comparison.erasure import ErasurePlan
from loco_core.images import Progress
from loco_core.models.engine import Sampling
from loco_core.models.layers import LayerSet, Part
from loco_core.neurons.ablation import Ablation
from loco_core.neurons.detection import Neurons, NeuronScores, NeuronTokens, Ranking
from loco_core.neurons.pictures import sweep_plot, sweep_sheet
from loco_core.neurons.sweep import SweepRequest, parse_counts, sweep_neurons, sweep_report
from loco_core.prompts import PromptPair
from made_up import GreyScorer, Painter

STYLED, PLAIN, KEPT = "a star in woodcut", "a star", "a fish in halftone"
PLAN = ErasurePlan((PromptPair(STYLED, PLAIN),), (KEPT,), (0, 1), Sampling(1, 1.0, "euler", "normal", 16, 16))
NEURONS = Neurons(
    {(8, Part.VALUES): NeuronScores(*torch.arange(1.0, 101).double().expand(4, -1))},
    LayerSet((8,), 16),
    32,
    NeuronTokens.TAIL,
    (STYLED, "b"),
    (PLAIN, "d"),
    "",
)


def painter(ablated: int = 0) -> Painter:
    """The concept's grey falls to the target's, the kept prompt's too but later, the more neurons are ablated."""
    kept = 0.5 - 0.3 * max(0, ablated - 40) / 60
    return Painter({STYLED: 0.8 - 0.6 * min(1, ablated / 40), PLAIN: 0.2, KEPT: kept})


def count(change: Ablation) -> int:
    return sum(len(replacement.neurons) for replacement in change.values())


def sweep(counts=(10, 40, 100), plan=PLAN, **options):
    request = SweepRequest(plan, NEURONS, counts, Ranking.Z)
    return sweep_neurons(request, painter(), lambda change: painter(count(change)), GreyScorer(), 3, **options)


def test_removed_and_kept_are_shares_of_what_can_be_lost():
    result = sweep()
    assert result.removed.tolist() == pytest.approx([0.25, 1.0, 1.0], abs=5e-3)  # images have 8 bits
    assert result.kept.tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)


def test_the_count_to_choose_removes_the_concept_and_keeps_the_rest():
    assert sweep().knee == 40


def test_among_counts_as_good_the_smallest_is_chosen():
    assert sweep((40, 41)).knee == 40


def test_the_images_are_counted_before_they_are_made():
    seen = []
    sweep(progress=Progress(lambda done, total, label, thumbnail: seen.append((done, total))))
    assert seen[-1] == (SweepRequest(PLAN, NEURONS, (10, 40, 100)).images,) * 2


def test_the_report_marks_the_count_to_choose_and_says_when_none_is_enough():
    assert "     40     100%   100%  <-" in str(sweep_report(sweep()))
    assert "no count removes half" in sweep_report(sweep((5, 10))).brief


@pytest.mark.parametrize(
    ("concept", "kept", "sentence"),
    [
        (0.1, 0.5, "concept prompts: their images score 10.20 against them, the target prompts' images 20.00"),
        (0.2, 0.5, "concept prompts: .* the scorer cannot tell what is removed"),
        (0.204, 0.5, "concept prompts: .* less than 0.5 apart"),  # a share of so little is noise
        (0.8, 0.2, "keep prompts: .* the scorer cannot tell what is kept"),
        (0.8, 0.1, "keep prompts: .* Use prompts of other things"),
    ],
)
def test_where_the_images_before_show_no_difference_no_count_is_tried(concept, kept, sentence):
    tried = []
    greys = {STYLED: concept, PLAIN: 0.2, KEPT: kept}
    progress = Progress(lambda done, total, label, thumbnail: tried.append(label))
    with pytest.raises(ValueError, match=sentence):
        request = SweepRequest(PLAN, NEURONS, (10,), Ranking.Z)
        sweep_neurons(request, Painter(greys), lambda change: Painter(greys), GreyScorer(), 3, progress)
    assert set(tried) == {"targets", "before"}


class Damaged(GreyScorer):
    """Gives NaN for the images that `spoilt` says: of a number, counted from 0, in the order of scoring."""

    def __init__(self, spoilt) -> None:
        super().__init__()
        self._spoilt, self._scored = spoilt, 0

    def score(self, images, texts):
        numbers = range(self._scored, self._scored + len(images))
        self._scored += len(images)
        return super().score(images, texts) * torch.tensor([float("nan") if self._spoilt(i) else 1.0 for i in numbers])


@pytest.mark.parametrize(
    "spoilt", [lambda i: True, lambda i: i == 3, lambda i: i > 12], ids=["all", "one", "later ones"]
)
def test_nothing_is_recommended_out_of_nan(spoilt):
    request = SweepRequest(PLAN, NEURONS, (10, 40, 100), Ranking.Z)
    with pytest.raises(ValueError, match="scorer grey: NaN or Inf in a score"):
        sweep_neurons(request, painter(), lambda change: painter(count(change)), Damaged(spoilt), 3)


@pytest.mark.parametrize(
    ("greys", "case"),
    [
        ({STYLED: 0.8, PLAIN: 0.2, KEPT: 0.5}, "nothing changes"),
        ({STYLED: 0.795, PLAIN: 0.2, KEPT: 0.5}, "as little as seeds change"),
        ({STYLED: 0.2, PLAIN: 0.2, KEPT: 0.2}, "all that is kept goes too"),
        ({STYLED: 0.9, PLAIN: 0.2, KEPT: 0.5}, "the concept grows"),
    ],
)
def test_where_no_count_is_better_than_none_none_is_recommended(greys, case):
    request = SweepRequest(PLAN, NEURONS, (10, 40), Ranking.Z)
    result = sweep_neurons(request, painter(), lambda change: Painter(greys), GreyScorer(), 3)
    assert result.knee == 0
    assert sweep_report(result).brief.startswith("choose none: no count removes any of the concept")
    assert "<-" not in str(sweep_report(result))
    assert sweep_plot(result).ndim == sweep_sheet(result).ndim == 3


def test_a_kept_prompt_that_the_targets_images_fit_as_well_is_not_weighed_and_named():
    faint = replace(PLAN, kept=(KEPT, PLAIN))
    result = sweep(plan=faint)
    assert result.kept.tolist() == pytest.approx([1.0, 1.0, 0.0], abs=1e-6)
    assert f"not weighed: {PLAIN!r}" in str(sweep_report(result))
    assert "not weighed" not in str(sweep_report(sweep()))


def test_the_plot_and_the_sheet_are_pictures():
    for picture in (sweep_plot(sweep()), sweep_sheet(sweep())):
        assert picture.ndim == 3 and picture.shape[2] == 3 and min(picture.shape[:2]) > 40


def test_counts_are_numbers_and_percents_in_any_order():
    assert parse_counts("30, 25%, 0, 10,", 200) == (10, 30, 50)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("300", "counts: '300'; there are 200 neurons, so give 0 to 200"),
        ("101%", "counts: '101%'; there are 200 neurons"),
        ("ten", "counts: 'ten' is not understood"),
        ("0", "counts: empty"),
        ("", "counts: empty"),
    ],
)
def test_counts_that_are_none_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_counts(text, 200)


@pytest.mark.parametrize(
    ("kept", "sentence"),
    [
        ((), "keep prompts: empty"),
        ((PLAIN,), "keep prompts: 'a star' is the only target prompt too"),
    ],
)
def test_what_cannot_be_weighed_is_refused_before_any_image(kept, sentence):
    with pytest.raises(ValueError, match=sentence):
        SweepRequest(replace(PLAN, kept=kept), NEURONS, (10,))


def test_prompts_of_which_the_scorer_sees_the_beginning_alone_stand_in_the_report():
    request = SweepRequest(PLAN, NEURONS, (10, 40), Ranking.Z)
    result = sweep_neurons(request, painter(), lambda change: painter(count(change)), GreyScorer(words=3), 3)
    assert f'WARNING: the scorer sees the first 3 of 4 tokens of "{STYLED}"' in sweep_report(result).brief


def test_a_concept_after_all_that_the_scorer_sees_is_an_error_before_any_image_is_made():
    request = SweepRequest(PLAN, NEURONS, (10, 40), Ranking.Z)
    with pytest.raises(ValueError, match="scorer: it sees the first 2 tokens of a prompt"):
        sweep_neurons(request, Painter({}), lambda change: Painter({}), GreyScorer(words=2), 3)
