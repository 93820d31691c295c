"""LoCo Edit Save: an edit as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.file import save_edit
from ..host.folders import EDITS, output_name, output_path, versions
from ..host.progress import node_output
from ..sockets import Edit


class EditSaveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditSave",
            display_name="LoCo Edit Save",
            category="loco",
            description="Saves a solved edit with all it was made from, for LoCo Edit Load. To share an edit with "
            "people who do not have this pack, use LoCo Edit Export LoRA.",
            inputs=[
                Edit.Input("edit", tooltip="From LoCo Edit Solve or Combine."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{EDITS}/edit",
                    tooltip=f"Where the file goes in the output folder. LoCo Edit Load looks in {EDITS}/.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name, from the output folder.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, edit, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        save_edit(edit, path, versions())
        return node_output(cls, output_name(path), text=f"saved as {output_name(path)}")


NODES = [EditSaveNode]
