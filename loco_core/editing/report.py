"""What an edit does, in sentences."""

from __future__ import annotations

from ..models.layers import ModelLayers
from ..prompt_text import quoted
from ..prompts import taken_as_one
from ..report import Report, percent
from .calibrate import WANTED, Calibration, Trial
from .recipe import EditRecipe, EditSettings, Preservation, Ridge
from .solve import LITTLE_ROOM, Edit

# Runners-up that a report names.
NAMED = 2
# Rows of the denoiser that an image of 20 steps takes with guidance.
ROWS_OF_AN_IMAGE = 40


def edit_report(edit: Edit) -> Report:
    """What was solved and what to watch, then how the lines that asked for it were taken."""
    recipe, figures = edit.recipe, edit.figures
    if not len(recipe.layers):
        return Report(("no layers: nothing is edited",))
    lines = [
        f"solved on {len(recipe.pairs)} prompts: rank {figures.rank}, spectral norm {figures.spectral_norm:.2f}, edit "
        f"residual {figures.residual:.0%}",
        f"text encoder: {recipe.text_encoder}",
        *recipe.taken,
    ]
    if recipe.settings.preservation is Preservation.EXACT:
        lines.append(
            f"preserved exactly: {figures.kept_directions} directions (largest change {figures.kept_error:.0e}), their "
            f"tokens to {figures.token_error:.1%}; outside them lie {min(figures.room):.0%} of the concept or more"
        )
    elif recipe.settings.preservation is Preservation.WEIGHTED:
        lines.append(f"preserved: tokens to {figures.token_error:.1%}")
    verb = "responds" if len(recipe.layers) == 1 else "respond"
    return Report((f"{recipe.layers.named} {verb} to {_changed_text(recipe)}", *_warnings(edit)), tuple(lines))


def applied_report(layers: ModelLayers, edit: Edit) -> Report:
    """What an edit is of blocks that change the text; nothing of others."""
    recipe = edit.recipe
    if not layers.family.joint or not recipe.layers:
        return Report(())
    if recipe.layers != layers.all:
        some = layers.block_names(recipe.layers)
        where = f"{some} read each prompt in the edited form, the other blocks as it is"
        return Report((), (f"{where}: that acts while sampling, at up to twice the time a step, and is no LoRA",))
    how = f"by the weight {layers.text_in}" if layers.text_in else "while sampling, and is no LoRA"
    return Report((), (f"a concept edit: all blocks read each prompt in the edited form. It acts {how}",))


def _warnings(edit: Edit) -> list[str]:
    """What may keep the edit from doing what it should."""
    recipe, figures = edit.recipe, edit.figures
    lines = [*taken_as_one([pair.concept for pair in recipe.pairs])]
    if figures.chunks > 1:
        lines.append(
            f"WARNING: a concept prompt fills {figures.chunks} chunks of tokens, and its words may remove less of the "
            "concept than its name alone does; give the name, or compare images before and after"
        )
    close = [
        (share, pair.concept) for pair, share in zip(recipe.pairs, figures.room, strict=True) if share < LITTLE_ROOM
    ]
    if close:
        share, concept = min(close)
        more = f", and little of {len(close) - 1} more" if len(close) > 1 else ""
        lines.append(
            f"WARNING: only {share:.1%} of {quoted(concept)} lies outside what is preserved{more}; others may change "
            "with it. Take out of 'preserve' what is close to it"
        )
    return lines


def _changed_text(recipe: EditRecipe) -> str:
    """Which concept becomes which target; of several, the first."""
    changes = [(named.name, named.target) for named in recipe.named]
    changes = changes or [(pair.concept, pair.target) for pair in recipe.pairs]
    (concept, target), *others = changes
    if others:
        return f"{quoted(concept)} and {len(others)} more as to what takes their place"
    return f"{quoted(concept)} as to {quoted(target) if target else 'the empty prompt'}"


def calibration_report(calibration: Calibration) -> Report:
    """What to watch, then which settings were chosen, by what rule, and what came next."""
    given, used, (best, *others) = calibration.given, calibration.edit.recipe, calibration.trials
    said = f"settings measured on this model: {_settings_text(used.settings)}"
    if best.enough and used.settings == best.recipe.settings:
        said += (
            f". Of {len(calibration.trials)} that were tried, none that removes {WANTED:.0%} surely has less side "
            "effect"
        )
    some = len(best.recipe.pairs) < len(given.pairs)
    images = calibration.rows / ROWS_OF_AN_IMAGE
    figures = [
        said,
        *(f"next best: {_trial_text(trial)}" for trial in others[:NAMED] if trial.recipe.settings != used.settings),
        f"measured in {calibration.rows} rows of the denoiser, as much as {images:.1f} images of 20 steps"
        + (f"; tried with {len(best.recipe.pairs)} of {len(given.pairs)} prompts" if some else ""),
    ]
    return Report(tuple(_shortcomings(calibration)), tuple(figures))


def _shortcomings(calibration: Calibration) -> list[str]:
    """Where the chosen layers, or all that was tried, do not remove enough."""
    given, used, (best, *others) = calibration.given, calibration.edit.recipe, calibration.trials
    lines = []
    more = [] if best.enough else [trial for trial in others if trial.enough]
    if more:
        lines.append(
            f"WARNING: an edit of {given.layers.named} removes {percent(best.check.removed_share)} of the concept, and "
            f"{percent(best.check.removed.min())} in one wording; one of {more[0].recipe.layers.named} would remove "
            f"{percent(more[0].check.removed_share)}, with a side effect of {percent(more[0].check.mean_side.mean)}: "
            "too little more, or too much of a change, so give them by hand if you want that"
        )
    elif not best.enough:
        lines.append(
            "WARNING: the model may not know it by this name: look at its spelling, or name it in other words too. "
            f"The best edit of all that were tried removes {percent(best.check.removed_share)} of it, and "
            f"{percent(best.check.removed.min())} in one wording"
        )
    if used.layers != given.layers:
        before = next(trial.check for trial in calibration.trials if trial.recipe.layers == given.layers)
        lines.append(
            f"WARNING: an edit of {given.layers.named} alone removes {percent(before.removed_share)} of it, with a "
            f"side effect of {before.mean_side.mean:.1%}. So {used.layers.named} are edited"
        )
    return lines


def _trial_text(trial: Trial) -> str:
    recipe, check = trial.recipe, trial.check
    return (
        f"{recipe.layers.named}, {_settings_text(recipe.settings)}: removed {percent(check.removed_share)}, side "
        f"effect {check.mean_side.mean:.1%}"
    )


def _settings_text(settings: EditSettings) -> str:
    preserved = str(settings.preservation)
    if settings.preservation is Preservation.EXACT:
        preserved = f"exact to {settings.preserved_tolerance:g}"
    ridge = "the paper's" if settings.ridge is Ridge.PAPER else f"{settings.relative_ridge:.2g}"
    return f"tokens '{settings.tokens}', preservation {preserved}, ridge {ridge}"
