"""`python -m loco_core neurons`: detect them, measure their effects, ablate some, sweep over how many."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from .. import (
    USUAL,
    AblatedEngine,
    ChooseBy,
    DiffusersEngine,
    EffectsRequest,
    Mode,
    Neurons,
    NeuronTokens,
    Part,
    Ranking,
    SweepRequest,
    ablation,
    ablation_lora,
    chosen_neurons,
    contrast_prompts,
    detect_neurons,
    load_neurons,
    measure_effects,
    neuron_recipe,
    neuron_report,
    save_lora,
    save_neurons,
    sweep_neurons,
    sweep_report,
)
from ..files import write_picture, write_text
from ..neurons.effects import RUNS
from ..neurons.pictures import effect_plot, neuron_plot, sweep_plot, sweep_sheet
from ..neurons.sweep import parse_counts
from ..report import Report
from . import options
from .compared import Compared, compared
from .options import OneOf, Settings

OUT = options.out_option("loco_neurons")
NEURONS = click.option(
    "--neurons", "file", type=click.Path(path_type=Path), required=True, help="A file that 'neurons detect' wrote."
)
RANK_BY = click.option(
    "--rank-by",
    type=OneOf(Ranking),
    default=str(Ranking.SIGNAL),
    show_default=True,
    help="What passes through a neuron, how surely it differs (the paper's z), or its measured effect.",
)
# Means can be measured; a scale would be a third thing to choose.
MODE = click.option(
    "--mode",
    type=OneOf(Mode, [str(Mode.MEAN), str(Mode.ZERO)]),
    default=str(Mode.MEAN),
    show_default=True,
    help="What takes the place of a neuron's output.",
)


@click.group()
def neurons() -> None:
    """Find the neurons of the located layers that hold a style, ablate them, or see how many are enough."""


@dataclass(frozen=True)
class DetectChoices:
    concepts: tuple[str, ...]
    without: tuple[str, ...]
    layers: str
    part: Part
    tokens: NeuronTokens
    out: Path


@neurons.command()
@click.option(
    "--concept",
    "concepts",
    multiple=True,
    required=True,
    help="A style's name, or a whole prompt with it. 'name: ...' and 'prompt: ...' say which.",
)
@click.option(
    "--without", multiple=True, required=True, help="A plain prompt, or the name of another style. Repeat it."
)
@options.layers_option("The layers that hold the style")
@click.option(
    "--part", type=OneOf(Part), default=str(Part.VALUES), show_default=True, help="Whose outputs are the neurons."
)
@click.option(
    "--tokens",
    type=OneOf(NeuronTokens),
    default=str(NeuronTokens.TAIL),
    show_default=True,
    help="Which tokens of a prompt are compared, as their mean.",
)
@OUT
@options.settings
def detect(settings: Settings, **given: Any) -> None:
    """Score every neuron. Writes neurons.safetensors, for LoCo Neuron Load too, and neurons.png.

    \b
    python -m loco_core neurons detect --concept woodcut --layers 8-9
    --without "a picture of a star" --without "a picture of a fish" --without halftone
    """
    chosen = DetectChoices(**given)
    engine = options.load_editable_engine(settings)
    contrast = contrast_prompts("\n".join(chosen.concepts), "\n".join(chosen.without))
    found = detect_neurons(
        engine, contrast, options.chosen_layers(engine.layers, chosen.layers), chosen.part, chosen.tokens
    )
    save_neurons(found, chosen.out / "neurons.safetensors", options.versions())
    write_picture(chosen.out / "neurons.png", neuron_plot(found))
    click.echo(f"{neuron_report(found)}\nsaved in {chosen.out}")


@dataclass(frozen=True)
class AblateChoices:
    file: Path
    count: int | None
    rank_by: Ranking
    mode: Mode
    scale: float | None
    prompts: tuple[str, ...]
    seeds: int
    out: Path


@neurons.command()
@NEURONS
@click.option("--count", type=click.IntRange(0), help="How many neurons.  [default: a quarter of them]")
@RANK_BY
@click.option(
    "--mode",
    type=OneOf(Mode),
    default=str(Mode.MEAN),
    show_default=True,
    help="What takes the place of a neuron's output.",
)
@click.option("--scale", type=float, help="With --mode scale, 0 to 2.")
@click.option("--prompt", "prompts", multiple=True, required=True, help="A prompt for the sheet. Repeat it for more.")
@options.seeds_option(2)
@OUT
@options.settings
def ablate(settings: Settings, **given: Any) -> None:
    """Ablate neurons. Writes before_after.png and, with modes zero and scale, lora.safetensors for any program."""
    chosen = AblateChoices(**given)
    mode, out = chosen.mode, chosen.out
    if (chosen.scale is not None) != (mode is Mode.SCALE):
        raise ValueError("scale: --mode scale and --scale, 0 to 2, go together")
    engine, found = _fitting(settings, chosen.file)
    count = USUAL if chosen.count is None else chosen.count
    ablated = chosen_neurons(found, ChooseBy.COUNT, count, ranking=chosen.rank_by)
    change = ablation(found, ablated, mode, chosen.scale or 0.0)
    total = 2 * len(chosen.prompts) * chosen.seeds
    with options.counted(total) as progress:
        maker = options.image_maker(settings, chosen.seeds, total, progress)
        before = maker.make(engine, chosen.prompts, "before")
        after = maker.make(AblatedEngine(engine, change), chosen.prompts, "after")
    title = f"{sum(map(len, ablated.values()))} of {found.count} neurons, {mode}"
    options.write_sheet(out / "before_after.png", title, before, after)
    click.echo(f"{title}\nlook at {out / 'before_after.png'}")
    if mode is not Mode.MEAN:
        tensors = ablation_lora(change, engine.layers, engine.key_value_weights)
        save_lora(tensors, out / "lora.safetensors", engine.layers, neuron_recipe(found, options.versions()))
        click.echo(f"saved as {out / 'lora.safetensors'}")


@neurons.command()
@NEURONS
@click.option("--counts", default="5%, 10%, 25%, 40%", show_default=True, help="Numbers or percents.")
@RANK_BY
@MODE
@OUT
@compared
def sweep(settings: Settings, compared: Compared, file: Path, out: Path, counts: str, **how: Any) -> None:
    """Ablate more and more neurons: what goes, what stays, how many to choose. Writes sweep.txt, .png, sheet.png."""
    engine, found = _fitting(settings, file)
    tried = parse_counts(counts, found.count)
    request = SweepRequest(compared.plan, found, tried, how["rank_by"], how["mode"])
    with options.counted(request.images) as progress:
        ablated = functools.partial(AblatedEngine, engine)
        result = sweep_neurons(request, engine, ablated, compared.scorer, settings.rows, progress)
    write_text(out / "sweep.txt", f"{sweep_report(result)}\n")
    write_picture(out / "sweep.png", sweep_plot(result))
    write_picture(out / "sheet.png", sweep_sheet(result))
    click.echo(f"{sweep_report(result)}\nsaved in {out}")


@neurons.command()
@NEURONS
@click.option("--runs", type=click.Choice(list(map(str, RUNS))), default="32", show_default=True, help="In a round.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Each splits the better half.")
@MODE
@OUT
@compared
def effects(settings: Settings, compared: Compared, file: Path, out: Path, **how: Any) -> None:
    """Measure what ablating groups of neurons does, for --rank-by effect. Writes neurons.safetensors, effects.png."""
    engine, found = _fitting(settings, file)
    request = EffectsRequest(compared.plan, found, int(how["runs"]), how["rounds"], how["mode"])
    with options.counted(request.images) as progress:
        ablated = functools.partial(AblatedEngine, engine)
        measured = measure_effects(request, engine, ablated, compared.scorer, settings.rows, progress)
    save_neurons(measured, out / "neurons.safetensors", options.versions())
    write_picture(out / "effects.png", effect_plot(measured))
    warnings = compared.plan.unseen_by(compared.scorer)
    click.echo(f"{neuron_report(measured) + Report(tuple(warnings))}\nsaved in {out}")


def _fitting(settings: Settings, file: Path) -> tuple[DiffusersEngine, Neurons]:
    """The engine and the neurons in the file; an error where they are of another kind of model."""
    found, engine = load_neurons(file), options.load_editable_engine(settings)
    engine.layers.chosen(found.layers)
    engine.layers.check_width(found.width, "neurons")
    return engine, found
