"""LoCo Neuron Export LoRA: ablated neurons as a LoRA file for any program."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.lora import ablation_lora_tensors, save_lora
from ...loco_core.neurons.detection import MODES, ablation, chosen_neurons
from ...loco_core.neurons.file import neuron_recipe
from ..host.ablation import fit
from ..host.engine import ComfyEngine
from ..host.folders import output_name, output_path, versions
from ..host.progress import show_text
from ..inputs.shared import lora_inputs
from ..sockets import Neurons
from .inputs import choice_inputs, mode_input, scale_input


class NeuronExportLoRANode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronExportLoRA",
            display_name="LoCo Neuron Export LoRA",
            category="loco",
            description="Writes an ablation to zero or to a scale as a small LoRA that ComfyUI, diffusers and Forge "
            "load without this pack. It fits the model given here, with the LoRAs loaded before it.",
            inputs=[
                io.Model.Input("model", tooltip="The model that the ablation is for, not yet ablated."),
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect, Effects or Load."),
                *choice_inputs(),
                mode_input(MODES[1:]),
                scale_input(),
                *lora_inputs("loras/loco_neurons"),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name, from the output folder.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model,
        neurons,
        rank_by: str,
        choose_by: str,
        count: int,
        threshold: float,
        mode: str,
        scale: float,
        naming: str,
        filename_prefix: str,
    ) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        fit(model, neurons)
        change = ablation(neurons, chosen_neurons(neurons, choose_by, count, threshold, rank_by), mode, scale)
        engine = ComfyEngine(model, None, None)
        tensors = ablation_lora_tensors(change, engine.key_value_weights, engine.layers, naming)
        save_lora(tensors, path, neuron_recipe(neurons, versions()))
        total = sum(len(replacement.neurons) for replacement in change.values())
        text = f"saved as {output_name(path)}: {total} neurons, {mode}; load other LoRAs before the export"
        show_text(text, cls.hidden.unique_id)
        return io.NodeOutput(output_name(path), ui={"text": (text,)})


NODES = [NeuronExportLoRANode]
