"""Inputs that are the same on several nodes: when a change of the model acts, and how a LoRA is written."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.family import Naming


def schedule_inputs(condition: str = "") -> list[io.Input]:
    """From when to when; `condition`: where the tooltips begin with one."""
    return [
        io.Float.Input(
            f"{end}_percent",
            default=default,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip=f"{condition}{'the' if condition else 'The'} share of the denoising after which it {verb}.",
        )
        for end, default, verb in (("start", 0.0, "begins"), ("end", 1.0, "ends"))
    ]


def lora_inputs(filename_prefix: str) -> list[io.Input]:
    return [
        io.Combo.Input(
            "naming",
            options=Naming.words(),
            default=str(Naming.KOHYA),
            tooltip="kohya: keys that ComfyUI, Forge and diffusers know (SDXL's pooled embedding from diffusers 0.39 "
            "on). diffusers: its own names, for programs that know only those.",
        ),
        io.String.Input(
            "filename_prefix",
            default=filename_prefix,
            tooltip="Where the file goes in the output folder. In loras/, Load LoRA offers it after you press R.",
        ),
    ]
