"""`python -m loco_core edit`: the layers edited in closed form, as a LoRA and as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .. import (
    Calibration,
    DiffusersEngine,
    Edit,
    EditCheck,
    EditChecker,
    EditRecipe,
    EditRequest,
    EditSettings,
    Naming,
    Preservation,
    Ridge,
    SettingsFrom,
    Tokens,
    advice_for,
    calibrate,
    calibration_report,
    calibration_rows,
    check_plan,
    check_report,
    edit_lora,
    edit_recipe,
    edit_report,
    recipe_metadata,
    save_edit,
    save_lora,
    solve_edit,
)
from ..editing.placing import held, place_plan, placed
from ..editing.recipe import PRESERVED_TOLERANCE, RELATIVE_LAMBDA
from ..localization.localize import about_rows, localize
from ..localization.probe import Prober
from ..prompt_lines import read_lines, with_files
from ..prompt_text import plain_text
from ..report import Report
from . import options
from .options import OneOf, Replacing, Settings


@dataclass(frozen=True)
class EditChoices:
    """What to edit and how, and what to write."""

    layers: str | None
    settings_from: SettingsFrom
    tokens: Tokens
    ridge: Ridge
    relative_ridge: float
    preserved_tolerance: float
    preserve: tuple[str, ...]
    preservation: Preservation
    pooled: bool
    naming: Naming
    strength: float
    prompts: tuple[str, ...]
    seeds: int
    out: Path

    @property
    def settings(self) -> EditSettings:
        return EditSettings(
            tokens=self.tokens,
            preservation=self.preservation,
            ridge=self.ridge,
            relative_ridge=self.relative_ridge,
            preserved_tolerance=self.preserved_tolerance,
            pooled=self.pooled,
        )


@click.command()
@options.replacing
@options.layers_option("The layers to edit, else those in which the model has the concept", required=False)
@click.option(
    "--settings",
    "settings_from",
    type=OneOf(SettingsFrom),
    default=str(SettingsFrom.AUTOMATIC),
    show_default=True,
    help="automatic: the next ones are only where it begins; some ten are tried on the model.",
)
@click.option(
    "--tokens",
    type=OneOf(Tokens),
    default=str(Tokens.TAIL),
    show_default=True,
    help="The paper edits the last subject token.",
)
@click.option("--ridge", type=OneOf(Ridge), default=str(Ridge.RELATIVE), show_default=True, help="The paper's is 0.01.")
@click.option("--relative-ridge", default=RELATIVE_LAMBDA, show_default=True, help="With --ridge relative.")
@click.option(
    "--preserved-tolerance",
    default=PRESERVED_TOLERANCE,
    show_default=True,
    help="With --preservation exact: larger values preserve less and leave more room.",
)
@click.option("--preserve", multiple=True, help="What must stay: a name, or a prompt like those you use. Repeat it.")
@click.option(
    "--preservation",
    type=OneOf(Preservation),
    default=str(Preservation.WEIGHTED),
    show_default=True,
    help="How firmly; the target and the empty prompt are preserved too. The paper preserves none.",
)
@click.option("--pooled", is_flag=True, help="SDXL: edit the pooled embedding too.")
@click.option("--naming", type=OneOf(Naming), default=str(Naming.KOHYA), show_default=True, help="Of the LoRA's keys.")
@click.option("--strength", default=1.0, show_default=True, help="1 is the edit as solved.")
@click.option("--prompt", "prompts", multiple=True, help="A prompt for the before/after sheet; else the concepts.")
@options.seeds_option(4)
@options.out_option("loco_edit")
@options.settings
def edit(settings: Settings, replacing: Replacing, **given: Any) -> None:
    """LocoEdit: edit the layers, or find and edit them. Writes lora.safetensors, a LoRA for any program,
    before_after.png, and edit.safetensors for LoCo Edit Load in ComfyUI.

    \b
    python -m loco_core edit --concept woodcut --target "a painting" --layers 8-9
    --prompt "a picture of a red star in the style of woodcut"
    """
    chosen = EditChoices(**given)
    engine, out = options.load_editable_engine(settings), chosen.out
    recipe, where = _recipe(engine, replacing, chosen, settings)
    calibration: Calibration | None = None
    if chosen.settings_from is SettingsFrom.AUTOMATIC:
        calibration = _calibrated(engine, recipe, settings)
    solved = solve_edit(engine.encode, recipe) if calibration is None else calibration.edit
    _save(solved, engine, chosen)
    check = calibration.check if calibration is not None and chosen.strength == 1 else None
    found = check or _checked(engine, solved, settings, chosen.strength)
    report = where + check_report(found, advice_for(solved.recipe)) + edit_report(solved)
    if calibration is not None:
        report += calibration_report(calibration)
    click.echo(f"{report}\nsaved as {out / 'lora.safetensors'}")
    prompts = list(chosen.prompts or [pair.concept for pair in recipe.pairs])
    with options.counted(2 * len(prompts) * chosen.seeds) as progress:
        maker = options.image_maker(settings, chosen.seeds, 2 * len(prompts) * chosen.seeds, progress)
        before = maker.make(engine, prompts, "before")
        with engine.edited(solved, chosen.strength):
            after = maker.make(engine, prompts, "after")
    title = ", ".join(plain_text(line.text) for line in read_lines(replacing.concepts, "concept"))
    options.write_sheet(out / "before_after.png", title, before, after)
    click.echo(f"look at {out / 'before_after.png'}")


def _recipe(
    engine: DiffusersEngine, replacing: Replacing, chosen: EditChoices, settings: Settings
) -> tuple[EditRecipe, Report]:
    """What to solve, at the layers given or at those that hold the concept; and what is said of them."""
    preserve = with_files("\n".join(chosen.preserve), options.text_of)
    request = EditRequest(replacing.concepts, replacing.targets, preserve, replacing.attribute)
    layers = engine.layers.all if chosen.layers is None else options.chosen_layers(engine.layers, chosen.layers)
    recipe = edit_recipe(request, chosen.settings, layers, engine.text_encoder)
    plan = place_plan(recipe, settings.sampling, settings.seed)
    if chosen.layers is not None:
        with options.counted_rows(plan.rows(1), "looking whether it is there") as on_rows:
            return recipe, held(layers, Prober(engine, plan, settings.rows, on_rows).measure([layers]))
    with options.counted_rows(about_rows(plan, engine.layers), "looking where it is") as on_rows:
        found = localize(Prober(engine, plan, settings.rows, on_rows), engine.layers)
    own, where = placed(recipe, found)
    if own is None:
        raise ValueError(where.brief)
    return own, where


def _calibrated(engine: DiffusersEngine, recipe: EditRecipe, settings: Settings) -> Calibration:
    most = calibration_rows(check_plan(recipe, settings.sampling, settings.seed))
    with options.counted_rows(most, "trying settings") as on_rows:
        return calibrate(engine, recipe, settings.sampling, settings.seed, settings.rows, on_rows)


def _checked(engine: DiffusersEngine, solved: Edit, settings: Settings, strength: float) -> EditCheck:
    plan = check_plan(solved.recipe, settings.sampling, settings.seed)
    with options.counted_rows(plan.rows, "checking the edit") as on_rows:
        return EditChecker(engine, plan, settings.rows, on_rows).check(solved, strength)


def _save(solved: Edit, engine: DiffusersEngine, chosen: EditChoices) -> None:
    """The edit as a LoRA and as a file of its own."""
    strength = chosen.strength
    pooled_weight = None if solved.pooled is None else engine.pooled_weight()
    tensors = edit_lora(solved, engine.layers, engine.key_value_weights, strength, chosen.naming, pooled_weight)
    metadata = {**recipe_metadata(solved, options.versions()), "loco_strength": str(strength)}
    save_lora(tensors, chosen.out / "lora.safetensors", engine.layers, metadata)
    save_edit(solved, chosen.out / "edit.safetensors", options.versions())
