"""LoCo Neuron Effects: which neurons carry a style, measured by what happens without them."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.choices import check_one_of
from ...loco_core.neurons.ablation import Mode
from ...loco_core.neurons.effects import RUNS, EffectsRequest, measure_effects
from ...loco_core.neurons.pictures import effect_plot
from ...loco_core.neurons.report import neuron_report
from ...loco_core.report import Report
from ..comparison.inputs import ErasureInputs, erasure_inputs
from ..host.ablation import check_fits
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import image_progress, node_output, to_image
from ..inputs.shared import image_sockets
from ..sockets import Neurons
from .inputs import mode_input


class NeuronEffectsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronEffects",
            display_name="LoCo Neuron Effects",
            category="loco/neurons",
            search_aliases=["neuron", "rank neurons", "neuron importance", "neuron attribution"],
            description="Ranks neurons by what happens in images without them. It ablates groups of neurons, many "
            "groups at a time, measures what goes and what stays, and splits the best groups. Use it if the scores of "
            "LoCo Neuron Detect mislead: it takes many images.",
            inputs=[
                io.Model.Input("model", tooltip="The model, before any ablation."),
                *image_sockets(),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect or Load."),
                io.Combo.Input(
                    "runs",
                    options=list(map(str, RUNS)),
                    default=str(EffectsRequest.runs),
                    advanced=True,
                    tooltip="Ablations in each round. 16 tell 7 groups of neurons apart, 32 tell 15, 64 tell 31.",
                ),
                io.Int.Input(
                    "rounds",
                    default=2,
                    min=1,
                    max=8,
                    advanced=True,
                    tooltip="Rounds of measuring. After each round the better half of the groups is split.",
                ),
                mode_input((Mode.MEAN, Mode.ZERO)),
                *erasure_inputs(),
            ],
            outputs=[
                Neurons.Output(
                    display_name="neurons",
                    tooltip="The same neurons with their effects. To use them, choose 'effect' as rank_by in LoCo "
                    "Neuron Ablate or Sweep.",
                ),
                io.Image.Output(display_name="plot", tooltip="The effect of each neuron, by its rank by signal."),
                io.String.Output(display_name="report", tooltip="How well the rankings agree."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model, clip, vae, scorer, neurons, runs: str, rounds: int, mode: str, batch_rows: int, **asked
    ) -> io.NodeOutput:
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        check_fits(model, engine.layers, neurons)
        check_one_of(runs, RUNS, "runs")
        plan = ErasureInputs(**asked).plan(engine.layers)
        request = EffectsRequest(plan, neurons, int(runs), rounds, mode)
        progress = image_progress(request.images, plan.sampling.steps, cls.hidden.unique_id)
        measured = measure_effects(request, engine, engine.ablated, scorer, batch_rows, progress)
        report = neuron_report(measured) + Report(tuple(plan.unseen_by(scorer)))
        plot = to_image(effect_plot(measured))
        return node_output(cls, measured, plot, report, report=report, images=(plot,))


NODES = [NeuronEffectsNode]
