"""LoCo Edit Apply: edits the K and V weights of a model's layers with a solved edit."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.report import applied_report, edit_report
from ...loco_core.report import Report
from ..host.branches import Schedule
from ..host.editing import EditMode, apply_edit, is_applied
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import MODEL, schedule_inputs, strength_input
from ..sockets import Edit
from .inputs import EDIT, edit_report_output

TWICE = "WARNING: a node before this one has applied this very edit: it acts twice now"
OPPOSITE = "the concept becomes stronger, not weaker"


class EditApplyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditApply",
            display_name="LoCo Edit Apply",
            category="loco/edit",
            search_aliases=[
                "locoedit apply",
                "apply edit",
                "use edit",
                "edit model",
                "erase style",
                "remove style",
                "edit strength",
                "locoedit",
            ],
            description="Applies an edit to a model: the edit's layers then respond to the concept as they do to the "
            "target, and the rest of the model stays. The model on disk does not change. LoCo Edit Solve makes edits; "
            "to remove a concept in one node, use LoCo Remove a Concept.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                Edit.Input("edit", tooltip=EDIT),
                strength_input("How much of the edit is applied: 1 is the edit as solved, 0 is none."),
                io.Combo.Input(
                    "mode",
                    options=EditMode,
                    default=EditMode.WEIGHTS,
                    advanced=True,
                    tooltip="weights: a patch on the K and V weights, which costs nothing while sampling. context: a "
                    "change of the embedding that the layers get, with the same effect. Choose it for weights that "
                    "cannot be patched, and to use the percents. Some blocks of a Flux, SD 3, Qwen-Image or Z-Image "
                    "are always edited so.",
                ),
                *schedule_inputs(" Only with mode 'context'."),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The edited model."),
                edit_report_output(),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(
        cls, model, edit, strength: float, mode: str, start_percent: float, end_percent: float
    ) -> io.NodeOutput:
        schedule = Schedule(start_percent, end_percent)
        layers = read_layers(model)
        edited = apply_edit(model, layers, edit, strength, EditMode.parse(mode, "mode"), schedule)
        if not strength:
            report = Report(("nothing is edited: strength 0",))
        elif not edit.recipe.layers:
            report = Report(("nothing is edited: the edit has no layers",))
        else:
            told = (f"strength {strength:g} is the opposite of the edit: {OPPOSITE}",) if strength < 0 else ()
            warned = Report((TWICE, *told) if is_applied(model, edit) else told)
            report = warned + edit_report(edit) + applied_report(layers, edit)
        return node_output(cls, edited, report, report=report)


NODES = [EditApplyNode]
