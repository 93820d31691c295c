"""The inputs by which a person says what is compared before and after a change of the model: prompts and images."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.comparison.erasure import ErasurePlan
from ...loco_core.models.engine import Sampling
from ...loco_core.prompts import lines, whole_pairs
from ..inputs.sampling import sampling_inputs, seeds_from


def erasure_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "concept_prompts",
            multiline=True,
            default="a painting of a house in the style of Van Gogh",
            tooltip="Whole prompts with the concept, one per line.",
        ),
        io.String.Input(
            "target_prompts",
            multiline=True,
            default="a painting of a house",
            tooltip="What the concept prompts should show without it: one line for each, or a single line for all. "
            "Tells how far a CLIP-Score can fall.",
        ),
        io.String.Input(
            "keep_prompts",
            multiline=True,
            default="a painting of a house in the style of Monet\na photo of a cat",
            tooltip="Prompts whose images should stay as they are, one per line.",
        ),
        io.String.Input("negative_prompt", default="", tooltip="The negative prompt of all images."),
        *sampling_inputs(),
    ]


def erasure_plan(
    concept_prompts: str,
    target_prompts: str,
    keep_prompts: str,
    negative_prompt: str,
    seed: int,
    seed_count: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    width: int,
    height: int,
) -> ErasurePlan:
    """What these inputs ask for, but for batch_rows, which changes no result."""
    return ErasurePlan(
        tuple(whole_pairs(concept_prompts, target_prompts)),
        tuple(dict.fromkeys(lines(keep_prompts, "keep prompts"))),
        seeds_from(seed, seed_count),
        Sampling(steps, cfg, sampler_name, scheduler, width, height, negative_prompt),
    )
