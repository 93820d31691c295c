"""LoCo Probe: in which layers, and when, two prompts make their difference."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...loco_core.localization.localize import about_rows, localize
from ...loco_core.localization.pictures import probe_picture
from ...loco_core.localization.plan import ProbePlan
from ...loco_core.localization.probe import Prober
from ...loco_core.localization.probe_report import block_report, localization_text, probe_report
from ...loco_core.localization.verdict import Kind
from ...loco_core.models.engine import Sampling
from ...loco_core.prompts import Attribute, prompt_pairs
from ..host.engine import ComfyEngine
from ..host.layers import image_sides, read_layers
from ..host.percents import schedule_of_steps
from ..host.progress import CountProgress, node_output, to_image
from ..inputs.sampling import (
    batch_rows_input,
    cfg_input,
    negative_prompt_input,
    scheduler_input,
    seed_input,
    seeds_from,
    size_inputs,
)
from ..inputs.shared import ANY_MODEL, CLIP
from .inputs import found_outputs, levels_input, pair_inputs, part_input


class ProbeNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_Probe",
            display_name="LoCo Probe",
            category="loco/find layers",
            search_aliases=[
                "where is it",
                "where does it live",
                "where style lives",
                "where does the style live",
                "where does a style live",
                "layers of a style",
                "locate",
                "find layers",
                "which layers",
                "layer map",
                "localize",
                "heat map",
                "attribution",
            ],
            description="Measures in seconds which cross-attention layers make the difference between two prompts, "
            "and when in the denoising. It makes no images and needs no scorer: it looks at what the model predicts. "
            "To see the layers at work in images, use LoCo Layer Search.",
            inputs=[
                io.Model.Input("model", tooltip=ANY_MODEL),
                io.Clip.Input("clip", tooltip=CLIP),
                *pair_inputs("a painting of a house in the style of Van Gogh", "a painting of a house"),
                *size_inputs(),
                io.Combo.Input(
                    "attribute",
                    options=Attribute,
                    default=Attribute.STYLE,
                    advanced=True,
                    tooltip="What a name alone stands for; whole prompts need no attribute.",
                ),
                negative_prompt_input(),
                levels_input(),
                part_input(),
                seed_input(),
                io.Int.Input(
                    "seed_count",
                    default=1,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="Runs for each prompt: seed, seed + 1, and so on. More give a surer answer; the "
                    "report says how far they differ.",
                ),
                io.Int.Input(
                    "steps", default=20, min=1, max=1000, advanced=True, tooltip="Steps of the run that is probed."
                ),
                cfg_input("Classifier-free guidance of the run that is probed. The measure itself is without."),
                scheduler_input(),
                batch_rows_input(),
            ],
            outputs=[
                *found_outputs(),
                io.Image.Output(
                    display_name="map",
                    tooltip="The model with its layers coloured by share, and the share of every window at every noise "
                    "level.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="The verdict, the best windows, and the cost. Of Flux, SD 3 and the like also a ranking by "
                    "attention, which says nothing of how many blocks are needed.",
                ),
                *(
                    io.Float.Output(
                        display_name=f"{end}_percent",
                        tooltip=f"When the window {verb} to act, as a share of the denoising: for {end}_percent of "
                        "LoCo Prompt per Layer, or of LoCo Edit Apply in mode 'context'.",
                    )
                    for end, verb in (("start", "begins"), ("end", "ceases"))
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        concept_prompts: str,
        target_prompts: str,
        width: int,
        height: int,
        attribute: str,
        negative_prompt: str,
        levels: int,
        part: str,
        seed: int,
        seed_count: int,
        steps: int,
        cfg: float,
        scheduler: str,
        batch_rows: int,
    ) -> io.NodeOutput:
        layers = read_layers(model)
        asked = prompt_pairs(concept_prompts, target_prompts, attribute)
        plan = ProbePlan(
            pairs=asked.pairs,
            seeds=seeds_from(seed, seed_count),
            sampling=Sampling(steps, cfg, "euler", scheduler, *image_sides(layers, width, height), negative_prompt),
            levels=levels,
            part=part,
            taken=asked.taken,
        )
        engine = ComfyEngine(model, clip, None, layers)
        progress = CountProgress(about_rows(plan, layers), cls.hidden.unique_id, "probing the layers")
        found = localize(Prober(engine, plan, batch_rows, progress), layers)
        chosen = [found.layers, found.smallest]
        if found.kind is Kind.NO_EFFECT:  # what needs layers says why it did not run
            chosen = [ExecutionBlocker(localization_text(found))] * 2
        report = probe_report(found) + block_report(layers, found.layers, found.smallest)
        schedule = schedule_of_steps(model, engine.sigmas(plan.sampling), *found.acts)
        seen = to_image(probe_picture(found, layers))
        return node_output(cls, *chosen, seen, report, schedule.start, schedule.end, report=report, images=(seen,))


NODES = [ProbeNode]
