"""The inputs by which a person says what to edit, the same on every node that solves an edit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from ...loco_core.prompt_lines import EMPTY
from ...loco_core.prompts import Attribute
from ..host.text_encoder import text_encoder
from ..inputs.shared import MARKS

EDIT_CLIP = "The text encoder of this model. The edit is made for this encoder with its present clip skip."
EDIT_LAYERS = "The layers to edit, from LocoGen Layer Search, LoCo Layer Select or LoCo Layers Load."

THINGS = ("a woman", "a man", "a cat", "a dog", "a house", "a street", "a forest", "the sea")
# A default for checkpoints of photos and paintings: some of what most people's prompts are about.
PRESERVE = "\n".join(f"a photo of {thing}" for thing in THINGS)


def edit_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "concept",
            multiline=True,
            default="Van Gogh",
            tooltip="What to remove, one per line: a name, which the paper's prompt patterns for the attribute expand, "
            "or a whole prompt. Weights like (word:1.3) count as 1." + MARKS,
        ),
        io.String.Input(
            "target",
            multiline=True,
            default="a painting",
            tooltip="What takes its place: one line for each concept, or a single line for all. For a style 'a "
            'painting\', for a fact the new fact. "" is the empty prompt.' + MARKS,
        ),
        io.String.Input(
            "preserve",
            multiline=True,
            default=PRESERVE,
            tooltip="Everything the edit must not touch, one per line: names of what is close to the concept (other "
            "artists, other facts), and prompts like those you normally use ('a photo of a cat'). A style is then "
            "removed from such prompts in particular. The target and the empty prompt are always preserved." + MARKS,
        ),
        io.Combo.Input(
            "attribute",
            options=Attribute,
            default=Attribute.STYLE,
            tooltip="What kind of thing the concept is. It chooses the prompt patterns that expand a name.",
        ),
        io.Combo.Input(
            "tokens",
            options=Tokens,
            default=Tokens.TAIL,
            advanced=True,
            tooltip="Which tokens of the prompts are edited. The paper edits the last subject token. The tail (end of "
            "text and padding) carries the concept too. On the demo model, the last subject token alone left one of "
            "three styles and most facts; with the tail they were gone. So the tail is the default for all attributes "
            "(benchmarks/edit.py --tokens compares them).",
        ),
        io.Combo.Input(
            "preservation",
            options=Preservation,
            default=Preservation.EXACT,
            advanced=True,
            tooltip="exact: the layers respond to the leading directions of what you preserve as before, to rounding. "
            "weighted: to all of it almost as before, as in UCE; choose it if the concept is so close that exact "
            "leaves no room. none: the edit of the paper.",
        ),
        io.Combo.Input(
            "ridge",
            options=Ridge,
            default=Ridge.RELATIVE,
            advanced=True,
            tooltip="How strongly all other prompts hold the weights. 'relative' is measured against the size of the "
            "embeddings and keeps other concepts. 'paper' is the paper's fixed 0.01. To weaken an edit, use strength "
            "instead.",
        ),
        io.Float.Input(
            "relative_ridge",
            default=RELATIVE_LAMBDA,
            min=0.0001,
            max=10.0,
            step=0.01,
            advanced=True,
            tooltip="With ridge 'relative': the ridge as a share of the mean squared norm of the embeddings. Larger "
            "values keep more and remove less.",
        ),
        io.Boolean.Input(
            "pooled",
            default=False,
            advanced=True,
            tooltip="SDXL only: also edits the pooled embedding, which carries a style too. It acts on the whole U-Net "
            "and not only on the chosen layers.",
        ),
    ]


def edit_report_output() -> io.Output:
    return io.String.Output(
        display_name="report", tooltip="What was solved, how much is preserved, and what to watch out for."
    )


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

    def recipe(self, clip: Any, layers: LayerSet) -> EditRecipe:
        """The recipe that these inputs ask for."""
        settings = EditSettings(
            tokens=self.tokens,
            preservation=self.preservation,
            ridge=self.ridge,
            relative_ridge=self.relative_ridge,
            pooled=self.pooled,
        )
        target = self.target if self.target.strip() else EMPTY
        request = EditRequest(self.concept, target, self.preserve, self.attribute)
        return edit_recipe(request, settings, layers, text_encoder(clip))
