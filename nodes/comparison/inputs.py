"""The inputs by which a person says what is compared before and after a change of the model: prompts and images."""

from __future__ import annotations

from dataclasses import dataclass

from comfy_api.latest import io

from ...loco_core.comparison.erasure import ErasurePlan
from ...loco_core.models.engine import Sampling
from ...loco_core.models.layers import ModelLayers
from ...loco_core.prompts import lines, whole_pairs
from ..host.layers import image_sides
from ..inputs.sampling import negative_prompt_input, sampling_inputs, seeds_from


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
            tooltip="What the images should show without the concept: one line for each concept prompt, or a single "
            "line for all. This tells how far a CLIP-Score can fall.",
        ),
        io.String.Input(
            "keep_prompts",
            multiline=True,
            default="a painting of a house in the style of Monet\na photo of a cat",
            tooltip="Prompts whose images should stay the same, one per line: other styles, and everyday things.",
        ),
        negative_prompt_input(),
        *sampling_inputs(),
    ]


@dataclass(frozen=True, kw_only=True)
class ErasureInputs:
    """What a person chose in `erasure_inputs`, but for batch_rows, which changes no result."""

    concept_prompts: str
    target_prompts: str
    keep_prompts: str
    negative_prompt: str
    seed: int
    seed_count: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    width: int
    height: int

    def plan(self, layers: ModelLayers) -> ErasurePlan:
        """The images of such a model that these inputs ask for."""
        return ErasurePlan(
            pairs=tuple(whole_pairs(self.concept_prompts, self.target_prompts)),
            kept=tuple(dict.fromkeys(lines(self.keep_prompts, "keep prompts"))),
            seeds=seeds_from(self.seed, self.seed_count),
            sampling=Sampling(
                self.steps,
                self.cfg,
                self.sampler_name,
                self.scheduler,
                *image_sides(layers, self.width, self.height),
                self.negative_prompt,
            ),
        )
