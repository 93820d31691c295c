"""LoCo Neuron Save: detected neurons as a file."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.file import save_neurons
from ...loco_core.report import Report
from ..host.folders import NEURONS, output_name, output_path, versions
from ..host.progress import node_output
from ..inputs.shared import filename_prefix_input, saved_file_output
from ..sockets import Neurons


class NeuronSaveNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronSave",
            display_name="LoCo Neuron Save",
            category="loco/neurons",
            search_aliases=["neuron", "save neurons", "keep neurons"],
            description="Saves detected neurons for LoCo Neuron Load, with everything they were made from.",
            inputs=[
                Neurons.Input("neurons", tooltip="From LoCo Neuron Detect or Effects."),
                filename_prefix_input(
                    f"{NEURONS}/neurons",
                    f"Folder and name of the file in the output folder. LoCo Neuron Load lists those in {NEURONS}/.",
                ),
            ],
            outputs=[saved_file_output()],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, neurons, filename_prefix: str) -> io.NodeOutput:
        path = output_path(filename_prefix, ".safetensors")
        save_neurons(neurons, path, versions())
        return node_output(cls, output_name(path), report=Report((f"saved as {output_name(path)}",)))


NODES = [NeuronSaveNode]
