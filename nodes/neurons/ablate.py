"""LoCo Neuron Ablate: replaces the outputs of single neurons while the model runs."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.ablation import Ablation, Mode
from ..host.ablation import ALL_TOKENS, AblationMode, ablate, ablate_weights, fit, parse_positions
from ..host.branches import Branch, Schedule, Scope
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import schedule_inputs
from ..sockets import Layers, Neurons
from .inputs import AblationInputs, NeuronInputs, choice_inputs, mode_input, neuron_inputs, scale_input


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
                mode_input(tuple(Mode)),
                scale_input(),
                io.String.Input(
                    "token_positions",
                    default=ALL_TOKENS,
                    tooltip="'all', or positions in a chunk of tokens, from 0 on. '1-76' is all but the start token.",
                ),
                io.Combo.Input(
                    "branch",
                    options=Branch.words(),
                    default=str(Branch.BOTH),
                    tooltip="positive: only where the sampler's positive prompt is read. negative: everywhere else.",
                ),
                *schedule_inputs(),
                io.Combo.Input(
                    "apply",
                    options=AblationMode.words(),
                    default=str(AblationMode.RUN_TIME),
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
        known = read_layers(model)
        scope = Scope(Branch.parse(branch, "branch"), Schedule(start_percent, end_percent))
        positions = parse_positions(token_positions, known.family.chunk_length)
        if neurons is None:
            if clip is None or layers is None:
                raise ValueError("neurons: none are connected; connect them, or a clip and layers to detect them here")
            neurons = NeuronInputs(**asked).detect(ComfyEngine(model, clip, None, known), layers)
        fit(model, known, neurons)
        inputs = AblationInputs(
            rank_by=rank_by, choose_by=choose_by, count=count, threshold=threshold, mode=mode, scale=scale
        )
        change = inputs.ablation(neurons)
        act = ablate if AblationMode.parse(apply, "apply") is AblationMode.RUN_TIME else ablate_weights
        ablated = act(model, known, change, scope, positions)
        count_replaced, places = _counted(change)
        report = f"{count_replaced} of {neurons.count} neurons, {mode}: {places}"
        return node_output(cls, ablated, report, text=report)


def _counted(change: Ablation) -> tuple[int, str]:
    """How many neurons an ablation replaces, and how many where."""
    counts = {place: len(replacement.neurons) for place, replacement in sorted(change.items())}
    places = ", ".join(f"layer {layer} {projection} {count}" for (layer, projection), count in counts.items())
    return sum(counts.values()), places or "nothing is changed"


NODES = [NeuronAblateNode]
