"""LoCo Edit Combine: several edits as one, solved jointly."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.editing.recipe import combined
from ...loco_core.editing.solve import solve_edit
from ...loco_core.report import Report
from ..host.edit_check import Measuring
from ..host.layers import read_layers
from ..host.progress import node_output
from ..host.text_encoder import encode, text_encoder
from ..sockets import Edit
from .inputs import edit_report_output, full_report


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
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder that the edits were solved with."),
                *edits,
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that the edits are for, before the edits: the one edit is checked on it. Anima "
                    "needs it, for it completes what the CLIP encodes.",
                ),
            ],
            outputs=[
                Edit.Output(display_name="edit", tooltip="One edit of all concepts, for LoCo Edit Apply."),
                edit_report_output(checked=True),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def execute(cls, clip, model=None, **edits) -> io.NodeOutput:
        recipes = [edits[name].recipe for name in sorted(edits) if edits[name] is not None]
        measuring = model and Measuring(model, clip, read_layers(model), node_id=cls.hidden.unique_id)
        own = measuring.engine.encode if measuring else partial(encode, clip)
        edit = solve_edit(own, combined(recipes, own, text_encoder(clip)))
        report = full_report(edit, Report(()), measuring)
        return node_output(cls, edit, report, report=report)


NODES = [EditCombineNode]
