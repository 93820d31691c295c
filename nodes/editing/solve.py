"""LoCo Edit Solve: an edit by itself, to apply, combine, save or export."""

from __future__ import annotations

from comfy_api.latest import io

from ..host.edit_check import Measuring
from ..host.layers import read_layers
from ..host.progress import node_output
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


class EditSolveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditSolve",
            display_name="LoCo Edit Solve",
            category="loco",
            search_aliases=["erase concept", "concept erasure", "remove style", "unlearn", "forget", "model editing"],
            description="Solves an edit in closed form, without applying it: the chosen layers will respond to the "
            "concept as they do to the target. Use this node to apply one edit to several models, or to combine, save "
            "or export it. To edit a model in one node, use LocoEdit Apply.",
            inputs=[
                io.Clip.Input("clip", tooltip=EDIT_CLIP),
                Layers.Input("layers", tooltip=EDIT_LAYERS),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that the edit is for, before the edit: the settings are measured on it, and the "
                    "edit is checked.",
                ),
                *edit_inputs(),
                size_input(),
            ],
            outputs=[
                Edit.Output(display_name="edit", tooltip="For LocoEdit Apply, and to combine, save or export."),
                edit_report_output(checked=True),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, concept=None, target=None, preserve=None, **others) -> list[float]:
        return files_changed_at(concept, target, preserve)

    @classmethod
    def execute(cls, clip, layers, size: int, model=None, **asked) -> io.NodeOutput:
        measuring = None
        if model is not None:
            measuring = Measuring(model, clip, read_layers(model), size, node_id=cls.hidden.unique_id)
        edit, settings = EditInputs(**asked).solve(clip, layers, measuring, cls.hidden.unique_id)
        report = edit_text(edit, settings, measuring)
        return node_output(cls, edit, report, text=report)


NODES = [EditSolveNode]
