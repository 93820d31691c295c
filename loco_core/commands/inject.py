"""`python -m loco_core inject`: some layers get another prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .. import Intervention, Part
from . import options
from .options import OneOf, Settings


@click.command()
@click.option("--prompt", "prompts", multiple=True, required=True, help="A prompt for all other layers. Repeat it.")
@click.option("--other", required=True, help="The prompt that the chosen layers get.")
@options.layers_option("The layers that get the other prompt")
@click.option("--part", type=OneOf(Part), default=str(Part.BOTH), show_default=True, help="What gets it.")
@options.seeds_option(4)
@options.out_option("loco_inject")
@options.settings
def inject(settings: Settings, prompts: tuple[str, ...], seeds: int, out: Path, **how: Any) -> None:
    """Give some layers another prompt, in the positive branch. Writes before_after.png.

    \b
    python -m loco_core inject --prompt "a picture of a red star in the style of woodcut"
    --other "a picture of a red star in the style of halftone" --layers 8-9
    """
    engine = options.load_engine(settings)
    (embedding,) = engine.encode([how["other"]])
    change = Intervention(options.chosen_layers(engine.layers, how["layers"]), embedding, how["part"])
    total = 2 * len(prompts) * seeds
    with options.counted(total) as progress:
        maker = options.image_maker(settings, seeds, total, progress)
        before = maker.make(engine, prompts, "before")
        after = maker.make(engine, prompts, "after", change)
    options.write_sheet(out / "before_after.png", f"{change.layers.named}: {embedding.prompt}", before, after)
    click.echo(f"look at {out / 'before_after.png'}")
