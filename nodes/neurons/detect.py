"""LoCo Neuron Detect: which single neurons of the located layers tell a style from its absence."""

from __future__ import annotations

from comfy_api.latest import io

from ...loco_core.editing.placing import held
from ...loco_core.localization.probe_report import localization_text
from ...loco_core.localization.verdict import Kind
from ...loco_core.models.layers import LayerSet, Part
from ...loco_core.neurons.detection import NeuronTokens, detect_neurons
from ...loco_core.neurons.pictures import neuron_plot
from ...loco_core.neurons.report import neuron_report
from ...loco_core.prompts import Contrast, contrast_prompts
from ...loco_core.report import Report
from ..editing.inputs import PRESERVE
from ..host.edit_check import Measuring
from ..host.layers import read_layers
from ..host.progress import node_output, stop_if_cancelled, to_image
from ..inputs.shared import CLIP, MARKS, MODEL
from ..sockets import Layers, Neurons

# A default for checkpoints of photos and paintings: things, and other styles that must stay.
WITHOUT = f"{PRESERVE}\nMonet\nPicasso\nRembrandt"


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
                    optional=True,
                    tooltip="The layers that carry the style, from LoCo Layer Search, LoCo Layer Select or LoCo "
                    "Layers Load. Without any, they are measured.",
                ),
                io.String.Input(
                    "concept",
                    multiline=True,
                    default="Van Gogh",
                    tooltip="The style to look for: a name, which is put into every plain prompt of 'without', or "
                    "whole prompts with the style, one per line." + MARKS,
                ),
                io.String.Input(
                    "without",
                    multiline=True,
                    default=WITHOUT,
                    tooltip="Plain prompts without the style, one per line, and names of other styles that must "
                    "stay. These names are put into the plain prompts too. The mean over the plain prompts is what "
                    "replaces the outputs of neurons." + MARKS,
                ),
                io.Combo.Input(
                    "part",
                    options=Part,
                    default=Part.VALUES,
                    advanced=True,
                    tooltip="Where to look. Keys decide where in the picture a word acts, values decide what it adds "
                    "there.",
                ),
                io.Combo.Input(
                    "tokens",
                    options=NeuronTokens,
                    default=NeuronTokens.TAIL,
                    advanced=True,
                    tooltip="Which tokens of a prompt are compared; their mean counts. The paper compares the last "
                    "subject token, the code of its authors the last padded position.",
                ),
            ],
            outputs=[
                Neurons.Output(display_name="neurons", tooltip="For LoCo Neuron Ablate, Sweep, Effects and Save."),
                io.Image.Output(display_name="plot", tooltip="How much of the style passes through how many neurons."),
                io.String.Output(display_name="report", tooltip="How many neurons differ, and how many by chance."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, clip, concept: str, without: str, part: str, tokens: str, layers=None) -> io.NodeOutput:
        contrast, where = contrast_prompts(concept, without), Report(())
        measuring = Measuring(model, clip, read_layers(model), node_id=cls.hidden.unique_id)
        measuring.layers.check_projections()
        given = layers is not None
        if not given:
            layers, where = _looked_for(measuring, contrast)
        engine = measuring.engine
        neurons = detect_neurons(engine, contrast, layers, part, tokens, lambda done, total: stop_if_cancelled())
        if given and contrast.pairs:
            where = held(layers, measuring.probed_between(contrast.pairs, layers))
        report, plot = where + neuron_report(neurons), to_image(neuron_plot(neurons))
        return node_output(cls, neurons, plot, report, report=report, images=(plot,))


def _looked_for(measuring: Measuring, contrast: Contrast) -> tuple[LayerSet, Report]:
    """The layers that make the style, and what is said of them."""
    if not contrast.pairs:
        raise ValueError("layers: none are connected; connect layers, or give the style's name, and they are measured")
    found = measuring.located_between(contrast.pairs)
    where = localization_text(found)
    if found.kind is Kind.NO_EFFECT:
        raise ValueError(f"concept: {where}")
    return found.place, Report((), (f"where it is: {where}",))


NODES = [NeuronDetectNode]
