"""The inputs by which a person says what to edit, the same on every node that solves an edit."""

from __future__ import annotations

from comfy.sd import CLIP
from comfy_api.latest import io

from ...loco_core.editing.edit import (
    PRESERVATIONS,
    RELATIVE_LAMBDA,
    RIDGES,
    TOKEN_CHOICES,
    EditRecipe,
    EditSettings,
    edit_recipe,
)
from ...loco_core.models.layers import LayerSet
from ...loco_core.prompts import ATTRIBUTES, EMPTY
from ..host.engine import text_encoder

LAYERS_TOOLTIP = "The layers to edit, from LocoGen Layer Search, LoCo Layer Select or LoCo Layers Load."
CLIP_TOOLTIP = "The text encoder of this model. The edit holds for this one, at its present clip skip."

THINGS = ("a woman", "a man", "a cat", "a dog", "a house", "a street", "a forest", "the sea")
PRESERVE = "\n".join(f"a photo of {thing}" for thing in THINGS)
"""A default for checkpoints of photos and paintings: some of what most people's prompts are about."""


def edit_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "concept",
            multiline=True,
            default="Van Gogh",
            tooltip="What to remove, one per line: a bare name, which the paper's templates of the attribute "
            "expand, or whole prompts. Weights like (word:1.3) count as 1.",
        ),
        io.String.Input(
            "target",
            multiline=True,
            default="a painting",
            tooltip="What the layers shall read instead: one line for each concept, or a single line for all. "
            "For a style, a plain 'a painting'. \"\" is the empty prompt.",
        ),
        io.String.Input(
            "preserve",
            multiline=True,
            default=PRESERVE,
            tooltip="What must stay, one per line: names of what is close to the concept (other artists, other "
            "facts), and prompts like those you use ('a photo of a cat'). A style is then removed from such prompts "
            "in particular. The target and the empty prompt are preserved in any case.",
        ),
        io.Combo.Input(
            "attribute",
            options=list(ATTRIBUTES),
            default="style",
            tooltip="Chooses the prompt patterns that expand a bare name.",
        ),
        io.Combo.Input(
            "tokens",
            options=list(TOKEN_CHOICES),
            default=TOKEN_CHOICES[-1],
            tooltip="Which tokens of the prompts are edited. The paper edits the last subject token. The tail (end of "
            "text and padding) carries the concept too: on the demo model the last subject token alone left one of "
            "three styles and most facts where they were, with the tail they are gone; so the tail is the default for "
            "all attributes (benchmarks/edit.py --tokens compares them).",
        ),
        io.Combo.Input(
            "preservation",
            options=list(PRESERVATIONS),
            default=PRESERVATIONS[0],
            tooltip="exact: the leading directions of what is preserved read as before, to rounding. weighted: "
            "all of it nearly so (as UCE does), for a concept so close to it that exact leaves no room. none: the "
            "paper's edit.",
        ),
        io.Combo.Input(
            "ridge",
            options=list(RIDGES),
            default=RIDGES[0],
            tooltip="How firmly other prompts hold the weights. 'relative' is measured in the embeddings' own "
            "size and keeps other concepts; 'paper' is the paper's absolute 0.01. Not a strength knob.",
        ),
        io.Float.Input(
            "relative_ridge",
            default=RELATIVE_LAMBDA,
            min=0.0001,
            max=10.0,
            step=0.01,
            tooltip="With ridge 'relative': the ridge as a share of the embeddings' mean squared norm.",
        ),
        io.Boolean.Input(
            "pooled",
            default=False,
            tooltip="SDXL only: edit the pooled embedding too, which also carries a style into the U-Net, all of it "
            "and not only the chosen layers.",
        ),
    ]


def read_recipe(
    clip: CLIP,
    layers: LayerSet,
    concept: str,
    target: str,
    preserve: str,
    attribute: str,
    tokens: str,
    preservation: str,
    ridge: str,
    relative_ridge: float,
    pooled: bool,
) -> EditRecipe:
    """What these inputs ask for."""
    settings = EditSettings(tokens, preservation, ridge, relative_ridge, pooled)
    target = target if target.strip() else EMPTY
    return edit_recipe(concept, target, preserve, attribute, settings, layers, text_encoder(clip))
