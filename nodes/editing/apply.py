"""LocoEdit Apply: removes a concept by editing the K and V weights of chosen layers in closed form."""

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
from ..inputs.shared import MODEL, schedule_inputs, strength_input
from ..sockets import Edit, Layers
from .inputs import EDIT_CLIP, EDIT_LAYERS, EditInputs, edit_inputs, edit_report_output


class EditApplyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditApply",
            display_name="LocoEdit Apply",
            category="loco",
            search_aliases=[
                "erase",
                "erase style",
                "erase concept",
                "remove style",
                "remove artist",
                "remove object",
                "remove concept",
                "delete concept",
                "concept erasure",
                "unlearn",
                "unlearning",
                "forget",
                "change fact",
                "knowledge editing",
                "model editing",
            ],
            description="Removes a style or an object, or changes a fact, in the chosen layers only. Afterwards these "
            "layers respond to the concept as they do to the target; the rest of the model stays. The edit is solved "
            "in closed form: nothing is trained, and the model on disk does not change.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Clip.Input("clip", optional=True, tooltip=EDIT_CLIP),
                Layers.Input("layers", optional=True, tooltip=EDIT_LAYERS),
                Edit.Input(
                    "edit",
                    optional=True,
                    tooltip="A solved edit from LoCo Edit Solve, Combine or Load. With it, clip, layers and the inputs "
                    "from concept to pooled are ignored.",
                ),
                *edit_inputs(),
                strength_input("How much of the edit is applied: 1 is the edit as solved, 0 is none."),
                io.Combo.Input(
                    "mode",
                    options=EditMode,
                    default=EditMode.WEIGHTS,
                    advanced=True,
                    tooltip="weights: a patch on the K and V weights, which costs nothing while sampling. context: a "
                    "change of the embedding that the layers get, with the same effect. Choose it for weights that "
                    "cannot be patched, and to use the percents.",
                ),
                *schedule_inputs(" Only with mode 'context'."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The edited model."), edit_report_output()],
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
        report = "nothing is edited: strength 0, or no layers" if nothing else "\n".join(report_lines(edit))
        return node_output(cls, edited, report, text=report)


NODES = [EditApplyNode]
