"""LoCo Neuron Sweep: how many neurons to ablate."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...loco_core.drawing import sweep_plot, sweep_sheet
from ...loco_core.neurons.detection import MODES
from ...loco_core.neurons.sweep import parse_counts, sweep_images, sweep_neurons, sweep_text
from ..comparison.inputs import erasure_inputs, erasure_plan
from ..host.ablation import ablate, fit
from ..host.branches import EVERYWHERE
from ..host.engine import ComfyEngine, to_image
from ..host.progress import ImageProgress, show_text
from ..sockets import Neurons, Scorer
from .inputs import mode_input, ranking_input


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
                    default="5%, 10%, 25%, 40%",
                    tooltip="How many neurons are ablated in turn: numbers, or percents of all that were detected.",
                ),
                ranking_input(),
                mode_input(MODES[:2]),
                *erasure_inputs(),
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
        batch_rows: int,
        **asked,
    ) -> io.NodeOutput:
        fit(model, neurons)
        tried = parse_counts(counts, neurons.count)
        plan = erasure_plan(**asked)
        images, node_id = sweep_images(plan, tried), cls.hidden.unique_id
        progress = ImageProgress(images, plan.sampling.steps, batch_rows, node_id, f"{images} images")
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
