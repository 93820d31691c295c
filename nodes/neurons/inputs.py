"""The inputs by which a person says which neurons to look for, the same on Detect and on Ablate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import comfy.model_management
from comfy_api.latest import io

from ...loco_core.models.layers import PARTS, LayerSet
from ...loco_core.neurons.detection import CHOICES, RANKINGS, TOKENS, Neurons, detect_neurons
from ...loco_core.prompts import contrast_prompts
from ..editing.inputs import PRESERVE
from ..host.engine import ComfyEngine, encode, located, text_encoder

WITHOUT = f"{PRESERVE}\nMonet\nPicasso\nRembrandt"
"""A default for checkpoints of photos and paintings: things, and other styles that must stay."""


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
            options=list(PARTS),
            default="values",
            tooltip="Values say what a word adds to the picture, keys where it is heard.",
        ),
        io.Combo.Input(
            "tokens",
            options=list(TOKENS),
            default=TOKENS[0],
            tooltip="Which tokens of a prompt are compared, as their mean. The paper compares the last subject token, "
            "the authors' code the last padded position.",
        ),
    ]


def ranking_input() -> io.Input:
    return io.Combo.Input(
        "rank_by",
        options=list(RANKINGS),
        default=RANKINGS[0],
        tooltip="signal: how much of what the style adds to plain prompts passes through a neuron, less half of what "
        "other styles add there. z: the paper's, how surely it differs. effect: what LoCo Neuron Effects measured.",
    )


def choice_inputs() -> list[io.Input]:
    """Which neurons."""
    return [
        ranking_input(),
        io.Combo.Input(
            "choose_by",
            options=list(CHOICES),
            default=CHOICES[0],
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


def mode_input(modes: Sequence[str]) -> io.Input:
    """What becomes of them."""
    meanings = {
        "mean": "what the neuron says on average in the plain prompts",
        "zero": "nothing, as in the paper",
        "scale": "'scale' times its own output",
    }
    return io.Combo.Input(
        "mode",
        options=list(modes),
        default=modes[0],
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


def detect(model, clip, layers: LayerSet, concept: str, without: str, part: str, tokens: str) -> Neurons:
    """What these inputs ask for."""
    located(model, layers)
    prompts = contrast_prompts(concept, without)

    def on_layer(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()

    weights = ComfyEngine(model, clip, None).key_value_weights
    asked = (prompts.concept, prompts.without, layers, prompts.others, part, tokens, text_encoder(clip))
    return detect_neurons(partial(encode, clip), weights, *asked, on_layer)
