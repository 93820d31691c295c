"""LoCo Neuron Ablate: replaces the outputs of single neurons while the model runs."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.check import Advice, check_report
from ...loco_core.neurons.ablation import Ablation, Mode
from ...loco_core.report import Report
from ..editing.inputs import size_input
from ..host.ablation import ALL_TOKENS, AblationMode, ablate, ablate_weights, check_fits, parse_positions
from ..host.branches import Branch, Schedule, Scope
from ..host.edit_check import Measuring
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import CLIP, MODEL, schedule_inputs
from ..sockets import Neurons
from .inputs import AblationInputs, choice_inputs, mode_input, scale_input

UNCHECKED = "not checked: connect a clip, and neurons that were detected for a name"
OF_ABLATION = Advice(
    asked="prompts with the concept",
    more="ablate more neurons: raise 'count'",
    less="name it in 'without' of LoCo Neuron Detect, or ablate fewer neurons",
    enough="if pictures still show it, ablate more neurons: raise 'count'",
)


class NeuronAblateNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronAblate",
            display_name="LoCo Neuron Ablate",
            category="loco/neurons",
            search_aliases=["neuron", "ablation", "disable neurons", "remove style", "unlearn", "forget"],
            description="Removes a style through single neurons that LoCo Neuron Detect has found: their outputs are "
            "replaced by what they are without the style. All other neurons stay, and no weight changes.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect, Effects or Load."),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=f"{CLIP} With it, the ablation is checked on the model. It makes no images.",
                ),
                *choice_inputs(),
                mode_input(tuple(Mode)),
                scale_input(),
                io.String.Input(
                    "token_positions",
                    default=ALL_TOKENS,
                    advanced=True,
                    tooltip="'all', or positions of tokens in the prompt, counted from 0. '1-76' is all but the start "
                    "token. A long prompt is split into chunks; positions count in each.",
                ),
                io.Combo.Input(
                    "branch",
                    options=Branch,
                    default=Branch.BOTH,
                    advanced=True,
                    tooltip="Which prompts of the sampler it acts on. positive: the positive prompt. negative: all "
                    "other prompts. both: all of them.",
                ),
                *schedule_inputs(),
                io.Combo.Input(
                    "apply",
                    options=AblationMode,
                    default=AblationMode.RUN_TIME,
                    advanced=True,
                    tooltip="run time: outputs are replaced while the model runs. weights: a patch on the weights, "
                    "which costs nothing while sampling. It needs mode zero or scale, all tokens, both branches, "
                    "start_percent 0 and end_percent 1.",
                ),
                size_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with these neurons replaced."),
                io.String.Output(
                    display_name="report",
                    tooltip="Whether the style is gone and the rest is kept; how many neurons are replaced, and where.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls,
        model,
        neurons,
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
        size: int,
        clip=None,
    ) -> io.NodeOutput:
        known = read_layers(model)
        scope = Scope(Branch.parse(branch, "branch"), Schedule(start_percent, end_percent))
        positions = parse_positions(token_positions, known.family.chunk_length)
        check_fits(model, known, neurons)
        inputs = AblationInputs(
            rank_by=rank_by, choose_by=choose_by, count=count, threshold=threshold, mode=mode, scale=scale
        )
        change = inputs.ablation(neurons)
        act = ablate if AblationMode.parse(apply, "apply") is AblationMode.RUN_TIME else ablate_weights
        ablated = act(model, known, change, scope, positions)
        told = Report((UNCHECKED,))
        if clip is not None and neurons.pairs:
            measuring = Measuring(model, clip, known, size, node_id=cls.hidden.unique_id)
            told = check_report(measuring.checked_ablation(ablated, neurons), OF_ABLATION)
        count_replaced, places = _counted(change)
        replaced = f"{count_replaced} of {neurons.count} neurons, {mode}: {places}"
        report = told + Report((replaced,), neurons.taken)
        return node_output(cls, ablated, report, report=report)


def _counted(change: Ablation) -> tuple[int, str]:
    """How many neurons an ablation replaces, and how many where."""
    counts = {place: len(replacement.neurons) for place, replacement in sorted(change.items())}
    places = ", ".join(f"layer {layer} {projection} {count}" for (layer, projection), count in counts.items())
    return sum(counts.values()), places or "nothing is changed"


NODES = [NeuronAblateNode]
