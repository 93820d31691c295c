"""LocoEdit Apply: edits the K and V of chosen layers in closed form."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.editing.report import report_lines
from ...loco_core.editing.solve import solve_edit
from ..host.branches import Schedule
from ..host.editing import EditMode, apply_edit
from ..host.layers import read_layers
from ..host.progress import node_output
from ..host.text_encoder import encode
from ..inputs.shared import schedule_inputs
from ..sockets import Edit, Layers
from .inputs import CLIP_TOOLTIP, LAYERS_TOOLTIP, EditInputs, edit_inputs


class EditApplyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditApply",
            display_name="LocoEdit Apply",
            category="loco",
            description="Edits the chosen cross-attention layers in closed form, so that they read the concept as the "
            "target: the style is gone, the rest of the model stays. Nothing is trained, and the model on disk is "
            "not changed. LoRA loaders go before this node.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model. LoRA loaders go before."),
                io.Clip.Input("clip", optional=True, tooltip=CLIP_TOOLTIP),
                Layers.Input("layers", optional=True, tooltip=LAYERS_TOOLTIP),
                Edit.Input(
                    "edit",
                    optional=True,
                    tooltip="An edit from LoCo Edit Solve, Combine or Load. With it, clip, layers and all inputs from "
                    "concept to pooled are not used.",
                ),
                *edit_inputs(),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=4.0,
                    step=0.05,
                    tooltip="1 is the edit as solved, 0 leaves the model untouched.",
                ),
                io.Combo.Input(
                    "mode",
                    options=EditMode.words(),
                    default=str(EditMode.WEIGHTS),
                    tooltip="weights: a patch on the K and V weights, at no cost while sampling. context: changes what "
                    "the layers read, to the same effect: for weights that cannot be patched, and for the percents.",
                ),
                *schedule_inputs("With mode 'context': "),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The edited model.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls,
        model,
        strength: float,
        mode: str,
        start_percent: float,
        end_percent: float,
        clip=None,
        layers=None,
        edit=None,
        **asked,
    ) -> io.NodeOutput:
        if edit is None:
            if clip is None or layers is None:
                raise ValueError("edit: none is connected; connect one, or a clip and layers to solve it here")
            edit = solve_edit(partial(encode, clip), EditInputs(**asked).recipe(clip, layers))
        schedule = Schedule(start_percent, end_percent)
        edited = apply_edit(model, read_layers(model), edit, strength, EditMode.parse(mode, "mode"), schedule)
        nothing = not strength or not len(edit.recipe.layers)
        text = "nothing is edited: strength 0, or no layers" if nothing else "\n".join(report_lines(edit))
        return node_output(cls, edited, text=text)


NODES = [EditApplyNode]
