"""The inputs by which a person says what to edit, the same on every node that solves an edit."""

from __future__ import annotations

from dataclasses import dataclass

from comfy.sd import CLIP
from comfy_api.latest import io

from ...loco_core.editing.recipe import (
    RELATIVE_LAMBDA,
    EditRecipe,
    EditRequest,
    EditSettings,
    Preservation,
    Ridge,
    Tokens,
    edit_recipe,
)
from ...loco_core.models.layers import LayerSet
from ...loco_core.prompts import EMPTY, Attribute
from ..host.text_encoder import text_encoder

LAYERS_TOOLTIP = "The layers to edit, from LocoGen Layer Search, LoCo Layer Select or LoCo Layers Load."
CLIP_TOOLTIP = "The text encoder of this model. The edit holds for this one, at its present clip skip."

THINGS = ("a woman", "a man", "a cat", "a dog", "a house", "a street", "a forest", "the sea")
# A default for checkpoints of photos and paintings: some of what most people's prompts are about.
PRESERVE = "\n".join(f"a photo of {thing}" for thing in THINGS)


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
            options=Attribute.words(),
            default=str(Attribute.STYLE),
            tooltip="Chooses the prompt patterns that expand a bare name.",
        ),
        io.Combo.Input(
            "tokens",
            options=Tokens.words(),
            default=str(Tokens.TAIL),
            tooltip="Which tokens of the prompts are edited. The paper edits the last subject token. The tail (end of "
            "text and padding) carries the concept too: on the demo model the last subject token alone left one of "
            "three styles and most facts where they were, with the tail they are gone; so the tail is the default for "
            "all attributes (benchmarks/edit.py --tokens compares them).",
        ),
        io.Combo.Input(
            "preservation",
            options=Preservation.words(),
            default=str(Preservation.EXACT),
            tooltip="exact: the leading directions of what is preserved read as before, to rounding. weighted: "
            "all of it nearly so (as UCE does), for a concept so close to it that exact leaves no room. none: the "
            "paper's edit.",
        ),
        io.Combo.Input(
            "ridge",
            options=Ridge.words(),
            default=str(Ridge.RELATIVE),
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


@dataclass(frozen=True, kw_only=True)
class EditInputs:
    """What a person chose in `edit_inputs`."""

    concept: str
    target: str
    preserve: str
    attribute: str
    tokens: str
    preservation: str
    ridge: str
    relative_ridge: float
    pooled: bool

    def recipe(self, clip: CLIP, layers: LayerSet) -> EditRecipe:
        """The recipe that these inputs ask for."""
        settings = EditSettings(
            tokens=Tokens.parse(self.tokens, "tokens"),
            preservation=Preservation.parse(self.preservation, "preservation"),
            ridge=Ridge.parse(self.ridge, "ridge"),
            relative_ridge=self.relative_ridge,
            pooled=self.pooled,
        )
        target = self.target if self.target.strip() else EMPTY
        request = EditRequest(self.concept, target, self.preserve, Attribute.parse(self.attribute, "attribute"))
        return edit_recipe(request, settings, layers, text_encoder(clip))
