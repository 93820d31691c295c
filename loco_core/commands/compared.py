"""The options by which a person says which images are compared before and after a change of the model."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import click

from .. import ClipScorer, ErasurePlan, whole_pairs
from ..prompts import lines
from . import options
from .options import Command, Settings


@dataclass(frozen=True)
class Compared:
    """The images that are compared, and what scores them."""

    plan: ErasurePlan
    scorer: ClipScorer


def compared(command: Command) -> Command:
    """Adds the options that say which images are compared; the command gets them as one Compared, and the Settings."""

    @functools.wraps(command)
    def run(settings: Settings, **given: Any) -> None:
        concepts, targets, keep, seeds, scorer = (
            given.pop(name) for name in ("concepts", "targets", "keep", "seeds", "scorer")
        )
        plan = ErasurePlan(
            pairs=tuple(whole_pairs("\n".join(concepts), "\n".join(targets), ("concept", "target"))),
            kept=tuple(dict.fromkeys(lines("\n".join(keep), "keep"))),
            seeds=settings.seeds(seeds),
            sampling=settings.sampling,
        )
        command(settings=settings, compared=Compared(plan, options.load_clip(settings.model, scorer)), **given)

    return options.with_options(
        run,
        [
            click.option(
                "--concept", "concepts", multiple=True, required=True, help="A whole prompt with the concept."
            ),
            click.option("--target", "targets", multiple=True, required=True, help="The same prompt without it."),
            click.option("--keep", multiple=True, required=True, help="A prompt whose images should stay. Repeat it."),
            options.seeds_option(2),
            options.scorer_option(),
            options.settings,
        ],
    )
