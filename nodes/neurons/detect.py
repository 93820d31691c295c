"""LoCo Neuron Detect: which single neurons of the located layers tell a style from its absence."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.neurons.pictures import neuron_plot
from ...loco_core.neurons.report import neuron_lines
from ..host.engine import ComfyEngine
from ..host.layers import read_layers
from ..host.progress import node_output, to_image
from ..sockets import Layers, Neurons
from .inputs import NeuronInputs, neuron_inputs


class NeuronDetectNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoCo_NeuronDetect",
            display_name="LoCo Neuron Detect",
            category="loco",
            description="Scores every output dimension of the chosen layers' K and V by how well it tells prompts "
            "with a style from prompts without it. Makes no image: it takes seconds.",
            inputs=[
                io.Model.Input("model", tooltip="A Stable Diffusion 1.x, 2.x or SDXL model. LoRA loaders go before."),
                io.Clip.Input("clip", tooltip="The text encoder of this model."),
                Layers.Input("layers", tooltip="The layers that hold the style, from LocoGen Layer Search or Select."),
                *neuron_inputs(),
            ],
            outputs=[
                Neurons.Output(display_name="neurons", tooltip="For LoCo Neuron Ablate and LoCo Neuron Save."),
                io.Image.Output(display_name="plot", tooltip="|z| of all neurons, sorted, by layer."),
                io.String.Output(display_name="report", tooltip="How many neurons differ, and how many by chance."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, clip, layers, **asked) -> io.NodeOutput:
        neurons = NeuronInputs(**asked).detect(ComfyEngine(model, clip, None, read_layers(model)), layers)
        report, plot = "\n".join(neuron_lines(neurons)), to_image(neuron_plot(neurons))
        return node_output(cls, neurons, plot, report, text=report, images=(plot,))


NODES = [NeuronDetectNode]
