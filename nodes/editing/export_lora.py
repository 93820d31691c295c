"""LoCo Edit Export LoRA: an edit as a LoRA file for any program."""

from __future__ import annotations

import comfy.utils
import torch
from comfy_api.latest import io

from ...loco_core.editing.file import recipe_metadata
from ...loco_core.editing.lora import edit_lora
from ...loco_core.lora_file import save_lora
from ...loco_core.models.family import Naming
from ..host.editing import fit, pooled_weight
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.layers import read_layers
from ..host.progress import node_output
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
        layers = read_layers(model)
        fit(model, layers, edit)
        engine, bar = ComfyEngine(model, None, None, layers), comfy.utils.ProgressBar(len(edit.operators))

        def weights(layer: int) -> tuple[torch.Tensor, torch.Tensor]:
            bar.update(1)
            return engine.key_value_weights(layer)

        named = Naming.parse(naming, "naming")
        tensors = edit_lora(edit, layers, weights, strength, named, pooled_weight(model, edit))
        save_lora(tensors, path, {**recipe_metadata(edit, versions()), "loco_strength": str(strength)})
        text = f"saved as {output_name(path)}\nmade with {edit.recipe.text_encoder}; load other LoRAs before the export"
        return node_output(cls, output_name(path), text=text)


NODES = [EditExportLoRANode]
