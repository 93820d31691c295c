"""The inputs by which a person says which neurons to look for, the same on Detect and on Ablate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
from comfy_api.latest import io

from ...loco_core.models.layers import LayerSet, Part
from ...loco_core.neurons.ablation import Ablation, ChooseBy, Mode, ablation, chosen_neurons
from ...loco_core.neurons.detection import Neurons, NeuronTokens, Ranking, detect_neurons
from ...loco_core.prompts import contrast_prompts
from ..editing.inputs import PRESERVE
from ..host.engine import ComfyEngine

# A default for checkpoints of photos and paintings: things, and other styles that must stay.
WITHOUT = f"{PRESERVE}\nMonet\nPicasso\nRembrandt"


def neuron_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "concept",
            multiline=True,
            default="Van Gogh",
            tooltip="The style to look for: a name, which is put into every plain prompt of 'without', or whole "
            "prompts with it, one per line.",
        ),
        io.String.Input(
            "without",
            multiline=True,
            default=WITHOUT,
            tooltip="Prompts without the style, one per line, and names of other styles that must stay: these are put "
            "into the plain prompts too. The plain prompts' mean takes the place of the neurons' outputs.",
        ),
        io.Combo.Input(
            "part",
            options=Part.words(),
            default=str(Part.VALUES),
            tooltip="Values say what a word adds to the picture, keys where it is heard.",
        ),
        io.Combo.Input(
            "tokens",
            options=NeuronTokens.words(),
            default=str(NeuronTokens.TAIL),
            tooltip="Which tokens of a prompt are compared, as their mean. The paper compares the last subject token, "
            "the authors' code the last padded position.",
        ),
    ]


def ranking_input() -> io.Input:
    return io.Combo.Input(
        "rank_by",
        options=Ranking.words(),
        default=str(Ranking.SIGNAL),
        tooltip="signal: how much of what the style adds to plain prompts passes through a neuron, less half of what "
        "other styles add there. z: the paper's, how surely it differs. effect: what LoCo Neuron Effects measured.",
    )


def choice_inputs() -> list[io.Input]:
    """Which neurons."""
    return [
        ranking_input(),
        io.Combo.Input(
            "choose_by",
            options=ChooseBy.words(),
            default=str(ChooseBy.COUNT),
            tooltip="count: those that rank first, over all layers. count per layer: so many in each. threshold: all "
            "with |z| of 'threshold' or more.",
        ),
        io.Int.Input(
            "count",
            default=640,
            min=0,
            max=1_000_000,
            tooltip="How many neurons. More remove more of the style, and more of the rest. The demo model needs a "
            "quarter of them: of two layers of SD 1.5 that is 640. The paper takes 30 to 200 of a layer's 1280.",
        ),
        io.Float.Input(
            "threshold", default=10.0, min=0.0, max=10_000.0, step=0.5, tooltip="With choose_by 'threshold'."
        ),
    ]


def mode_input(modes: Sequence[Mode]) -> io.Input:
    """What becomes of them."""
    meanings = {
        Mode.MEAN: "its mean over the plain prompts",
        Mode.ZERO: "nothing, as in the paper",
        Mode.SCALE: "'scale' times its own output",
    }
    return io.Combo.Input(
        "mode",
        options=list(map(str, modes)),
        default=str(modes[0]),
        tooltip="What takes the place of a neuron's output. "
        + " ".join(f"{mode}: {meanings[mode]}." for mode in modes),
    )


def scale_input() -> io.Input:
    return io.Float.Input(
        "scale",
        default=0.5,
        min=0.0,
        max=2.0,
        step=0.05,
        tooltip="With mode 'scale': 1 leaves the model untouched, 0 is zero, above 1 strengthens.",
    )


@dataclass(frozen=True, kw_only=True)
class NeuronInputs:
    """What a person chose in `neuron_inputs`."""

    concept: str
    without: str
    part: str
    tokens: str

    def detect(self, engine: ComfyEngine, layers: LayerSet) -> Neurons:
        """The neurons that these inputs ask for."""
        engine.layers.chosen(layers)

        def on_layer(done: int, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()

        contrast = contrast_prompts(self.concept, self.without)
        part, tokens = Part.parse(self.part, "part"), NeuronTokens.parse(self.tokens, "tokens")
        return detect_neurons(engine, contrast, layers, part, tokens, on_layer)


@dataclass(frozen=True, kw_only=True)
class AblationInputs:
    """What a person chose in `choice_inputs`, `mode_input` and `scale_input`."""

    rank_by: str
    choose_by: str
    count: int
    threshold: float
    mode: str
    scale: float

    def ablation(self, neurons: Neurons) -> Ablation:
        """What becomes of which neurons."""
        choose_by, ranking = ChooseBy.parse(self.choose_by, "choose by"), Ranking.parse(self.rank_by, "rank by")
        chosen = chosen_neurons(neurons, choose_by, self.count, self.threshold, ranking)
        return ablation(neurons, chosen, Mode.parse(self.mode, "mode"), self.scale)
