"""LoCo Edit Export LoRA: an edit as a LoRA file for any program."""

from __future__ import annotations

import comfy.utils
from comfy_api.latest import io

from ...loco_core.editing.file import recipe_metadata
from ...loco_core.editing.lora import lora_tensors, save_lora
from ..host.editing import POOLED_LAYER, fit, key_value_weights
from ..host.engine import effective_weight
from ..host.folders import output_name, output_path, versions
from ..host.progress import show_text
from ..inputs.shared import lora_inputs
from ..sockets import Edit


class EditExportLoRANode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditExportLoRA",
            display_name="LoCo Edit Export LoRA",
            category="loco",
            description="Writes an edit as a small LoRA that ComfyUI, diffusers and Forge load without this pack. It "
            "fits the model given here, with the LoRAs loaded before it.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the edit is for, not yet edited."),
                Edit.Input("edit", tooltip="From LoCo Edit Solve, Combine or Load."),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=4.0,
                    step=0.05,
                    tooltip="What strength 1 of the LoRA is to be.",
                ),
                *lora_inputs("loras/loco_edit"),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name, from the output folder.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, edit, strength: float, naming: str, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        fit(model, edit)
        layers = edit.recipe.layers
        bar = comfy.utils.ProgressBar(len(layers))

        def weights():
            for pair in key_value_weights(model, edit):
                yield pair
                bar.update(1)

        pooled = edit.pooled and (edit.pooled, effective_weight(model, f"{POOLED_LAYER}.weight"))
        tensors = lora_tensors(edit.operator, strength, weights(), layers.layer_count, naming, pooled)
        save_lora(tensors, path, {**recipe_metadata(edit, versions()), "loco_strength": str(strength)})
        text = f"saved as {output_name(path)}\nmade with {edit.recipe.text_encoder}; load other LoRAs before the export"
        show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(output_name(path), ui={"text": (text,)})


NODES = [EditExportLoRANode]
