"""Means of paired differences, and how sure they are.

    effect = estimate(differences, pairs=4)
    print(effect.mean, effect.low, effect.high, effect.confidence_positive)

The population is that of seeds for the given prompts: another run would draw other seeds, not other prompts. So a mean
is the mean over the pairs of each pair's mean, and only what varies within a pair counts as noise. Some pairs vary far
more than others (a concept that goes in all images of one, and in half of those of another), so each has its own
variance, with Welch and Satterthwaite's degrees of freedom; a pair with one image has the mean of the others'. Images
come in turns, one of each pair: number i is of pair i modulo the number of pairs. Where no pair has two images, nothing
tells noise from how the pairs differ, and both count as noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
# Degrees of freedom from which on an interval says more than the images themselves.
LEAST_FREEDOM = 3


@dataclass(frozen=True)
class Estimate:
    """A mean, its standard error, degrees of freedom and 95 % interval; from a single image all but the mean NaN."""

    mean: float
    standard_error: float
    freedom: float
    images: int

    @property
    def low(self) -> float:
        return self.mean - self._reach

    @property
    def high(self) -> float:
        return self.mean + self._reach

    @property
    def has_interval(self) -> bool:
        """Whether its interval is worth telling."""
        return self.freedom >= LEAST_FREEDOM

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
    if count == len(groups):
        error = differences.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return Estimate(float(differences.mean()), float(error), count - 1, count)
    own = [group.var(ddof=1) for group in groups if len(group) > 1]
    sizes = np.array([len(group) for group in groups])
    shares = np.array([*own, *[np.mean(own)] * (len(groups) - len(own))]) / sizes  # pairs with one image come last
    known = shares[: len(own)] ** 2 / (sizes[: len(own)] - 1)
    freedom = max(1.0, float(shares.sum() ** 2 / known.sum())) if known.sum() else count - len(groups)
    error = float(np.sqrt(shares.sum()) / len(groups))
    return Estimate(float(np.mean([group.mean() for group in groups])), error, freedom, count)


def margin(first: np.ndarray, second: np.ndarray, pairs: int) -> Estimate:
    """How much greater `first` is than `second`: paired where both are of the same images; where one is of more, as of
    two samples, with Welch's degrees of freedom: less sure, as a rule, since images vary in both alike.
    """
    if len(first) == len(second):
        return estimate(first - second, pairs)
    one, other = estimate(first, pairs), estimate(second, pairs)
    parts, fewer = (one.standard_error**2, other.standard_error**2), min(one.images, other.images)
    if not (one.freedom and other.freedom):
        return Estimate(one.mean - other.mean, np.nan, 0, fewer)
    weights = parts[0] ** 2 / one.freedom + parts[1] ** 2 / other.freedom
    freedom = sum(parts) ** 2 / weights if weights else one.freedom + other.freedom
    return Estimate(one.mean - other.mean, float(np.sqrt(sum(parts))), float(freedom), fewer)
