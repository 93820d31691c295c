"""LoCo Neuron Sweep: how many neurons to ablate."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..loco_core.engine import Sampling
from ..loco_core.erasure import ErasurePlan
from ..loco_core.neuron_sweep import parse_counts, sweep_images, sweep_neurons, sweep_text
from ..loco_core.neurons import MODES
from ..loco_core.pictures import sweep_plot, sweep_sheet
from ..loco_core.prompts import lines, whole_pairs
from .ablation import ablate, fit
from .branches import EVERYWHERE
from .engine import ComfyEngine, to_image
from .neuron_inputs import ranking_input
from .progress import ImageProgress, show_text
from .sampling_inputs import sampling_inputs
from .types import Neurons, Scorer


class NeuronSweepNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronSweep",
            display_name="LoCo Neuron Sweep",
            category="loco",
            description="Ablates more and more neurons, measures how much of the concept goes and how much of the rest "
            "stays, and says which count to choose.",
            inputs=[
                io.Model.Input("model", tooltip="The model, not yet ablated."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                io.Vae.Input("vae", tooltip="The VAE of this model."),
                Scorer.Input("scorer", tooltip="From LoCo CLIP Scorer."),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect or Load."),
                io.String.Input(
                    "counts",
                    default="10, 30, 50, 100, 200, 25%",
                    tooltip="How many neurons are ablated in turn: numbers, or percents of all that were detected.",
                ),
                ranking_input(),
                io.Combo.Input(
                    "mode",
                    options=list(MODES[:2]),
                    default=MODES[0],
                    tooltip="What takes the place of the neurons' outputs, as in LoCo Neuron Ablate.",
                ),
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
                    tooltip="What the concept prompts should show without it: one line for each, or a single line for "
                    "all.",
                ),
                io.String.Input(
                    "keep_prompts",
                    multiline=True,
                    default="a painting of a house in the style of Monet\na photo of a cat",
                    tooltip="Prompts whose images should stay as they are, one per line.",
                ),
                io.String.Input("negative_prompt", default="", tooltip="The negative prompt of all images."),
                *sampling_inputs(),
            ],
            outputs=[
                io.Int.Output(display_name="count", tooltip="The count to choose, for LoCo Neuron Ablate."),
                io.Image.Output(display_name="plot", tooltip="Removed and kept, by count."),
                io.Image.Output(display_name="sheet", tooltip="The images of every count, one below the other."),
                io.String.Output(display_name="report", tooltip="Removed and kept, by count, as text."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        clip,
        vae,
        scorer,
        neurons,
        counts: str,
        rank_by: str,
        mode: str,
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
        batch_rows: int,
    ) -> io.NodeOutput:
        fit(model, neurons)
        tried = parse_counts(counts, neurons.count)
        plan = ErasurePlan(
            tuple(whole_pairs(concept_prompts, target_prompts)),
            tuple(dict.fromkeys(lines(keep_prompts))),
            tuple(range(seed, seed + seed_count)),
            Sampling(steps, cfg, sampler_name, scheduler, width, height, negative_prompt),
        )
        images, node_id = sweep_images(plan, tried), cls.hidden.unique_id
        progress = ImageProgress(images, steps, batch_rows, node_id, f"{images} images")
        result = sweep_neurons(
            ComfyEngine(model, clip, vae),
            lambda change: ComfyEngine(ablate(model, change, EVERYWHERE), clip, vae),
            scorer,
            plan,
            neurons,
            tried,
            rank_by,
            mode,
            batch_rows,
            progress.on_batch,
            progress.on_step,
        )
        report = sweep_text(result)
        show_text(report, node_id)
        plot, sheet = to_image(sweep_plot(result)), to_image(sweep_sheet(result))
        previews = [*ui.PreviewImage(plot, cls=cls).values, *ui.PreviewImage(sheet, cls=cls).values]
        return io.NodeOutput(result.knee, plot, sheet, report, ui={"images": previews, "text": (report,)})


NODES = [NeuronSweepNode]
