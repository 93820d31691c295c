"""What a probe and a search are to do.

plan = SearchPlan(
    pairs=prompt_pairs("Van Gogh", "a painting", Attribute.STYLE).pairs,
    seeds=(0, 1),
    attribute=Attribute.STYLE,
    sampling=sampling,
)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from ..choices import Choice
from ..models.engine import Sampling
from ..models.layers import Part
from ..noise_levels import evenly
from ..prompts import Attribute, PromptPair, check_pairs_differ
from ..scoring.clip_score import Scorer
from ..scoring.long_texts import unseen_ends

# The window size that stands for: find it.
AUTO = 0
# Noise levels that a probe looks at, spread over the denoising: a model may decide one thing early and another late.
LEVELS = 5
# Runs that a search probes, of several prompts or seeds: what is found in one alone is often a matter of chance.
PROBED_RUNS = 4
# At how many places, of a run and a level each, it probes: two levels of each run, and every level in some run.
PROBED_PLACES = 8
# Images by which a search confirms what it has probed: of so many prompts, the first seed of each.
CONFIRMED_PROMPTS = 2


class Effort(Choice):
    """How a search compares windows: by what the denoiser predicts, or by images of every window."""

    PROBE = "probe"
    EXHAUSTIVE = "exhaustive"


@dataclass(frozen=True)
class ProbePlan:
    """Which prompts to probe: every pair x every seed, at `levels` noise levels spread over the steps of a run, or at
    all of them where it has fewer steps.

    `part`: what of the layers gets the target prompt. `taken`: how the lines that asked for the pairs were taken, in
    sentences. `most_places`: about at how many places, of a run and a level each; 0 for all of them.
    """

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    levels: int = LEVELS
    part: Part = Part.BOTH
    taken: tuple[str, ...] = ()
    most_places: int = 0

    def __post_init__(self) -> None:
        Part.parse_field(self, "part")
        check_asked(self.pairs, self.seeds)
        if self.levels < 1:
            raise ValueError(f"levels: {self.levels}; give 1 or more")

    @property
    def runs(self) -> list[tuple[PromptPair, int]]:
        """The pair and seed of every unmodified run: one of each pair, then the next seed."""
        return [(pair, seed) for seed in self.seeds for pair in self.pairs]

    @property
    def steps(self) -> list[int]:
        """The steps before which is probed; the first is pure noise."""
        return evenly(self.levels, self.sampling.steps)

    @cached_property
    def levels_of_runs(self) -> tuple[tuple[int, ...], ...]:
        """Of each run, the numbers of the levels at which it is probed.

        Where not all are, every run in turn takes a level that the fewest have: the shares of all levels are known, and
        what is found does not rest on a few runs.
        """
        runs, levels = len(self.runs), len(self.steps)
        own: list[list[int]] = [[] for _ in range(runs)]
        taken = [0] * levels
        every = runs * levels
        for place in range(min(max(self.most_places, runs, levels), every) if self.most_places else every):
            levels_of_run = own[place % runs]
            level = min(set(range(levels)) - set(levels_of_run), key=lambda level: (taken[level], level))
            levels_of_run.append(level)
            taken[level] += 1
        return tuple(tuple(sorted(levels_of_run)) for levels_of_run in own)

    def runs_at(self, level: int) -> list[int]:
        """The numbers of the runs probed at a level."""
        return [run for run, levels in enumerate(self.levels_of_runs) if level in levels]

    @property
    def path_rows(self) -> int:
        """Rows of the denoiser that the unmodified runs take, each to the last step at which it is probed."""
        last = (self.steps[max(levels)] for levels in self.levels_of_runs)
        return sum(last) * self.sampling.rows_per_step

    def rows(self, sets: int) -> int:
        """Rows of the denoiser that a probe of so many sets of layers takes, the runs to its levels among them."""
        return self.path_rows + (3 + sets) * sum(map(len, self.levels_of_runs))


def probe_plan(pairs: tuple[PromptPair, ...], seeds: tuple[int, ...], sampling: Sampling) -> ProbePlan:
    """What tells most for few rows: as many runs and places as a search probes, of these pairs and seeds."""
    probed = pairs[:PROBED_RUNS]
    return ProbePlan(probed, seeds[: PROBED_RUNS // len(probed)], sampling, most_places=PROBED_PLACES)


@dataclass(frozen=True)
class SearchPlan:
    """What to find, with which images: every pair x every seed. window_size: AUTO to find the size.

    `part` and `taken` are as in a ProbePlan.
    """

    pairs: tuple[PromptPair, ...]
    seeds: tuple[int, ...]
    attribute: Attribute
    sampling: Sampling
    window_size: int = AUTO
    effort: Effort = Effort.PROBE
    levels: int = LEVELS
    part: Part = Part.BOTH
    taken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        Attribute.parse_field(self, "attribute")
        Effort.parse_field(self, "effort")
        Part.parse_field(self, "part")
        check_asked(self.pairs, self.seeds)

    @cached_property
    def images(self) -> tuple[tuple[PromptPair, int], ...]:
        """The pair and seed of every image of a window: one of each pair, then the next seed."""
        every = tuple((pair, seed) for seed in self.seeds for pair in self.pairs)
        return every if self.effort is Effort.EXHAUSTIVE else every[: min(len(self.pairs), CONFIRMED_PROMPTS)]

    @property
    def probe(self) -> ProbePlan | None:
        """What to probe; None where nothing is left to find by it."""
        if self.effort is Effort.EXHAUSTIVE and self.window_size != AUTO:
            return None
        own = probe_plan(self.pairs, self.seeds, self.sampling)
        places = max(PROBED_PLACES, self.levels)
        return replace(own, levels=self.levels, part=self.part, taken=self.taken, most_places=places)

    @property
    def sign(self) -> int:
        """1 if a wanted change raises the score (a new fact appears), else -1 (a style or an object goes away)."""
        return 1 if self.attribute is Attribute.FACT else -1

    def scored_text(self, pair: PromptPair) -> str:
        """The prompt an image is scored against: the target of a fact, else the concept."""
        return pair.target if self.attribute is Attribute.FACT else pair.concept

    def unseen_by(self, scorer: Scorer) -> tuple[str, ...]:
        """Warnings of prompts that the scorer sees in part; an error where it cannot tell concept from target."""
        return unseen_ends(scorer, self.pairs, [self.scored_text(pair) for pair in self.pairs])


def check_asked(pairs: tuple[PromptPair, ...], seeds: tuple[int, ...]) -> None:
    """An error where there is nothing to compare."""
    if not pairs:
        raise ValueError("concept prompts: empty; give at least one line")
    check_pairs_differ(pairs)
    if not seeds:
        raise ValueError("seeds: 0; give at least 1")
