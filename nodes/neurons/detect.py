"""LoCo Neuron Detect: which single neurons of the located layers tell a style from its absence."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.pictures import neuron_plot
from ...loco_core.neurons.report import neuron_report
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import node_output, to_image
from ..inputs.shared import CLIP, MODEL
from ..sockets import Layers, Neurons
from .inputs import NeuronInputs, neuron_inputs


class NeuronDetectNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronDetect",
            display_name="LoCo Neuron Detect",
            category="loco/neurons",
            search_aliases=["neuron", "find neurons", "style neurons", "neuron analysis", "interpretability"],
            description="Finds the single neurons that carry a style in the chosen layers. It scores each neuron by "
            "how well it tells prompts with the style from prompts without it. It makes no image and takes seconds.",
            inputs=[
                io.Model.Input("model", tooltip=MODEL),
                io.Clip.Input("clip", tooltip=CLIP),
                Layers.Input(
                    "layers",
                    tooltip="The layers that carry the style, from LocoGen Layer Search, LoCo Layer Select or LoCo "
                    "Layers Load.",
                ),
                *neuron_inputs(),
            ],
            outputs=[
                Neurons.Output(display_name="neurons", tooltip="For LoCo Neuron Ablate, Sweep, Effects and Save."),
                io.Image.Output(display_name="plot", tooltip="The scores |z| of all neurons, sorted, for each layer."),
                io.String.Output(display_name="report", tooltip="How many neurons differ, and how many by chance."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, clip, layers, **asked) -> io.NodeOutput:
        neurons = NeuronInputs(**asked).detect(ComfyEngine(model, clip, None, read_layers(model)), layers)
        report, plot = neuron_report(neurons), to_image(neuron_plot(neurons))
        return node_output(cls, neurons, plot, report, report=report, images=(plot,))


NODES = [NeuronDetectNode]
