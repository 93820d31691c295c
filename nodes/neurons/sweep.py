"""LoCo Neuron Sweep: how many neurons to ablate."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.ablation import Mode
from ...loco_core.neurons.detection import Ranking
from ...loco_core.neurons.pictures import sweep_plot, sweep_sheet
from ...loco_core.neurons.sweep import SweepRequest, parse_counts, sweep_neurons, sweep_text
from ..comparison.inputs import ErasureInputs, erasure_inputs
from ..host.ablation import fit
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import image_progress, node_output, to_image
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
                mode_input((Mode.MEAN, Mode.ZERO)),
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
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        fit(model, engine.layers, neurons)
        plan, tried = ErasureInputs(**asked).plan, parse_counts(counts, neurons.count)
        request = SweepRequest(plan, neurons, tried, Ranking.parse(rank_by, "rank by"), Mode.parse(mode, "mode"))
        progress = image_progress(request.images, plan.sampling.steps, cls.hidden.unique_id)
        result = sweep_neurons(request, engine, engine.ablated, scorer, batch_rows, progress)
        report, plot, sheet = sweep_text(result), to_image(sweep_plot(result)), to_image(sweep_sheet(result))
        return node_output(cls, result.knee, plot, sheet, report, text=report, images=(plot, sheet))


NODES = [NeuronSweepNode]
