"""LoCo Edit Solve: an edit by itself, to apply, combine, save or export."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.editing.report import report_lines
from ...loco_core.editing.solve import solve_edit
from ..host.progress import node_output
from ..host.text_encoder import encode
from ..sockets import Edit, Layers
from .inputs import CLIP_TOOLTIP, LAYERS_TOOLTIP, EditInputs, edit_inputs


class EditSolveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditSolve",
            display_name="LoCo Edit Solve",
            category="loco",
            description="Solves the edit that makes the chosen layers read a concept as its target, in closed form. "
            "The result is applied by LocoEdit Apply, and can be combined, saved and exported as a LoRA.",
            inputs=[
                io.Clip.Input("clip", tooltip=CLIP_TOOLTIP),
                Layers.Input("layers", tooltip=LAYERS_TOOLTIP),
                *edit_inputs(),
            ],
            outputs=[
                Edit.Output(display_name="edit", tooltip="The solved edit, for LocoEdit Apply."),
                io.String.Output(display_name="report", tooltip="What was solved, what it preserves, what to watch."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(cls, clip, layers, **asked) -> io.NodeOutput:
        edit = solve_edit(partial(encode, clip), EditInputs(**asked).recipe(clip, layers))
        report = "\n".join(report_lines(edit))
        return node_output(cls, edit, report, text=report)


NODES = [EditSolveNode]
