"""LoCo Neuron Effects: which neurons carry a style, measured by what happens without them."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.ablation import Mode
from ...loco_core.neurons.effects import RUNS, EffectsRequest, measure_effects
from ...loco_core.neurons.pictures import effect_plot
from ...loco_core.neurons.report import neuron_lines
from ..comparison.inputs import ErasureInputs, erasure_inputs
from ..host.ablation import fit
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import image_progress, node_output, to_image
from ..sockets import Neurons, Scorer
from .inputs import mode_input


class NeuronEffectsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronEffects",
            display_name="LoCo Neuron Effects",
            category="loco",
            description="Ablates groups of neurons, many groups at a time, measures what goes and what stays, and "
            "splits the best groups: a ranking by effect, for when the scores of LoCo Neuron Detect mislead.",
            inputs=[
                io.Model.Input("model", tooltip="The model, not yet ablated."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                io.Vae.Input("vae", tooltip="The VAE of this model."),
                Scorer.Input("scorer", tooltip="From LoCo CLIP Scorer."),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect or Load."),
                io.Combo.Input(
                    "runs",
                    options=list(map(str, RUNS)),
                    default=str(RUNS[1]),
                    tooltip="Ablations in a round. 32 tell 15 groups of neurons apart, 64 tell 31.",
                ),
                io.Int.Input(
                    "rounds",
                    default=2,
                    min=1,
                    max=8,
                    tooltip="After each round the better half of the groups is split, and measured again.",
                ),
                mode_input((Mode.MEAN, Mode.ZERO)),
                *erasure_inputs(),
            ],
            outputs=[
                Neurons.Output(
                    display_name="neurons", tooltip="The same neurons with their effects: choose rank_by 'effect'."
                ),
                io.Image.Output(display_name="plot", tooltip="The effect of the neurons against their rank by signal."),
                io.String.Output(display_name="report", tooltip="How far the rankings agree."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model, clip, vae, scorer, neurons, runs: str, rounds: int, mode: str, batch_rows: int, **asked
    ) -> io.NodeOutput:
        engine = ComfyEngine(model, clip, vae, read_layers(model))
        fit(model, engine.layers, neurons)
        if runs not in map(str, RUNS):
            raise ValueError(f"runs: {runs!r}; give one of {', '.join(map(str, RUNS))}")
        plan = ErasureInputs(**asked).plan
        request = EffectsRequest(plan, neurons, int(runs), rounds, Mode.parse(mode, "mode"))
        progress = image_progress(request.images, plan.sampling.steps, cls.hidden.unique_id)
        measured = measure_effects(request, engine, engine.ablated, scorer, batch_rows, progress)
        report, plot = "\n".join(neuron_lines(measured)), to_image(effect_plot(measured))
        return node_output(cls, measured, plot, report, text=report, images=(plot,))


NODES = [NeuronEffectsNode]
