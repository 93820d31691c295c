"""Steps of a run as the host's shares of the denoising, in which its nodes are told when to act.

schedule = schedule_of_steps(model, engine.sigmas(sampling), 4, 12)   # covers steps 4 to 11
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from comfy.model_patcher import ModelPatcher

from .branches import Schedule

# Halvings of a share until it is exact, as far as a float32 noise level can tell.
HALVINGS = 40


def schedule_of_steps(model: ModelPatcher, sigmas: Sequence[float], first: int, last: int) -> Schedule:
    """Covers the steps from `first` to before `last`, and no other; `sigmas` are the run's noise levels [steps + 1].

    It begins and ends halfway between two steps, so that rounding takes none in and leaves none out.
    """
    percent_to_sigma = model.get_model_object("model_sampling").percent_to_sigma

    def before(step: int) -> float:
        return _percent(percent_to_sigma, math.sqrt(sigmas[step - 1] * sigmas[step]))

    start = 0.0 if first == 0 else before(first)
    end = 1.0 if last == len(sigmas) - 1 else before(last)
    return Schedule(start, end)


def _percent(percent_to_sigma: Callable[[float], float], sigma: float) -> float:
    """The share of the denoising after which the noise level is `sigma`; noise falls with it."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if percent_to_sigma(middle) > sigma else (low, middle)
    return high
