"""LoCo Edit Combine: several edits as one, solved jointly."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.editing.recipe import combined
from ...loco_core.editing.report import edit_report
from ...loco_core.editing.solve import solve_edit
from ..host.progress import node_output
from ..host.text_encoder import encode, text_encoder
from ..sockets import Edit
from .inputs import edit_report_output


class EditCombineNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        edits = [
            Edit.Input(
                f"edit_{number}",
                optional=number > 2,
                tooltip="An edit of the same layers, solved with the same text encoder. Together they are solved with "
                "the settings of the first.",
            )
            for number in range(1, 6)
        ]
        return io.Schema(
            node_id="LoCo_EditCombine",
            display_name="LoCo Edit Combine",
            category="loco/edit",
            search_aliases=["merge edits", "join edits", "several concepts", "multiple concepts", "several styles"],
            description="Makes one edit of several by solving all their concepts together. This is better than one "
            "edit after the other, where each is solved without the others.",
            inputs=[io.Clip.Input("clip", tooltip="The text encoder that the edits were solved with."), *edits],
            outputs=[
                Edit.Output(display_name="edit", tooltip="One edit of all concepts, for LocoEdit Apply."),
                edit_report_output(),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(cls, clip, **edits) -> io.NodeOutput:
        recipes = [edits[name].recipe for name in sorted(edits) if edits[name] is not None]
        own = partial(encode, clip)
        edit = solve_edit(own, combined(recipes, own, text_encoder(clip)))
        report = edit_report(edit)
        return node_output(cls, edit, report, report=report)


NODES = [EditCombineNode]
