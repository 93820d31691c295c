"""LoCo Edit Export LoRA: an edit as a LoRA file for any program."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.file import recipe_metadata
from ...loco_core.editing.lora import edit_lora
from ...loco_core.lora_file import save_lora
from ..host.editing import check_fits, pooled_weight
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.layers import read_layers
from ..host.progress import node_output, with_bar
from ..inputs.shared import export_report_output, lora_inputs, saved_file_output, strength_input
from ..sockets import Edit


class EditExportLoRANode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditExportLoRA",
            display_name="LoCo Edit Export LoRA",
            category="loco",
            search_aliases=["edit to lora", "make lora", "save lora", "extract lora", "erasure lora", "share edit"],
            description="Saves an edit as a small LoRA file, which ComfyUI, diffusers and Forge load without this "
            "pack. The file fits this model, together with the LoRAs that were loaded before this node.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the edit is for, before the edit."),
                Edit.Input("edit", tooltip="From LoCo Edit Solve, Combine or Load."),
                strength_input("The strength of the edit when the LoRA is loaded at strength 1."),
                *lora_inputs("loras/loco_edit"),
            ],
            outputs=[saved_file_output(), export_report_output()],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, edit, strength: float, naming: str, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        layers = read_layers(model)
        check_fits(model, layers, edit)
        weights = with_bar(ComfyEngine(model, None, None, layers).key_value_weights, len(edit.operators))
        tensors = edit_lora(edit, layers, weights, strength, naming, pooled_weight(model, edit))
        save_lora(tensors, path, layers, {**recipe_metadata(edit, versions()), "loco_strength": str(strength)})
        made = f"made with {edit.recipe.text_encoder}; load other LoRAs before the export"
        report = f"saved as {output_name(path)}\n{made}"
        return node_output(cls, output_name(path), report, text=report)


NODES = [EditExportLoRANode]
