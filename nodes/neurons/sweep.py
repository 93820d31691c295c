"""LoCo Neuron Sweep: how many neurons to ablate."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.ablation import Mode
from ...loco_core.neurons.pictures import sweep_plot, sweep_sheet
from ...loco_core.neurons.sweep import SweepRequest, parse_counts, sweep_neurons, sweep_report
from ..comparison.inputs import ErasureInputs, erasure_inputs
from ..host.ablation import check_fits
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import image_progress, node_output, to_image
from ..inputs.shared import image_sockets
from ..sockets import Neurons
from .inputs import mode_input, ranking_input


class NeuronSweepNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronSweep",
            display_name="LoCo Neuron Sweep",
            category="loco/neurons",
            search_aliases=["neuron", "xy plot", "try counts", "how many neurons", "compare counts"],
            description="Finds how many neurons to ablate. It ablates more and more of them, measures how much of the "
            "concept goes and how much of the rest stays, and recommends a count.",
            inputs=[
                io.Model.Input("model", tooltip="The model, before any ablation."),
                *image_sockets(),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect, Effects or Load."),
                io.String.Input(
                    "counts",
                    default="5%, 10%, 25%, 40%",
                    tooltip="How many neurons to try, separated by commas: numbers, or percents of all that were "
                    "detected.",
                ),
                ranking_input(),
                mode_input((Mode.MEAN, Mode.ZERO)),
                *erasure_inputs(),
            ],
            outputs=[
                io.Int.Output(
                    display_name="count",
                    tooltip="The recommended count, for LoCo Neuron Ablate; 0 where no count is better than none.",
                ),
                io.Image.Output(display_name="plot", tooltip="How much is removed and how much is kept, by count."),
                io.Image.Output(display_name="sheet", tooltip="The images, one row for each count."),
                io.String.Output(display_name="report", tooltip="The figures behind the plot."),
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
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        check_fits(model, engine.layers, neurons)
        plan, tried = ErasureInputs(**asked).plan(engine.layers), parse_counts(counts, neurons.count)
        request = SweepRequest(plan, neurons, tried, rank_by, mode)
        progress = image_progress(request.images, plan.sampling.steps, cls.hidden.unique_id)
        result = sweep_neurons(request, engine, engine.ablated, scorer, batch_rows, progress)
        report, plot, sheet = sweep_report(result), to_image(sweep_plot(result)), to_image(sweep_sheet(result))
        return node_output(cls, result.knee, plot, sheet, report, report=report, images=(plot, sheet))


NODES = [NeuronSweepNode]
