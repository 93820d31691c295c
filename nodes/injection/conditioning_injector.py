"""LoCo Prompt per Layer: chosen layers get another prompt."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.layers import LayerSet, Part
from ...loco_core.report import Report
from ..host.branches import Branch, Schedule, Scope
from ..host.injection import InjectionSettings, inject
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import ANY_MODEL, schedule_inputs, strength_input
from ..sockets import Layers


class ConditioningInjectorNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_ConditioningInjector",
            display_name="LoCo Prompt per Layer",
            category="loco/prompts",
            search_aliases=[
                "per-layer conditioning injector",
                "prompt per layer",
                "block prompt",
                "prompt per block",
                "regional prompt",
                "mix prompts",
                "other prompt",
                "other prompt for layers",
                "give layers another prompt",
                "another prompt for layers",
                "two prompts in one picture",
            ],
            description="Gives the chosen cross-attention layers another prompt. All other layers get the prompt of "
            "the sampler. Several of these nodes can follow each other, each for its own layers. No weight changes.",
            inputs=[
                io.Model.Input("model", tooltip=ANY_MODEL),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="The prompt that the chosen layers get, from CLIP Text Encode with the CLIP of this model.",
                ),
                Layers.Input(
                    "layers", tooltip="From LoCo Layer Select, LoCo Layers Load, LoCo Layer Search or LoCo Probe."
                ),
                io.Combo.Input(
                    "part",
                    options=Part,
                    default=Part.BOTH,
                    advanced=True,
                    tooltip="What gets this prompt. Keys decide where in the picture a word acts, values decide what "
                    "it adds there. The paper changes both.",
                ),
                io.Combo.Input(
                    "branch",
                    options=Branch,
                    default=Branch.POSITIVE,
                    advanced=True,
                    tooltip="Which prompts of the sampler are replaced. positive: the positive prompt, as in the "
                    "paper. negative: all other prompts (the negative one, and the further ones of guiders that take "
                    "three). both: all of them.",
                ),
                strength_input(
                    "1: the layers get this prompt alone. 0: no change. Between 0 and 1: a blend of both prompts. "
                    "Above 1: the difference between the two is exaggerated. Below 0: away from this prompt."
                ),
                *schedule_inputs(),
                io.Boolean.Input(
                    "pooled",
                    default=False,
                    advanced=True,
                    tooltip="SD 3.x and Flux.1: whether the chosen blocks get the pooled embedding of this prompt too. "
                    "Other models have none for single layers.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model whose chosen layers get this prompt."),
                io.String.Output(display_name="text", tooltip="Which layers get this prompt."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls,
        model,
        conditioning,
        layers,
        part: str,
        branch: str,
        strength: float,
        start_percent: float,
        end_percent: float,
        pooled: bool,
    ) -> io.NodeOutput:
        scope = Scope(Branch.parse(branch, "branch"), Schedule(start_percent, end_percent))
        settings = InjectionSettings(Part.parse(part, "part"), strength, scope, pooled)
        injected = inject(model, read_layers(model), conditioning, layers, settings)
        report = _told(layers, strength)
        return node_output(cls, injected, report, report=report)


def _told(layers: LayerSet, strength: float) -> Report:
    """Which layers get which prompt."""
    if not layers:
        return Report(("no layer is chosen: all get the prompt of the sampler",))
    if not strength:
        return Report(("strength 0: all layers get the prompt of the sampler",))
    others = layers.layer_count - len(layers)
    verb = "gets" if len(layers) == 1 else "get"
    share = "" if strength == 1 else f", at strength {strength:g}"
    return Report((f"{layers.named} {verb} this prompt{share}; the other {others} that of the sampler",))


NODES = [ConditioningInjectorNode]
