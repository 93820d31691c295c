"""The inputs by which a person says how images are made, the same on every node that compares images."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ..host.samplers import samplers

# The host's seeds are below it.
SEEDS = 2**64


def seeds_from(seed: int, count: int) -> tuple[int, ...]:
    """seed, seed + 1, and so on; 0 follows the largest."""
    return tuple((seed + place) % SEEDS for place in range(count))


def negative_prompt_input() -> io.Input:
    return io.String.Input(
        "negative_prompt", default="", advanced=True, tooltip="The negative prompt of all images. Empty: none."
    )


def run_inputs(advanced: bool = False) -> list[io.Input]:
    """Everything but the size; `advanced`: all of it is folded away."""
    return [
        seed_input(),
        io.Int.Input(
            "seed_count",
            default=4,
            min=1,
            max=64,
            advanced=advanced,
            tooltip="Images for each prompt: seed, seed + 1, and so on. More images give a surer answer and take "
            "longer.",
        ),
        io.Int.Input("steps", default=20, min=1, max=1000, advanced=advanced, tooltip="Sampling steps for each image."),
        cfg_input(
            "Classifier-free guidance: how strongly the images follow the prompt. Use the value that you normally use "
            "with this model.",
            advanced,
        ),
        io.Combo.Input(
            "sampler_name",
            options=samplers(),
            default="euler",
            advanced=True,
            tooltip="The sampler of all images. Ancestral and SDE samplers draw the noise of each image from its own "
            "seed. dpm_adaptive is missing: it chooses its steps for a whole batch.",
        ),
        scheduler_input(),
    ]


def cfg_input(tooltip: str, advanced: bool = True) -> io.Input:
    return io.Float.Input("cfg", default=7.5, min=1.0, max=100.0, step=0.1, advanced=advanced, tooltip=tooltip)


def seed_input() -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=SEEDS - 1,
        control_after_generate="fixed",
        advanced=True,
        tooltip="The first seed. All comparisons use the same seeds. Keep it fixed: a new seed makes all anew.",
    )


def scheduler_input() -> io.Input:
    return io.Combo.Input(
        "scheduler",
        options=comfy.samplers.KSampler.SCHEDULERS,
        default="normal",
        advanced=True,
        tooltip="The noise schedule of all images.",
    )


def size_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            side,
            default=0,
            min=0,
            max=4096,
            step=8,
            advanced=True,
            tooltip=f"Image {side} in pixels. 0: what the model was made for.",
        )
        for side in ("width", "height")
    ]


def batch_rows_input() -> io.Input:
    return io.Int.Input(
        "batch_rows",
        default=16,
        min=1,
        max=1024,
        advanced=True,
        tooltip="Images in one sampler call. The more your memory allows, the faster. If memory is short, fewer are "
        "made at once.",
    )


def sampling_inputs() -> list[io.Input]:
    return [*run_inputs(), *size_inputs(), batch_rows_input()]
