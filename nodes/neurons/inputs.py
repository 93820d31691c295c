"""The inputs by which a person says which neurons are ablated, and how: the same wherever that is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comfy_api.latest import io

from ...loco_core.neurons.ablation import USUAL, Ablation, ChooseBy, Mode, ablation, chosen_neurons
from ...loco_core.neurons.detection import Neurons, Ranking


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
            default=USUAL,
            min=USUAL,
            max=1_000_000,
            tooltip="How many neurons. -1: a quarter of them, which is what the demo model needs; of two layers of SD "
            "1.5 that is 640. More neurons remove more of the style and, in the end, more of the rest. The paper takes "
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
