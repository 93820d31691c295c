"""How sure a search can be: means of paired differences, with intervals.

The population is that of seeds for the given prompts: another run would draw other seeds, not other prompts. So a mean
is the mean over the pairs of each pair's mean, and only what varies within a pair counts as noise; the pairs share one
variance. Images come in turns, one of each pair: number i is of pair i modulo the number of pairs. Where no pair has
two images, nothing tells noise from how the pairs differ, and both count as noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, degrees of freedom and 95 % interval; from a single image all but the mean NaN."""

    mean: float
    standard_error: float
    freedom: int
    images: int

    @property
    def low(self) -> float:
        return self.mean - self._reach

    @property
    def high(self) -> float:
        return self.mean + self._reach

    @property
    def _reach(self) -> float:
        return float(stats.t.ppf(0.5 + CONFIDENCE / 2, self.freedom) * self.standard_error) if self.freedom else np.nan

    @property
    def confidence_positive(self) -> float:
        """How sure it is that the true value is above 0: 0..1, by the t distribution; 0.5 where nothing is known."""
        if not self.freedom:
            return 0.5
        if not self.standard_error:
            return float(np.sign(self.mean) / 2 + 0.5)
        return float(stats.t.cdf(self.mean / self.standard_error, self.freedom))


def estimate(differences: np.ndarray, pairs: int) -> Estimate:
    """The mean of differences [images] in turns over `pairs`."""
    count = len(differences)
    if not count:
        return Estimate(np.nan, np.nan, 0, 0)
    groups = [differences[start::pairs] for start in range(min(pairs, count))]
    freedom = count - len(groups)
    if freedom == 0:
        error = differences.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return Estimate(float(differences.mean()), float(error), count - 1, count)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / freedom
    error = np.sqrt(within * sum(1 / len(group) for group in groups)) / len(groups)
    return Estimate(float(np.mean([group.mean() for group in groups])), float(error), freedom, count)


def margin(first: np.ndarray, second: np.ndarray, pairs: int) -> Estimate:
    """How much greater `first` is than `second`, on the images that both have."""
    common = min(len(first), len(second))
    return estimate(first[:common] - second[:common], pairs)
