"""LoCo Neuron Effects: which neurons carry a style, measured by what happens without them."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ...loco_core.drawing import effect_plot
from ...loco_core.neurons.detection import MODES, neuron_lines
from ...loco_core.neurons.effects import RUNS, effect_images, measure_effects
from ..comparison.inputs import erasure_inputs, erasure_plan
from ..host.ablation import ablate, fit
from ..host.branches import EVERYWHERE
from ..host.engine import ComfyEngine, to_image
from ..host.progress import ImageProgress, show_text
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
                mode_input(MODES[:2]),
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
        fit(model, neurons)
        plan, node_id = erasure_plan(**asked), cls.hidden.unique_id
        if runs not in map(str, RUNS):
            raise ValueError(f"runs: {runs!r}; give one of {', '.join(map(str, RUNS))}")
        images = effect_images(plan, int(runs), rounds)
        progress = ImageProgress(images, plan.sampling.steps, batch_rows, node_id, f"{images} images")
        measured = measure_effects(
            ComfyEngine(model, clip, vae),
            lambda change: ComfyEngine(ablate(model, change, EVERYWHERE), clip, vae),
            scorer,
            plan,
            neurons,
            int(runs),
            rounds,
            mode,
            batch_rows,
            progress.on_batch,
            progress.on_step,
        )
        report = "\n".join(neuron_lines(measured))
        show_text(report, node_id)
        plot = to_image(effect_plot(measured))
        images = ui.PreviewImage(plot, cls=cls).values
        return io.NodeOutput(measured, plot, report, ui={"images": images, "text": (report,)})


NODES = [NeuronEffectsNode]
