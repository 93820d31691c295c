"""LoCo Edit Load: an edit from a file."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.editing.file import load_edit
from ...loco_core.editing.report import edit_report
from ...loco_core.report import Report
from ..host.folders import EDITS, changed_at, saved_path
from ..host.progress import node_output
from ..inputs.shared import saved_file_input
from ..sockets import Edit


class EditLoadNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditLoad",
            display_name="LoCo Edit Load",
            category="loco/edit",
            search_aliases=["load edit", "open edit", "saved edit", "load erasure"],
            description="Loads an edit that LoCo Edit Save saved, so that it is not solved again.",
            inputs=[saved_file_input(EDITS)],
            outputs=[
                Edit.Output(display_name="edit", tooltip="For LoCo Edit Apply, LoCo Edit Combine and Export LoRA."),
                io.String.Output(display_name="report", tooltip="What the edit removes, and how it was solved."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> float:
        return changed_at(partial(saved_path, EDITS), file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        edit = load_edit(saved_path(EDITS, file))
        removed = ", ".join(dict.fromkeys(pair.concept for pair in edit.recipe.pairs))
        report = edit_report(edit) + Report((), (f"removes: {removed}",))
        return node_output(cls, edit, report, report=report)


NODES = [EditLoadNode]
