"""LoCo Neuron Load: detected neurons from a file."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

from ...loco_core.neurons.file import load_neurons
from ...loco_core.neurons.report import neuron_report
from ...loco_core.report import Report
from ..host.folders import NEURONS, changed_at, saved_path
from ..host.progress import node_output
from ..inputs.shared import saved_file_input
from ..sockets import Neurons


class NeuronLoadNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronLoad",
            display_name="LoCo Neuron Load",
            category="loco/neurons",
            search_aliases=["neuron", "load neurons", "saved neurons"],
            description="Loads neurons that LoCo Neuron Save saved, so that they are not detected again.",
            inputs=[saved_file_input(NEURONS)],
            outputs=[
                Neurons.Output(
                    display_name="neurons", tooltip="For LoCo Neuron Ablate, Sweep, Effects or Export LoRA."
                ),
                io.String.Output(display_name="report", tooltip="What the neurons were detected for, and how many."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,  # so that a cached run shows the text again
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None) -> float:
        return changed_at(partial(saved_path, NEURONS), file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        neurons = load_neurons(saved_path(NEURONS, file))
        report = Report((f"found for: {neurons.with_concept[0]} and so on",)) + neuron_report(neurons)
        return node_output(cls, neurons, report, report=report)


NODES = [NeuronLoadNode]
