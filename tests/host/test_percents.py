"""Steps of a run as shares of the denoising: a schedule covers exactly the steps that it was made of."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete

STEPS = 20
SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple", "beta")


@pytest.fixture(scope="module")
def models(demo) -> dict:
    return {
        "discrete": demo.model,
        "discrete, v": ModelSamplingDiscrete().patch(demo.model, "v_prediction", False)[0],
        "continuous": ModelSamplingContinuousEDM().patch(demo.model, "edm", 120.0, 0.002)[0],
    }


@pytest.fixture(scope="module")
def covered(pack):
    """covered(model, sigmas, schedule) -> the steps at which it acts."""
    branches = pack("nodes.host.branches")

    def run(model, sigmas: list[float], schedule) -> list[int]:
        run = branches.Run(frozenset(), model.get_model_object("model_sampling").percent_to_sigma)
        calls = [{branches.KEY: run, "sigmas": torch.tensor([sigma])} for sigma in sigmas[:-1]]
        return [step for step, options in enumerate(calls) if schedule.covers(options)]

    return run


@pytest.mark.parametrize("kind", ["discrete", "discrete, v", "continuous"])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_schedule_covers_the_steps_it_was_made_of_and_no_other(pack, models, covered, kind, scheduler):
    model = models[kind]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, STEPS).tolist()
    for first, last in [(0, 20), (0, 1), (0, 8), (3, 4), (4, 12), (12, 20), (19, 20)]:
        schedule = pack("nodes.host.percents").schedule_of_steps(model, sigmas, first, last)
        assert covered(model, sigmas, schedule) == list(range(first, last))


def test_a_schedule_of_the_whole_run_is_always(pack, models):
    model = models["discrete"]
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS).tolist()
    assert pack("nodes.host.percents").schedule_of_steps(model, sigmas, 0, STEPS).always
