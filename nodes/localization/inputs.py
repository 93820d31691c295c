"""Inputs and outputs that the search and the probe have in common."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.localization.plan import LEVELS
from ...loco_core.models.layers import Part
from ..inputs.shared import MARKS, layers_output


def pair_inputs(concepts: str, targets: str) -> list[io.Input]:
    """The two prompts that are compared; `concepts` and `targets` are what the fields begin with."""
    return [
        io.String.Input(
            "concept_prompts",
            multiline=True,
            default=concepts,
            tooltip="Prompts with the concept, one per line; several give a surer answer. A name alone ('Van Gogh') is "
            "expanded with the paper's four prompt patterns for the attribute. Weights like (word:1.3) count as 1."
            + MARKS,
        ),
        io.String.Input(
            "target_prompts",
            multiline=True,
            default=targets,
            tooltip="The same prompts without the concept, or with what takes its place: one line for each concept "
            "prompt, or a single line for all." + MARKS,
        ),
    ]


def levels_input() -> io.Input:
    return io.Int.Input(
        "levels",
        default=LEVELS,
        min=1,
        max=1000,
        advanced=True,
        tooltip="At how many noise levels to measure, spread over the denoising from pure noise on.",
    )


def part_input() -> io.Input:
    return io.Combo.Input(
        "part",
        options=Part,
        default=Part.BOTH,
        advanced=True,
        tooltip="What gets the target prompt: the keys and the values of the layers, as in the paper, or one of the "
        "two.",
    )


def found_outputs() -> list[io.Output]:
    """The layers that were found."""
    return [
        layers_output("The window of adjacent layers that makes the difference"),
        layers_output(
            "The smallest set of layers, adjacent or not, that makes the difference; the window where it is the "
            "smallest",
            "smallest_set",
        ),
    ]
