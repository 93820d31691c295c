"""Per-Layer Conditioning Injector: chosen layers read another prompt."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.models.layers import Part
from ..host.branches import Branch, Schedule, Scope
from ..host.injection import InjectionSettings, inject
from ..host.layers import read_layers
from ..inputs.shared import schedule_inputs
from ..sockets import Layers


class ConditioningInjectorNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_ConditioningInjector",
            display_name="Per-Layer Conditioning Injector",
            category="loco",
            description="Lets the chosen cross-attention layers read another prompt while all others read the "
            "sampler's own. Several in a row add up, each on its own layers. No weight is changed.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model."),
                io.Conditioning.Input(
                    "conditioning",
                    tooltip="What the chosen layers read: one prompt, encoded with the CLIP of this model.",
                ),
                Layers.Input("layers", tooltip="From LoCo Layer Select, LoCo Layers Load or LocoGen Layer Search."),
                io.Combo.Input(
                    "part",
                    options=Part.words(),
                    default=str(Part.BOTH),
                    tooltip="Keys decide where in the picture a word is heard, values what it says there. "
                    "The paper changes both.",
                ),
                io.Combo.Input(
                    "branch",
                    options=Branch.words(),
                    default=str(Branch.POSITIVE),
                    tooltip="positive: where the sampler's positive prompt is read, as in the paper. negative: "
                    "everywhere else (the negative prompt, and the further prompts of guiders that take three).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=4.0,
                    step=0.05,
                    tooltip="1: the layers read the other prompt alone. 0: they read their own. Between: a blend of "
                    "both. Beyond 1: more of what tells the other from their own.",
                ),
                *schedule_inputs(),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model whose chosen layers read otherwise.")],
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
    ) -> io.NodeOutput:
        scope = Scope(Branch.parse(branch, "branch"), Schedule(start_percent, end_percent))
        settings = InjectionSettings(Part.parse(part, "part"), strength, scope)
        return io.NodeOutput(inject(model, read_layers(model), conditioning, layers, settings))


NODES = [ConditioningInjectorNode]
