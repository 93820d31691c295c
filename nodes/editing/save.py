"""LoCo Edit Save: an edit as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.file import save_edit
from ...loco_core.report import Report
from ..host.folders import EDITS, output_name, output_path, versions
from ..host.progress import node_output
from ..inputs.shared import filename_prefix_input, saved_file_output
from ..sockets import Edit
from .inputs import EDIT


class EditSaveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditSave",
            display_name="LoCo Edit Save",
            category="loco/edit",
            search_aliases=["save edit", "keep edit", "save erasure"],
            description="Saves an edit for LoCo Edit Load, with everything it was made from. To share an edit with "
            "people who do not have this pack, use LoCo Edit Export LoRA.",
            inputs=[
                Edit.Input("edit", tooltip=EDIT),
                filename_prefix_input(
                    f"{EDITS}/edit",
                    f"Folder and name of the file in the output folder. LoCo Edit Load lists those in {EDITS}/.",
                ),
            ],
            outputs=[saved_file_output()],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, edit, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        save_edit(edit, path, versions())
        return node_output(cls, output_name(path), report=Report((f"saved as {output_name(path)}",)))


NODES = [EditSaveNode]
