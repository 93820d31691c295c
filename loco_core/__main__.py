"""The method from a terminal, on diffusers: `python -m loco_core trace` finds layers, `python -m loco_core edit` edits
them. See `python -m loco_core --help`.
"""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path

import click
import diffusers
import torch

from .commands.neurons import neurons
from .commands.options import Settings, bar, load_clip, load_engine, make_pictures, settings
from .drawing import before_after_sheet
from .editing.edit import (
    PRESERVATIONS,
    RELATIVE_LAMBDA,
    RIDGES,
    TOKEN_CHOICES,
    EditSettings,
    edit_recipe,
    report_lines,
    solve_edit,
)
from .editing.file import recipe_metadata, save_edit
from .editing.lora import NAMINGS, lora_tensors, save_lora
from .files import write_picture, write_text
from .localization.evaluation import Evaluation
from .localization.pictures import contact_sheet, model_figure, score_plot
from .localization.plan import AUTO, SearchPlan
from .localization.report import provenance, report_text, result_json, scores_csv
from .localization.search import search
from .localization.strategies import EFFORTS
from .models.engine import Row
from .models.layers import PARTS, parse_layers
from .prompts import ATTRIBUTES, prompt_pairs

CONCEPT = click.option(
    "--concept",
    "concepts",
    multiple=True,
    required=True,
    help="A name, which the paper's templates expand, or a whole prompt. Repeat it for more.",
)
TARGET = click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    help="What takes the concept's place: one for each concept, or one for all.",
)
ATTRIBUTE = click.option("--attribute", type=click.Choice(ATTRIBUTES), default="style", show_default=True)


@click.group()
def app() -> None:
    """Find the cross-attention layers that hold a style, an object or a fact, and edit exactly those."""


@app.command()
@CONCEPT
@TARGET
@ATTRIBUTE
@click.option(
    "--window-size",
    type=click.IntRange(AUTO),
    default=2,
    show_default=True,
    help="Adjacent layers tried at once; 0 to find the size at which the effect saturates.",
)
@click.option(
    "--effort",
    type=click.Choice(list(EFFORTS)),
    default="balanced",
    show_default=True,
    help="'balanced' makes images where the answer is open: a fifth of 'exhaustive' or less, from 8 a window on.",
)
@click.option("--part", type=click.Choice(PARTS), default=PARTS[0], show_default=True, help="What reads the target.")
@click.option("--seeds", type=click.IntRange(1), default=4, show_default=True, help="Images of each prompt.")
@click.option(
    "--scorer",
    type=click.Path(path_type=Path),
    help="A .safetensors file of open_clip weights. The demo model brings its own.",
)
@click.option("--architecture", help="The scorer's open_clip architecture, where no configuration lies beside it.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("loco_trace"), show_default=True, help="A folder.")
@settings
def trace(
    concepts: tuple[str, ...],
    targets: tuple[str, ...],
    attribute: str,
    window_size: int,
    effort: str,
    part: str,
    seeds: int,
    scorer: Path | None,
    architecture: str | None,
    out: Path,
    settings: Settings,
) -> None:
    """LocoGen: find the layers. Writes result.json, scores.csv (every image), scores.png, model.png (the
    U-Net with its layers by effect) and windows.png.

    \b
    python -m loco_core trace --concept woodcut --target "a painting"
    """
    plan = SearchPlan(
        tuple(prompt_pairs("\n".join(concepts), "\n".join(targets), attribute, ("concept", "target"))),
        tuple(range(settings.seed, settings.seed + seeds)),
        attribute,
        window_size,
        settings.sampling,
        effort,
        part,
    )
    clip = load_clip(settings.model, scorer, architecture)
    engine = load_engine(settings.model)

    with bar() as progress:
        task = progress.add_task("unmodified", total=math.ceil(plan.most_images(len(engine.layers))))

        def on_batch(evaluation: Evaluation) -> None:
            progress.update(task, completed=round(evaluation.cost), description=evaluation.label)
            write_text(out / "scores.csv", scores_csv(plan, evaluation.cells, evaluation.scores))

        result = search(engine, clip, plan, settings.rows, on_batch)
    came_from = provenance(engine, clip, f"diffusers {diffusers.__version__}")
    write_text(out / "result.json", result_json(result, came_from))
    write_picture(out / "scores.png", score_plot(result))
    write_picture(out / "model.png", model_figure(result, engine.layers))
    write_picture(out / "windows.png", contact_sheet(result))
    click.echo(f"{report_text(result)}\nsaved in {out}")


@app.command()
@CONCEPT
@TARGET
@ATTRIBUTE
@click.option("--layers", required=True, help="The layers to edit: 8-9, or blocks like d2.2-9, m0, u1.")
@click.option(
    "--tokens",
    type=click.Choice(TOKEN_CHOICES),
    default=TOKEN_CHOICES[-1],
    show_default=True,
    help="The paper edits the last subject token.",
)
@click.option("--ridge", type=click.Choice(RIDGES), default=RIDGES[0], show_default=True, help="The paper's is 0.01.")
@click.option("--relative-ridge", default=RELATIVE_LAMBDA, show_default=True, help="With --ridge relative.")
@click.option("--preserve", multiple=True, help="What must stay: a name, or a prompt like those you use. Repeat it.")
@click.option(
    "--preservation",
    type=click.Choice(PRESERVATIONS),
    default=PRESERVATIONS[0],
    show_default=True,
    help="How firmly; the target and the empty prompt are preserved too. The paper preserves none.",
)
@click.option("--pooled", is_flag=True, help="SDXL: edit the pooled embedding too.")
@click.option("--naming", type=click.Choice(NAMINGS), default=NAMINGS[0], show_default=True, help="Of the LoRA's keys.")
@click.option("--strength", default=1.0, show_default=True, help="1 is the edit as solved.")
@click.option("--prompt", "prompts", multiple=True, help="A prompt for the before/after sheet; else the concepts.")
@click.option("--seeds", type=click.IntRange(1), default=4, show_default=True, help="Images of each prompt.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("loco_edit"), show_default=True, help="A folder.")
@settings
def edit(
    concepts: tuple[str, ...],
    targets: tuple[str, ...],
    attribute: str,
    layers: str,
    tokens: str,
    ridge: str,
    relative_ridge: float,
    preserve: tuple[str, ...],
    preservation: str,
    pooled: bool,
    naming: str,
    strength: float,
    prompts: tuple[str, ...],
    seeds: int,
    out: Path,
    settings: Settings,
) -> None:
    """LocoEdit: edit the layers. Writes lora.safetensors, a LoRA for any program, before_after.png, and
    edit.safetensors for LoCo Edit Load in ComfyUI.

    \b
    python -m loco_core edit --concept woodcut --target "a painting" --layers 8-9
    --prompt "a picture of a red star in the style of woodcut"
    """
    engine = load_engine(settings.model)
    chosen = parse_layers(layers, engine.layers)
    if not chosen:
        raise ValueError("layers: empty; give at least one, like 8-9")
    how = EditSettings(tokens, preservation, ridge, relative_ridge, pooled)
    fields = ("\n".join(given) for given in (concepts, targets, preserve))
    recipe = edit_recipe(*fields, attribute, how, chosen, engine.text_encoder)
    solved = solve_edit(engine.encode, recipe)
    weights = ((engine.layers[layer], engine.key_value_weights(layer)) for layer in chosen)
    read_pooled = solved.pooled and (solved.pooled, engine.pooled_weight())
    versions = {"diffusers": diffusers.__version__, "torch": torch.__version__}
    tensors = lora_tensors(solved.operator, strength, weights, len(engine.layers), naming, read_pooled)
    save_lora(tensors, out / "lora.safetensors", {**recipe_metadata(solved, versions), "loco_strength": str(strength)})
    save_edit(solved, out / "edit.safetensors", versions)
    click.echo("\n".join([*report_lines(solved), f"saved as {out / 'lora.safetensors'}"]))
    shown = engine.encode(prompts or [pair.concept for pair in recipe.pairs])
    made = [Row(embedding, settings.seed + number) for embedding in shown for number in range(seeds)]
    with bar() as progress:
        task = progress.add_task("before", total=2 * len(made))

        before = make_pictures(engine, made, settings, functools.partial(progress.advance, task))
        progress.update(task, description="after")
        with engine.edited(solved, strength):
            after = make_pictures(engine, made, settings, functools.partial(progress.advance, task))
    write_picture(out / "before_after.png", before_after_sheet(", ".join(concepts), before, after))
    click.echo(f"look at {out / 'before_after.png'}")


app.add_command(neurons)


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0; 2 with one sentence for a user's mistake; 130 for Ctrl-C, with what was finished on disk."""
    try:
        return app(arguments, standalone_mode=False) or 0
    except click.ClickException as error:
        return stopped(error.format_message(), 2)
    except (ValueError, OSError) as error:
        return stopped(str(error), 2)
    except torch.cuda.OutOfMemoryError:
        return stopped("out of memory; give fewer --rows, or a smaller --size", 2)
    except (click.Abort, KeyboardInterrupt):
        return stopped("stopped; what was finished is in the output folder", 130)


def stopped(reason: str, code: int) -> int:
    click.echo(f"loco_core: {reason}", err=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
