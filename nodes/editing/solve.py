"""LoCo Edit Solve: an edit by itself, to apply, combine, save or export."""

from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ...loco_core.editing.placing import held, placed
from ...loco_core.report import Report
from ..host.edit_check import Measuring
from ..host.editing import earlier_edit
from ..host.layers import read_layers
from ..host.progress import node_output
from ..sockets import Edit, Layers
from .inputs import (
    EDIT_CLIP,
    EDIT_LAYERS,
    EditInputs,
    edit_inputs,
    edit_report_output,
    files_changed_at,
    full_report,
    size_input,
)


class EditSolveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditSolve",
            display_name="LoCo Edit Solve",
            category="loco/edit",
            search_aliases=[
                "erase",
                "erase style",
                "erase concept",
                "concept erasure",
                "remove style",
                "remove artist",
                "unlearn",
                "unlearning",
                "forget",
                "change fact",
                "knowledge editing",
                "model editing",
            ],
            description="Solves an edit in closed form: some layers will respond to a concept as they do to its "
            "target. Nothing is trained. The settings are measured on the model, and the edit is checked on it. Apply "
            "it with LoCo Edit Apply, to one model or several, or combine, save or export it. To remove a concept in "
            "one node, use LoCo Remove a Concept.",
            inputs=[
                io.Clip.Input("clip", tooltip=EDIT_CLIP),
                Layers.Input("layers", optional=True, tooltip=EDIT_LAYERS + " Without any, they are measured."),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that the edit is for, before the edit: layers and settings are measured on it, "
                    "and the edit is checked.",
                ),
                *edit_inputs(),
                size_input(),
            ],
            outputs=[
                Edit.Output(display_name="edit", tooltip="For LoCo Edit Apply, and to combine, save or export."),
                edit_report_output(checked=True),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, concept=None, target=None, preserve=None, **others) -> list[float]:
        return files_changed_at(concept, target, preserve)

    @classmethod
    def execute(cls, clip, size: int, layers=None, model=None, **asked) -> io.NodeOutput:
        inputs, measuring = EditInputs(**asked), None
        if model is not None:
            measuring = Measuring(model, clip, read_layers(model), size, node_id=cls.hidden.unique_id)
        elif layers is None:
            raise ValueError("layers: none are connected; connect layers, or a model in which they are measured")
        recipe = inputs.recipe(clip, layers if layers is not None else measuring.layers.all)
        where = Report(()) if model is None else earlier_edit(model)
        if layers is None:
            recipe, found = placed(recipe, measuring.located(recipe))
            where += found
        if recipe is None:
            return node_output(cls, ExecutionBlocker(where.brief), where, report=where)
        if layers is not None and measuring is not None and not recipe.changes_nothing:
            where += held(layers, measuring.probed(recipe))
        edit, settings = inputs.solve(clip, recipe, measuring, cls.hidden.unique_id)
        report = where + full_report(edit, settings, measuring)
        return node_output(cls, edit, report, report=report)


NODES = [EditSolveNode]
