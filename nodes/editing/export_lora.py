"""LoCo Edit Export LoRA: an edit as a LoRA file for any program."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.file import recipe_metadata
from ...loco_core.editing.lora import AUTO, edit_lora, of_rank
from ...loco_core.lora_file import save_lora
from ...loco_core.report import Report
from ..host.editing import check_fits, pooled_weight
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.layers import read_layers
from ..host.progress import node_output, with_bar
from ..inputs.shared import export_report_output, lora_inputs, saved_file_output, strength_input
from ..sockets import Edit
from .inputs import EDIT


class EditExportLoRANode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_EditExportLoRA",
            display_name="LoCo Edit Export LoRA",
            category="loco/edit",
            search_aliases=["edit to lora", "make lora", "save lora", "extract lora", "erasure lora", "share edit"],
            description="Saves an edit as a small LoRA file, which ComfyUI, diffusers and Forge load without this "
            "pack. The file fits this model, together with the LoRAs that were loaded before this node.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the edit is for, before the edit."),
                Edit.Input("edit", tooltip=EDIT),
                strength_input("The strength of the edit when the LoRA is loaded at strength 1."),
                *lora_inputs("loras/loco_edit"),
                io.Int.Input(
                    "rank",
                    default=AUTO,
                    min=AUTO,
                    max=1024,
                    advanced=True,
                    tooltip="Rank of the LoRA. 0: as much as the concepts need, to less than 1 % of what the edit "
                    "changes in their prompts. A smaller one makes a smaller file; the report says what is missing.",
                ),
            ],
            outputs=[saved_file_output(), export_report_output()],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, edit, strength: float, naming: str, filename_prefix: str, rank: int) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        layers = read_layers(model)
        check_fits(model, layers, edit)
        weights = with_bar(
            ComfyEngine(model, None, None, layers).key_value_weights, len(layers.edited(edit.recipe.layers))
        )
        tensors = edit_lora(of_rank(edit, rank), layers, weights, strength, naming, pooled_weight(model, layers, edit))
        save_lora(tensors, path, layers, {**recipe_metadata(edit, versions()), "loco_strength": str(strength)})
        own = min(rank, edit.figures.rank) or edit.figures.rank
        report = Report(
            (f"saved as {output_name(path)}", "load other LoRAs before the export"),
            (
                f"rank {own}, {path.stat().st_size / 1e6:.1f} MB; {edit.figures.left_out(own):.1%} of the change in "
                "the concept prompts is left out",
                f"made with {edit.recipe.text_encoder}",
            ),
        )
        return node_output(cls, output_name(path), report, report=report)


NODES = [EditExportLoRANode]
