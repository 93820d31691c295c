"""LoCo Neuron Export LoRA: ablated neurons as a LoRA file for any program."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.lora_file import save_lora
from ...loco_core.neurons.ablation import Mode
from ...loco_core.neurons.file import neuron_recipe
from ...loco_core.neurons.lora import ablation_lora
from ...loco_core.report import Report
from ..host.ablation import check_fits
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.layers import read_layers
from ..host.progress import node_output
from ..inputs.shared import export_report_output, lora_inputs, saved_file_output
from ..sockets import Neurons
from .inputs import AblationInputs, choice_inputs, mode_input, scale_input


class NeuronExportLoRANode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronExportLoRA",
            display_name="LoCo Neuron Export LoRA",
            category="loco/neurons",
            search_aliases=["neuron to lora", "neurons as lora", "make lora", "save lora", "remove style lora"],
            description="Saves an ablation to zero or to a scale as a small LoRA file, which ComfyUI, diffusers and "
            "Forge load without this pack. The file fits this model, together with the LoRAs that were loaded before "
            "this node.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the ablation is for, before the ablation."),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect, Effects or Load."),
                *choice_inputs(),
                mode_input((Mode.ZERO, Mode.SCALE)),
                scale_input(),
                *lora_inputs("loras/loco_neurons"),
            ],
            outputs=[saved_file_output(), export_report_output()],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, neurons, naming: str, filename_prefix: str, **asked) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        engine = ComfyEngine(model, None, None, read_layers(model))
        check_fits(model, engine.layers, neurons)
        inputs = AblationInputs(**asked)
        change = inputs.ablation(neurons)
        tensors = ablation_lora(change, engine.layers, engine.key_value_weights, naming)
        save_lora(tensors, path, engine.layers, neuron_recipe(neurons, versions()))
        total = sum(len(replacement.neurons) for replacement in change.values())
        saved = f"saved as {output_name(path)}: {total} neurons, {inputs.mode}"
        report = Report((saved, "load other LoRAs before the export"))
        return node_output(cls, output_name(path), report, report=report)


NODES = [NeuronExportLoRANode]
