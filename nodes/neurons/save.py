"""LoCo Neuron Save: detected neurons as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.file import save_neurons
from ..host.folders import NEURONS, output_name, output_path, versions
from ..host.progress import node_output
from ..sockets import Neurons


class NeuronSaveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronSave",
            display_name="LoCo Neuron Save",
            category="loco",
            description="Saves detected neurons with all they were made from, for LoCo Neuron Load.",
            inputs=[
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect."),
                io.String.Input(
                    "filename_prefix",
                    default=f"{NEURONS}/neurons",
                    tooltip=f"Where the file goes in the output folder. LoCo Neuron Load looks in {NEURONS}/.",
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="The file's name, from the output folder.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, neurons, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        save_neurons(neurons, path, versions())
        return node_output(cls, output_name(path), text=f"saved as {output_name(path)}")


NODES = [NeuronSaveNode]
