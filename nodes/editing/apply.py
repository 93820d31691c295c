"""LocoEdit Apply: removes a concept by editing the K and V weights of chosen layers in closed form."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.branches import Schedule
from ..host.edit_check import Measuring
from ..host.editing import EditMode, apply_edit, check_schedule
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import MODEL, schedule_inputs, strength_input
from ..sockets import Edit, Layers
from .inputs import (
    EDIT_CLIP,
    EDIT_LAYERS,
    EditInputs,
    edit_inputs,
    edit_report_output,
    edit_text,
    files_changed_at,
    size_input,
)


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
                    tooltip="A solved edit from LoCo Edit Solve, Combine or Load. With it, layers and the inputs from "
                    "concept to pooled are ignored; with a clip the edit is checked.",
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
                size_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The edited model."),
                edit_report_output(checked=True),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, concept=None, target=None, preserve=None, **others) -> list[float]:
        return files_changed_at(concept, target, preserve)

    @classmethod
    def execute(
        cls,
        model,
        strength: float,
        mode: str,
        start_percent: float,
        end_percent: float,
        size: int,
        clip=None,
        layers=None,
        edit=None,
        **asked,
    ) -> io.NodeOutput:
        if edit is None and (clip is None or layers is None):
            raise ValueError("edit: none is connected; connect one, or a clip and layers to solve it here")
        own, schedule, mode = read_layers(model), Schedule(start_percent, end_percent), EditMode.parse(mode, "mode")
        check_schedule(mode, schedule)  # before anything is measured
        measuring = None
        if clip is not None and strength and schedule.always:
            measuring = Measuring(model, clip, own, size, node_id=cls.hidden.unique_id)
        settings: list[str] = []
        if edit is None:
            edit, settings = EditInputs(**asked).solve(clip, layers, measuring, cls.hidden.unique_id)
        edited = apply_edit(model, own, edit, strength, mode, schedule)
        if not strength or not edit.recipe.layers:
            report = "nothing is edited: strength 0, or no layers"
        else:
            report = edit_text(edit, settings, measuring, strength)
        return node_output(cls, edited, report, text=report)


NODES = [EditApplyNode]
