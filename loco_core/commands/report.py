"""`python -m loco_core report`: images of the model and of the edited model, scored."""

from __future__ import annotations

from pathlib import Path

import click

from .. import erasure_report, load_edit
from ..comparison.erasure import image_maker, measure_after, measure_before
from ..comparison.pictures import erasure_sheet
from ..files import write_picture, write_text
from . import options
from .compared import Compared, compared
from .options import Settings


@click.command()
@click.option("--edit", "file", type=click.Path(path_type=Path), required=True, help="A file that 'edit' wrote.")
@click.option("--strength", default=1.0, show_default=True, help="1 is the edit as solved.")
@options.out_option("loco_report")
@compared
def report(settings: Settings, compared: Compared, file: Path, strength: float, out: Path) -> None:
    """Make and score the same images before and after an edit. Writes report.txt and before_after.png.

    \b
    python -m loco_core report --edit loco_edit/edit.safetensors
    --concept "a picture of a red star in the style of woodcut" --target "a picture of a red star"
    --keep "a picture of a blue fish in the style of halftone"
    """
    engine, edit, plan = options.load_editable_engine(settings), load_edit(file), compared.plan
    engine.layers.chosen(edit.recipe.layers)
    engine.layers.check_width(edit.width, "edit")
    with options.counted(plan.images) as progress:
        maker = image_maker(plan, settings.rows, plan.images, progress)
        before = measure_before(engine, compared.scorer, plan, maker)
        with engine.edited(edit, strength):
            result = measure_after(before, engine, compared.scorer, maker)
    write_text(out / "report.txt", f"{erasure_report(result)}\n")
    write_picture(out / "before_after.png", erasure_sheet(result))
    click.echo(f"{erasure_report(result)}\nlook at {out / 'before_after.png'}")
