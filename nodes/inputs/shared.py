"""Inputs and outputs that are the same on several nodes, so that they are named and explained alike everywhere.

inputs=[io.Model.Input("model", tooltip=MODEL), *image_sockets(), *schedule_inputs()]
outputs=[saved_file_output()]

`advanced` inputs are those that a first-time user does not need; ComfyUI folds them away.
"""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.family import Naming
from ..host.folders import NO_FILE, safetensors_files
from ..sockets import Layers, Scorer

MODELS = "Stable Diffusion 1.x, 2.x or SDXL, Anima or Cosmos-Predict2"
MODEL = f"A model: {MODELS}. LoRA loaders go before this node."
# For nodes that edit nothing.
ANY_MODEL = f"A model: {MODELS}, or SD 3.x, Flux, Chroma, Qwen-Image or Z-Image. LoRA loaders go before this node."
CLIP = "The text encoder of this model."
# What the tooltips of fields with names and prompts end with.
MARKS = (
    " A line that begins with 'name:' or 'prompt:' says what it is, 'names: A, B' gives several; others are guessed, "
    "and the report tells how each was taken."
)


def image_sockets(scored: str = "", scorer_optional: bool = False) -> list[io.Input]:
    """What makes images of a model and scores them; `scored`: what the scorer's tooltip ends with."""
    return [
        io.Clip.Input("clip", tooltip=CLIP),
        io.Vae.Input("vae", tooltip="The VAE of this model."),
        Scorer.Input(
            "scorer",
            optional=scorer_optional,
            tooltip=f"From LoCo CLIP Scorer or LoCo CLIP Vision Scorer.{scored}",
        ),
    ]


def scorer_output() -> io.Output:
    tooltip = "The scorer, for LoCo Layer Search, LoCo Erasure Report, LoCo Neuron Sweep and LoCo Neuron Effects."
    return Scorer.Output(display_name="scorer", tooltip=tooltip)


def layers_output(what: str, name: str = "layers") -> io.Output:
    return Layers.Output(display_name=name, tooltip=f"{what}, for LoCo Edit Solve and LoCo Prompt per Layer.")


def strength_input(tooltip: str) -> io.Input:
    return io.Float.Input("strength", default=1.0, min=-2.0, max=4.0, step=0.05, tooltip=tooltip)


def schedule_inputs(note: str = "") -> list[io.Input]:
    """From when to when; `note`: what the tooltips end with."""
    return [
        io.Float.Input(
            f"{end}_percent",
            default=default,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip=f"The share of the denoising after which the change {verb}: 0 is its start, 1 its end.{note}",
        )
        for end, default, verb in (("start", 0.0, "begins"), ("end", 1.0, "ends"))
    ]


def filename_prefix_input(default: str, tooltip: str, advanced: bool = False) -> io.Input:
    return io.String.Input("filename_prefix", default=default, advanced=advanced, tooltip=tooltip)


def saved_file_input(folder: str) -> io.Input:
    """A file that a Save node has put into this folder."""
    return io.Combo.Input(
        "file",
        options=safetensors_files(folder) or [NO_FILE],
        tooltip=f"A .safetensors file in models/{folder} or output/{folder}.",
    )


def saved_file_output() -> io.Output:
    return io.String.Output(display_name="file", tooltip="The name of the saved file, inside the output folder.")


def export_report_output() -> io.Output:
    return io.String.Output(display_name="report", tooltip="What is in the file, and how to load it.")


def lora_inputs(filename_prefix: str) -> list[io.Input]:
    return [
        io.Combo.Input(
            "naming",
            options=Naming,
            default=Naming.KOHYA,
            advanced=True,
            tooltip="How the keys in the file are named; ComfyUI, Forge and diffusers load both. kohya: the names that "
            "most programs know (diffusers loads SDXL's pooled embedding from version 0.39 on). diffusers: its own "
            "names, for programs that know only those.",
        ),
        filename_prefix_input(
            filename_prefix,
            "Folder and name of the file in the output folder. To use a file in loras/, press R: Load LoRA then "
            "lists it.",
        ),
    ]
