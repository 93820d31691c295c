"""Where an edit belongs: in which layers the model holds what is to go, or whether those that were given hold it.

plan = place_plan(recipe, sampling, seed=0)
recipe, report = placed(recipe, localize(Prober(engine, plan, rows_per_batch=16), engine.layers))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..localization.localize import HARDLY_ANY, Localization
from ..localization.plan import PROBED_RUNS, ProbePlan, probe_plan
from ..localization.probe import Probe
from ..localization.probe_report import localization_text
from ..localization.verdict import LEAST_SHARE, Kind
from ..models.engine import Sampling
from ..models.layers import LayerSet
from ..prompts import PromptPair
from ..report import Report, percent
from .recipe import EditRecipe
from .wordings import telling_pairs

# Steps of the run in which a concept is looked for.
STEPS = 20
NOTHING_EDITED = "NOTHING IS EDITED: write the concept as your prompts say it, and look at its spelling"
IN_NO_FEW = (
    "no few layers side by side hold it, so {layers} are edited. Where the model does not know a name, this is so too: "
    "look at an image of it first"
)
HARDLY_KNOWN = "WARNING: the model hardly knows the concept: look at its spelling, and write it as your prompts say it"


def place_plan(recipe: EditRecipe, sampling: Sampling, seed: int) -> ProbePlan:
    """A probe of what tells the recipe's concepts from their targets."""
    return pairs_plan(telling_pairs(recipe, PROBED_RUNS), sampling, seed)


def pairs_plan(pairs: Sequence[PromptPair], sampling: Sampling, seed: int) -> ProbePlan:
    """A probe of what tells the prompts of these pairs apart, in an ordinary run without guidance."""
    seeds = tuple(range(seed, seed + PROBED_RUNS))
    return probe_plan(tuple(pairs), seeds, replace(sampling, steps=STEPS, guidance=1.0))


def placed(recipe: EditRecipe, found: Localization) -> tuple[EditRecipe | None, Report]:
    """The recipe at the layers that hold its concepts, and what is said of that; no recipe where the model does not
    know them.
    """
    where = localization_text(found)
    if found.kind is Kind.NO_EFFECT:
        return None, Report((NOTHING_EDITED, where))
    told = () if found.kind is not Kind.SPREAD else (f"WARNING: {IN_NO_FEW.format(layers=found.place.named)}",)
    return replace(recipe, layers=found.place), Report(told, (f"where it is: {where}",))


def held(layers: LayerSet, probe: Probe) -> Report:
    """A warning where the model does not know the concepts that were probed, or has them in other layers than these."""
    share = probe.share(layers)
    if probe.size < HARDLY_ANY:
        return Report((HARDLY_KNOWN,))
    made = f"{layers.named} {'makes' if len(layers) == 1 else 'make'} {percent(min(share, 1))} of the concept"
    if share < LEAST_SHARE:
        return Report((f"WARNING: {made}; give no layers, and those that make it are measured",))
    return Report((), (made,))
