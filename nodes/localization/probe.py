"""LoCo Probe: in which layers, and when, two prompts make their difference."""

from __future__ import annotations

import comfy.samplers
from comfy_api.latest import io

from ...loco_core.localization.pictures import probe_figure, probe_map
from ...loco_core.localization.probe import ProbePlan, Prober, find_window
from ...loco_core.localization.probe_report import probe_text
from ...loco_core.models.engine import Sampling
from ...loco_core.models.layers import Part
from ...loco_core.prompts import Attribute, prompt_pairs
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import RowProgress, node_output, to_image
from ..inputs.sampling import SEEDS, negative_prompt_input, seeds_from
from ..inputs.shared import CLIP, MARKS, MODEL, layers_output


class ProbeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_Probe",
            display_name="LoCo Probe",
            category="loco",
            search_aliases=["find layers", "which layers", "layer map", "localize", "heat map", "attribution"],
            description="Measures in seconds which cross-attention layers make the difference between two prompts, "
            "and when in the denoising. It makes no images and needs no scorer: it looks at what the model predicts. "
            "To see the layers at work in images, use LocoGen Layer Search.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Clip.Input("clip", tooltip=CLIP),
                io.String.Input(
                    "concept_prompts",
                    multiline=True,
                    default="a painting of a house in the style of Van Gogh",
                    tooltip="A prompt with the concept; several, one per line, give a surer answer. A name alone ('Van "
                    "Gogh') is expanded with the paper's four prompt patterns for the attribute." + MARKS,
                ),
                io.String.Input(
                    "target_prompts",
                    multiline=True,
                    default="a painting of a house",
                    tooltip="The same prompts without the concept, or with what takes its place: one line for each "
                    "concept prompt, or a single line for all." + MARKS,
                ),
                io.Combo.Input(
                    "attribute",
                    options=Attribute,
                    default=Attribute.STYLE,
                    advanced=True,
                    tooltip="What a name alone stands for; whole prompts need no attribute.",
                ),
                negative_prompt_input(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=SEEDS - 1,
                    control_after_generate="fixed",
                    advanced=True,
                    tooltip="The first seed.",
                ),
                io.Int.Input(
                    "seed_count",
                    default=1,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="Runs for each prompt: seed, seed + 1, and so on. With two or more, the report has an "
                    "interval.",
                ),
                io.Int.Input(
                    "levels",
                    default=5,
                    min=1,
                    max=1000,
                    advanced=True,
                    tooltip="At how many noise levels to measure, spread over the denoising from pure noise on.",
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=1000, advanced=True, tooltip="Steps of the run that is probed."
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=1.0,
                    max=100.0,
                    step=0.1,
                    advanced=True,
                    tooltip="Classifier-free guidance of the run that is probed. The measure itself is without.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.KSampler.SCHEDULERS,
                    default="normal",
                    advanced=True,
                    tooltip="The noise schedule of the run that is probed.",
                ),
                *(
                    io.Int.Input(
                        side,
                        default=512,
                        min=64,
                        max=4096,
                        step=8,
                        tooltip=f"Image {side} in pixels. Use the size that the model was made for: 512 for SD 1.5, "
                        "768 for SD 2.1, 1024 for SDXL.",
                    )
                    for side in ("width", "height")
                ),
                io.Int.Input(
                    "batch_rows",
                    default=8,
                    min=1,
                    max=1024,
                    advanced=True,
                    tooltip="Predictions in one call of the model. If memory is short, fewer are made at once.",
                ),
                io.Combo.Input(
                    "part",
                    options=Part,
                    default=Part.BOTH,
                    advanced=True,
                    tooltip="What gets the target prompt: the keys and the values of the layers, or one of the two.",
                ),
            ],
            outputs=[
                layers_output("The smallest window of layers that makes the difference"),
                io.Image.Output(display_name="map", tooltip="The share of every window at every noise level."),
                io.String.Output(display_name="report", tooltip="The verdict, the best windows, and the cost."),
                io.Image.Output(display_name="model_figure", tooltip="The model, with its layers coloured by share."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, clip, concept_prompts: str, target_prompts: str, attribute: str, **asked) -> io.NodeOutput:
        layers = read_layers(model)
        pairs = prompt_pairs(concept_prompts, target_prompts, attribute)
        plan = ProbePlan(
            pairs=pairs.pairs,
            seeds=seeds_from(asked["seed"], asked["seed_count"]),
            sampling=Sampling(
                asked["steps"],
                asked["cfg"],
                "euler",
                asked["scheduler"],
                asked["width"],
                asked["height"],
                asked["negative_prompt"],
            ),
            levels=asked["levels"],
            part=asked["part"],
            taken=pairs.taken,
        )
        engine = ComfyEngine(model, clip, None, layers)
        progress = RowProgress(plan.about_rows(layers), cls.hidden.unique_id)
        result = find_window(Prober(engine, plan, asked["batch_rows"], progress), layers)
        report = probe_text(result)
        pictures = to_image(probe_map(result)), to_image(probe_figure(result, layers))
        return node_output(cls, result.layers, pictures[0], report, pictures[1], text=report, images=pictures)


NODES = [ProbeNode]
