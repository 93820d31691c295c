"""`python -m loco_core neurons`: detect them, measure their effects, ablate some, sweep over how many."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import diffusers
import torch

from ..comparison.erasure import ErasurePlan, OnBatch
from ..diffusers_host.engine import AblatedEngine, DiffusersEngine
from ..drawing import before_after_sheet, effect_plot, neuron_plot, sweep_plot, sweep_sheet
from ..editing.lora import ablation_lora_tensors, save_lora
from ..files import write_picture, write_text
from ..models.engine import Row, TextEmbedding
from ..models.layers import PARTS, parse_layers
from ..neurons.detection import MODES, RANKINGS, TOKENS, Neurons, ablation, chosen_neurons, detect_neurons, neuron_lines
from ..neurons.effects import RUNS, effect_images, measure_effects
from ..neurons.file import load_neurons, neuron_recipe, save_neurons
from ..neurons.sweep import parse_counts, sweep_images, sweep_neurons, sweep_text
from ..prompts import contrast_prompts, lines, whole_pairs
from ..scoring.clip_score import ClipScorer
from .options import Settings, bar, load_clip, load_engine, make_pictures, settings

OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("loco_neurons"), show_default=True, help="A folder."
)
NEURONS = click.option(
    "--neurons", "file", type=click.Path(path_type=Path), required=True, help="A file that 'neurons detect' wrote."
)
RANK_BY = click.option("--rank-by", type=click.Choice(RANKINGS), default=RANKINGS[0], show_default=True)
SEEDS = click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Images of each prompt.")


@click.group()
def neurons() -> None:
    """Find the neurons of the located layers that hold a style, ablate them, or see how many are enough."""


@neurons.command()
@click.option("--concept", "concepts", multiple=True, required=True, help="A style's name, or a whole prompt with it.")
@click.option(
    "--without", multiple=True, required=True, help="A plain prompt, or the name of another style. Repeat it."
)
@click.option("--layers", required=True, help="The layers that hold the style: 8-9, or blocks like d2.2-9, m0, u1.")
@click.option("--part", type=click.Choice(PARTS), default="values", show_default=True)
@click.option("--tokens", type=click.Choice(TOKENS), default=TOKENS[0], show_default=True)
@OUT
@settings
def detect(
    concepts: tuple[str, ...],
    without: tuple[str, ...],
    layers: str,
    part: str,
    tokens: str,
    out: Path,
    settings: Settings,
) -> None:
    """Score every neuron. Writes neurons.safetensors, for LoCo Neuron Load too, and neurons.png.

    \b
    python -m loco_core neurons detect --concept woodcut --layers 8-9
    --without "a picture of a star" --without "a picture of a fish" --without halftone
    """
    engine = load_engine(settings.model)
    prompts = contrast_prompts("\n".join(concepts), "\n".join(without))
    chosen = parse_layers(layers, engine.layers)
    asked = (prompts.concept, prompts.without, chosen, prompts.others, part, tokens, engine.text_encoder)
    found = detect_neurons(engine.encode, engine.key_value_weights, *asked)
    save_neurons(found, out / "neurons.safetensors", _versions())
    write_picture(out / "neurons.png", neuron_plot(found))
    click.echo("\n".join([*neuron_lines(found), f"saved in {out}"]))


@neurons.command()
@NEURONS
@click.option("--count", type=click.IntRange(0), default=100, show_default=True, help="How many neurons.")
@RANK_BY
@click.option("--mode", type=click.Choice(MODES), default=MODES[0], show_default=True)
@click.option("--scale", type=float, help="With --mode scale, 0 to 2.")
@click.option("--prompt", "prompts", multiple=True, required=True, help="A prompt for the sheet. Repeat it for more.")
@SEEDS
@OUT
@settings
def ablate(
    file: Path,
    count: int,
    rank_by: str,
    mode: str,
    scale: float | None,
    prompts: tuple[str, ...],
    seeds: int,
    out: Path,
    settings: Settings,
) -> None:
    """Ablate neurons. Writes before_after.png and, with modes zero and scale, lora.safetensors for any program."""
    if (scale is not None) != (mode == "scale"):
        raise ValueError("scale: --mode scale and --scale, 0 to 2, go together")
    engine, found = _fitting(settings, file)
    change = ablation(found, chosen_neurons(found, "count", count, 0.0, rank_by), mode, scale or 0.0)
    rows = _rows(engine.encode(prompts), settings.seed, seeds)
    pictures = []
    with bar() as progress:
        task = progress.add_task("images", total=2 * len(rows))
        for around in (contextlib.nullcontext(), engine.ablated(change)):
            with around:
                pictures.append(make_pictures(engine, rows, settings, functools.partial(progress.advance, task)))
    title = f"{count} of {found.count} neurons, {mode}"
    write_picture(out / "before_after.png", before_after_sheet(title, *pictures))
    click.echo(f"{title}\nlook at {out / 'before_after.png'}")
    if mode != "mean":
        tensors = ablation_lora_tensors(change, engine.key_value_weights, engine.layers)
        save_lora(tensors, out / "lora.safetensors", neuron_recipe(found, _versions()))
        click.echo(f"saved as {out / 'lora.safetensors'}")


@dataclass(frozen=True)
class Compared:
    """The images that are compared, and what scores them."""

    plan: ErasurePlan
    scorer: ClipScorer


COMPARED = [
    click.option("--concept", "concepts", multiple=True, required=True, help="A whole prompt with the concept."),
    click.option("--target", "targets", multiple=True, required=True, help="The same prompt without it."),
    click.option("--keep", multiple=True, required=True, help="A prompt whose images should stay. Repeat it."),
    SEEDS,
    click.option(
        "--scorer",
        type=click.Path(path_type=Path),
        help="A .safetensors file of open_clip weights. The demo model brings its own.",
    ),
    OUT,
    settings,
]


def compared(command: Callable) -> Callable:
    """Adds the options that say which images are compared; the command gets them as one Compared, and the Settings."""

    @functools.wraps(command)
    def run(settings: Settings, concepts, targets, keep, seeds, scorer, **own) -> None:
        pairs = tuple(whole_pairs("\n".join(concepts), "\n".join(targets), ("concept", "target")))
        every = tuple(range(settings.seed, settings.seed + seeds))
        plan = ErasurePlan(pairs, tuple(dict.fromkeys(lines("\n".join(keep), "keep"))), every, settings.sampling)
        command(settings=settings, compared=Compared(plan, load_clip(settings.model, scorer)), **own)

    for option in reversed(COMPARED):
        run = option(run)
    return run


@neurons.command()
@NEURONS
@click.option("--counts", default="5%, 10%, 25%, 40%", show_default=True, help="Numbers or percents.")
@RANK_BY
@click.option("--mode", type=click.Choice(MODES[:2]), default=MODES[0], show_default=True)
@compared
def sweep(file: Path, counts: str, rank_by: str, mode: str, compared: Compared, out: Path, settings: Settings) -> None:
    """Ablate more and more neurons: what goes, what stays, how many to choose. Writes sweep.txt, .png, sheet.png."""
    engine, found = _fitting(settings, file)
    tried = parse_counts(counts, found.count)
    ablated = functools.partial(AblatedEngine, engine)
    asked = (engine, ablated, compared.scorer, compared.plan, found, tried, rank_by, mode, settings.rows)
    with _counted(sweep_images(compared.plan, tried)) as on_batch:
        result = sweep_neurons(*asked, on_batch)
    write_text(out / "sweep.txt", sweep_text(result) + "\n")
    write_picture(out / "sweep.png", sweep_plot(result))
    write_picture(out / "sheet.png", sweep_sheet(result))
    click.echo(f"{sweep_text(result)}\nsaved in {out}")


@neurons.command()
@NEURONS
@click.option("--runs", type=click.Choice(list(map(str, RUNS))), default="32", show_default=True, help="In a round.")
@click.option("--rounds", type=click.IntRange(1), default=2, show_default=True, help="Each splits the better half.")
@click.option("--mode", type=click.Choice(MODES[:2]), default=MODES[0], show_default=True)
@compared
def effects(file: Path, runs: str, rounds: int, mode: str, compared: Compared, out: Path, settings: Settings) -> None:
    """Measure what ablating groups of neurons does, for --rank-by effect. Writes neurons.safetensors, effects.png."""
    engine, found = _fitting(settings, file)
    ablated = functools.partial(AblatedEngine, engine)
    asked = (engine, ablated, compared.scorer, compared.plan, found, int(runs), rounds, mode, settings.rows)
    with _counted(effect_images(compared.plan, int(runs), rounds)) as on_batch:
        measured = measure_effects(*asked, on_batch)
    save_neurons(measured, out / "neurons.safetensors", _versions())
    write_picture(out / "effects.png", effect_plot(measured))
    click.echo("\n".join([*neuron_lines(measured), f"saved in {out}"]))


@contextlib.contextmanager
def _counted(images: int) -> Iterator[OnBatch]:
    """A bar over so many images."""
    with bar() as progress:
        task = progress.add_task("images", total=images)
        yield lambda done, total, label, thumbnail: progress.update(task, completed=done, description=label)


def _fitting(settings: Settings, file: Path) -> tuple[DiffusersEngine, Neurons]:
    """The engine and the neurons in the file; an error where they are of another kind of model."""
    found, engine = load_neurons(file), load_engine(settings.model)
    if found.layers.layer_count != len(engine.layers):
        raise ValueError(
            f"neurons: of a model with {found.layers.layer_count} layers; this one has {len(engine.layers)}"
        )
    width = engine.key_value_weights(0)[0].shape[1]
    if found.width != width:
        raise ValueError(f"neurons: of a model that reads embeddings {found.width} wide; this one reads {width}")
    return engine, found


def _versions() -> dict[str, str]:
    return {"diffusers": diffusers.__version__, "torch": torch.__version__}


def _rows(embeddings: Sequence[TextEmbedding], seed: int, seeds: int) -> list[Row]:
    return [Row(embedding, seed + number) for embedding in embeddings for number in range(seeds)]
