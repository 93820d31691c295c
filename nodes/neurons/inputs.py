"""The inputs by which a person says which neurons to look for, the same on Detect and on Ablate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfy_api.latest import io

from ...loco_core.models.layers import LayerSet, Part
from ...loco_core.neurons.ablation import Ablation, ChooseBy, Mode, ablation, chosen_neurons
from ...loco_core.neurons.detection import Neurons, NeuronTokens, Ranking, detect_neurons
from ...loco_core.prompts import contrast_prompts
from ..editing.inputs import PRESERVE
from ..host.engine import ComfyEngine
from ..host.progress import stop_if_cancelled
from ..inputs.shared import MARKS

# A default for checkpoints of photos and paintings: things, and other styles that must stay.
WITHOUT = f"{PRESERVE}\nMonet\nPicasso\nRembrandt"


def neuron_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "concept",
            multiline=True,
            default="Van Gogh",
            tooltip="The style to look for: a name, which is put into every plain prompt of 'without', or whole "
            "prompts with the style, one per line." + MARKS,
        ),
        io.String.Input(
            "without",
            multiline=True,
            default=WITHOUT,
            tooltip="Plain prompts without the style, one per line, and names of other styles that must stay. These "
            "names are put into the plain prompts too. The mean over the plain prompts is what replaces the outputs of "
            "neurons." + MARKS,
        ),
        io.Combo.Input(
            "part",
            options=Part,
            default=Part.VALUES,
            advanced=True,
            tooltip="Where to look. Keys decide where in the picture a word acts, values decide what it adds there.",
        ),
        io.Combo.Input(
            "tokens",
            options=NeuronTokens,
            default=NeuronTokens.TAIL,
            advanced=True,
            tooltip="Which tokens of a prompt are compared; their mean counts. The paper compares the last subject "
            "token, the code of its authors the last padded position.",
        ),
    ]


def ranking_input() -> io.Input:
    return io.Combo.Input(
        "rank_by",
        options=Ranking,
        default=Ranking.SIGNAL,
        advanced=True,
        tooltip="Which neurons come first. signal: those that pass on most of what the style adds to plain prompts, "
        "minus half of what other styles add there. z: those that differ most surely, as in the paper. effect: those "
        "with the largest effect in LoCo Neuron Effects.",
    )


def choice_inputs() -> list[io.Input]:
    """Which neurons."""
    return [
        ranking_input(),
        io.Combo.Input(
            "choose_by",
            options=ChooseBy,
            default=ChooseBy.COUNT,
            advanced=True,
            tooltip="count: the neurons that rank first, over all layers. count per layer: that many in each layer. "
            "threshold: all neurons with |z| of at least 'threshold'.",
        ),
        io.Int.Input(
            "count",
            default=640,
            min=0,
            max=1_000_000,
            tooltip="How many neurons. More neurons remove more of the style and, in the end, more of the rest. Start "
            "with a quarter of them, which is what the demo model needs: 640 for two layers of SD 1.5. The paper takes "
            "30 to 200 of the 1280 in a layer.",
        ),
        io.Float.Input(
            "threshold",
            default=10.0,
            min=0.0,
            max=10_000.0,
            step=0.5,
            advanced=True,
            tooltip="With choose_by 'threshold': the least |z| of a neuron.",
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
        tooltip="What replaces the output of a neuron. " + " ".join(f"{mode}: {meanings[mode]}." for mode in modes),
    )


def scale_input() -> io.Input:
    return io.Float.Input(
        "scale",
        default=0.5,
        min=0.0,
        max=2.0,
        step=0.05,
        advanced=True,
        tooltip="With mode 'scale': 1 is no change, 0 is the same as zero, above 1 strengthens the style.",
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
        contrast = contrast_prompts(self.concept, self.without)
        return detect_neurons(engine, contrast, layers, self.part, self.tokens, lambda done, total: stop_if_cancelled())


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
        chosen = chosen_neurons(neurons, self.choose_by, self.count, self.threshold, self.rank_by)
        return ablation(neurons, chosen, self.mode, self.scale)
