"""The inputs by which a person says what to edit, the same on every node that solves an edit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from comfy_api.latest import io

from ...loco_core.editing.calibrate import SettingsFrom
from ...loco_core.editing.check import advice_for, check_report
from ...loco_core.editing.recipe import (
    PRESERVED_TOLERANCE,
    RELATIVE_LAMBDA,
    EditRecipe,
    EditRequest,
    EditSettings,
    Preservation,
    Ridge,
    Tokens,
    edit_recipe,
)
from ...loco_core.editing.report import applied_report, calibration_report, edit_report
from ...loco_core.editing.solve import Edit, solve_edit
from ...loco_core.models.layers import LayerSet
from ...loco_core.prompt_lines import EMPTY, files_named, with_files
from ...loco_core.prompts import Attribute
from ...loco_core.report import Report
from ..host.edit_check import Measuring
from ..host.folders import changed_at, input_path, input_text
from ..host.progress import CountProgress
from ..host.text_encoder import encode, text_encoder
from ..inputs.shared import MARKS

EDIT_CLIP = "The text encoder of this model. The edit is made for this encoder with its present clip skip."
EDIT = "From LoCo Remove a Concept, or from LoCo Edit Solve, Combine or Load."
EDIT_LAYERS = "The layers to edit, from LoCo Layer Search, LoCo Layer Select or LoCo Layers Load."

UNCHECKED = "not checked, and settings as given: connect a model, and they are measured, and the edit is checked"

# Some of what most people's prompts are about: people, an animal, and plain things in colours, which small models know.
PRESERVE = """a woman
a man
a cat
a red house
a green tree
a blue boat
a yellow star
a purple cup
a red fish
the moon"""


def concept_input() -> io.Input:
    return io.String.Input(
        "concept",
        multiline=True,
        default="Van Gogh",
        tooltip="What to remove, one per line: a name, which the paper's prompt patterns for the attribute expand, "
        "or a whole prompt. 'file: list.txt' takes the lines of a text file in the input folder. Weights like "
        "(word:1.3) count as 1." + MARKS,
    )


def target_input(advanced: bool = False) -> io.Input:
    return io.String.Input(
        "target",
        multiline=True,
        default="a painting",
        advanced=advanced,
        tooltip="What takes its place: one line for each concept, or a single line for all. For a style 'a "
        'painting\', for a fact the new fact. "" is the empty prompt.' + MARKS,
    )


def preserve_input() -> io.Input:
    return io.String.Input(
        "preserve",
        multiline=True,
        default=PRESERVE,
        tooltip="Everything the edit must not touch, one per line: names of what is close to the concept (other "
        "artists, other facts), and prompts like those you normally use ('a photo of a cat'). A style is then "
        "removed from such prompts in particular. The target and the empty prompt are always preserved." + MARKS,
    )


def attribute_input(advanced: bool = False) -> io.Input:
    return io.Combo.Input(
        "attribute",
        options=Attribute,
        default=Attribute.STYLE,
        advanced=advanced,
        tooltip="What kind of thing the concept is. It chooses the prompt patterns that expand a name.",
    )


def edit_inputs() -> list[io.Input]:
    return [
        concept_input(),
        target_input(),
        preserve_input(),
        attribute_input(),
        io.Combo.Input(
            "settings",
            options=SettingsFrom,
            default=SettingsFrom.AUTOMATIC,
            advanced=True,
            tooltip="automatic: some ten settings are tried on the connected model, beginning with tokens, "
            "preservation and ridge as given here. Of those that remove 90 % of the concept, the one with the least "
            "side effect is taken; where the given layers cannot remove it, more layers are edited. by hand: exactly "
            "as given.",
        ),
        io.Combo.Input(
            "tokens",
            options=Tokens,
            default=Tokens.TAIL,
            advanced=True,
            tooltip="Which tokens of the prompts are edited. The paper edits the last subject token. The tail (end of "
            "text and padding) carries the concept too, so it is what is tried first.",
        ),
        io.Combo.Input(
            "preservation",
            options=Preservation,
            default=Preservation.WEIGHTED,
            advanced=True,
            tooltip="weighted: the layers respond to all of what you preserve almost as before, as in UCE. exact: to "
            "its leading directions as before, to rounding; where the concept is close to it, little room is left. "
            "none: the edit of the paper.",
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
        io.Float.Input(
            "preserved_tolerance",
            default=PRESERVED_TOLERANCE,
            min=0.001,
            max=0.9,
            step=0.01,
            advanced=True,
            tooltip="With preservation 'exact': what of the preserved prompts counts as a direction of its own, as a "
            "share of the strongest. Larger values preserve less, and leave more room for the edit.",
        ),
        io.Boolean.Input(
            "pooled",
            default=False,
            advanced=True,
            tooltip="SDXL only: also edits the pooled embedding, which carries a style too. It acts on the whole U-Net "
            "and not only on the chosen layers.",
        ),
    ]


def size_input() -> io.Input:
    return io.Int.Input(
        "size",
        default=0,
        min=0,
        max=4096,
        step=8,
        advanced=True,
        tooltip="Width and height, in pixels, of the images in whose denoising the edit is measured. 0: the size that "
        "the model was made for.",
    )


def edit_report_output(checked: bool = False) -> io.Output:
    """`checked`: by a node that checks the edit on a model."""
    first = "Whether the concept is gone and the rest is kept, what" if checked else "What"
    tooltip = f"{first} was solved, how much is preserved, and what to watch out for."
    return io.String.Output(display_name="report", tooltip=tooltip)


@dataclass(frozen=True, kw_only=True)
class EditInputs:
    """What a person chose in `edit_inputs`."""

    concept: str
    target: str
    preserve: str
    attribute: str
    settings: str
    tokens: str
    preservation: str
    ridge: str
    relative_ridge: float
    preserved_tolerance: float
    pooled: bool

    def solve(
        self, clip: Any, recipe: EditRecipe, measuring: Measuring | None, node_id: str | None
    ) -> tuple[Edit, Report]:
        """The recipe solved, and how its settings were chosen."""
        automatic = SettingsFrom.parse(self.settings, "settings") is SettingsFrom.AUTOMATIC
        if automatic and measuring is not None and not recipe.changes_nothing:
            calibration = measuring.calibrated(recipe)
            return calibration.edit, calibration_report(calibration)
        progress = CountProgress(len(recipe.pairs), node_id, "solving the edit")
        if measuring is None:
            return solve_edit(partial(encode, clip), recipe, progress), Report((UNCHECKED,))
        return solve_edit(measuring.engine.encode, recipe, progress), Report(())

    @property
    def texts(self) -> tuple[str, str, str]:
        """The text fields."""
        return self.concept, self.target, self.preserve

    def recipe(self, clip: Any, layers: LayerSet) -> EditRecipe:
        """The recipe that these inputs ask for."""
        settings = EditSettings(
            tokens=self.tokens,
            preservation=self.preservation,
            ridge=self.ridge,
            relative_ridge=self.relative_ridge,
            preserved_tolerance=self.preserved_tolerance,
            pooled=self.pooled,
        )
        return edit_recipe(edit_request(*self.texts, self.attribute), settings, layers, text_encoder(clip))


def edit_request(concept: str, target: str, preserve: str, attribute: str) -> EditRequest:
    """What a person wrote, with the lines of the files that it names. An empty target is the empty prompt."""
    concept, target, preserve = (with_files(text, input_text) for text in (concept, target, preserve))
    return EditRequest(concept, target if target.strip() else EMPTY, preserve, attribute)


def files_changed_at(*texts: str | None) -> list[float]:
    """When the files that text fields name were last written: a node that reads them runs again when they change. A
    text may be linked, and is not known before the run.
    """
    return [changed_at(input_path, file) for text in texts for file in files_named(text or "")]


def full_report(edit: Edit, settings: Report, measuring: Measuring | None) -> Report:
    """All that is said of an edit: what it does to the model, where one is connected, comes first."""
    if measuring is None:
        return edit_report(edit) + settings
    report = edit_report(edit) + applied_report(measuring.layers, edit) + settings
    if edit.recipe.changes_nothing:
        return report
    return check_report(measuring.checked(edit), advice_for(edit.recipe)) + report
