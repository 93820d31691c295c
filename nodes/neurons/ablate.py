"""LoCo Neuron Ablate: replaces the outputs of single neurons while the model runs."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.detection import MODES, ablation, chosen_neurons
from ..host.ablation import ALL_TOKENS, WAYS, ablate, ablate_weights, fit, parse_positions
from ..host.branches import BRANCHES, Schedule, Scope
from ..host.progress import show_text
from ..inputs.shared import schedule_inputs
from ..sockets import Layers, Neurons
from .inputs import choice_inputs, detect, mode_input, neuron_inputs, scale_input


class NeuronAblateNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronAblate",
            display_name="LoCo Neuron Ablate",
            category="loco",
            description="Ablates single neurons of the K and V of the located layers: their outputs are replaced by "
            "what they are without the style, while all other neurons stay. No weight is changed.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model."),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder of this model, to detect neurons here."),
                Layers.Input(
                    "layers", optional=True, tooltip="The layers that hold the style, to detect neurons here."
                ),
                Neurons.Input(
                    "neurons",
                    optional=True,
                    tooltip="From LoCo Neuron Detect or Load. With it, clip, layers and the inputs from concept to "
                    "tokens are not used.",
                ),
                *neuron_inputs(),
                *choice_inputs(),
                mode_input(MODES),
                scale_input(),
                io.String.Input(
                    "token_positions",
                    default=ALL_TOKENS,
                    tooltip="'all', or positions in the 77 tokens, like '1-76': all but the start token.",
                ),
                io.Combo.Input(
                    "branch",
                    options=list(BRANCHES),
                    default=BRANCHES[2],
                    tooltip="positive: only where the sampler's positive prompt is read. negative: everywhere else.",
                ),
                *schedule_inputs(),
                io.Combo.Input(
                    "apply",
                    options=list(WAYS),
                    default=WAYS[0],
                    tooltip="run time: outputs are replaced while the model runs. weights: a patch on the weights, for "
                    "modes zero and scale on all tokens, in both branches, with start_percent 0 and end_percent 1.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with these neurons replaced."),
                io.String.Output(display_name="report", tooltip="How many neurons are replaced, and where."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls,
        model,
        rank_by: str,
        choose_by: str,
        count: int,
        threshold: float,
        mode: str,
        scale: float,
        token_positions: str,
        branch: str,
        start_percent: float,
        end_percent: float,
        apply: str,
        clip=None,
        layers=None,
        neurons=None,
        **asked,
    ) -> io.NodeOutput:
        scope, positions = Scope(branch, Schedule(start_percent, end_percent)), parse_positions(token_positions)
        if neurons is None:
            if clip is None or layers is None:
                raise ValueError("neurons: none are connected; connect them, or a clip and layers to detect them here")
            neurons = detect(model, clip, layers, **asked)
        fit(model, neurons)
        chosen = chosen_neurons(neurons, choose_by, count, threshold, rank_by)
        change = ablation(neurons, chosen, mode, scale)
        if apply not in WAYS:
            raise ValueError(f"apply: {apply!r}; give one of {', '.join(WAYS)}")
        ablated = (ablate if apply == WAYS[0] else ablate_weights)(model, change, scope, positions)
        total = sum(len(numbers) for numbers in chosen.values())
        places = ", ".join(f"layer {layer} {part} {len(numbers)}" for (layer, part), numbers in sorted(chosen.items()))
        report = f"{total} of {neurons.count} neurons, {mode}" + (f": {places}" if total else ": nothing is changed")
        show_text(report, cls.hidden.unique_id)
        return io.NodeOutput(ablated, report, ui={"text": (report,)})


NODES = [NeuronAblateNode]
