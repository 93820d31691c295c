"""The inputs by which a person says which neurons to look for, the same on Detect and on Ablate."""

from __future__ import annotations

from functools import partial

import comfy.model_management
from comfy_api.latest import io

from ..loco_core.layers import PARTS, LayerSet
from ..loco_core.neurons import RANKINGS, TOKENS, Neurons, detect_neurons
from ..loco_core.prompts import contrast_prompts
from .edit_inputs import PRESERVE
from .engine import ComfyEngine, encode, located, text_encoder

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
            tooltip="Values say what a word adds to the picture, keys where it is heard. On the demo model, values "
            "carry the style: as many neurons of both remove less.",
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
        "other styles add there. z: the paper's, how surely it differs.",
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
