"""Options that the commands share: which model makes the images, and how; what takes whose place."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import diffusers
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import images
from ..choices import Choice
from ..diffusers_host.demo_model import SCORER as DEMO_SCORER
from ..diffusers_host.demo_model import demo_pipeline
from ..diffusers_host.engine import DiffusersEngine
from ..diffusers_host.engines import engine_for
from ..diffusers_host.pipelines import (
    SAMPLERS,
    SPACINGS,
    VAE_FACTOR,
    best_device,
    load_pipeline,
    own_size,
    pipeline_class,
)
from ..drawing import before_after_sheet
from ..files import write_picture
from ..localization.report import layers_of_search
from ..models.engine import Sampling
from ..models.layers import LayerSet, ModelLayers
from ..noise_levels import OnRows
from ..prompt_lines import with_files
from ..prompts import Attribute
from ..scoring.open_clip_scorer import ClipScorer, load_scorer

Command = Callable[..., None]
Decorator = Callable[[Command], Command]

# The name of the model that ships with this project.
DEMO = "demo"
# Width and height in pixels of its images.
DEMO_SIZE = 128
# Largest side, in pixels, of a picture on the before/after sheet.
SHEET_PICTURE = 256


class OneOf(click.Choice[str]):
    """An option whose value is a Choice."""

    def __init__(self, kind: type[Choice], words: list[str] | None = None) -> None:
        super().__init__(words or kind.words())
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Choice:
        return self._kind(super().convert(str(value), param, ctx))


@dataclass(frozen=True)
class Settings:
    """Which model makes the images, and how; `rows` of them at once. is_paper: whether a person asked for the paper's
    settings.
    """

    model: str
    config: Path | None
    is_paper: bool
    sampling: Sampling
    seed: int
    rows: int

    def seeds(self, count: int) -> tuple[int, ...]:
        return tuple(range(self.seed, self.seed + count))


@dataclass(frozen=True)
class SamplingPreset:
    """Sampling settings that go together."""

    steps: int
    guidance: float
    sampler: str
    spacing: str


# The preset of the paper's experiments, and those of transformers.
PAPER, SD3, FLUX = "paper", "sd3", "flux"
PRESETS = {
    DEMO: SamplingPreset(20, 2.0, "euler", "linspace"),
    PAPER: SamplingPreset(50, 7.5, "pndm", "leading"),
    SD3: SamplingPreset(28, 7.0, "euler", "linspace"),
    FLUX: SamplingPreset(28, 1.0, "euler", "linspace"),
}
# By the pipeline of a folder, where it is not the paper's.
OWN_PRESETS = {
    diffusers.StableDiffusion3Pipeline.__name__: SD3,
    diffusers.FluxPipeline.__name__: FLUX,
}


@dataclass(frozen=True)
class SamplingOptions:
    """What a person chose of the sampling; what is None is the preset's, a size the model's own."""

    model: str
    config: Path | None
    preset: str | None
    steps: int | None
    guidance: float | None
    size: int | None
    sampler: str | None
    spacing: str | None
    negative: str
    seed: int
    rows: int

    @property
    def settings(self) -> Settings:
        folder = self.config or Path(self.model)
        own = DEMO if self.model == DEMO else OWN_PRESETS.get(pipeline_class(folder), PAPER)
        base = PRESETS[self.preset or own]
        pixels = self.size or (DEMO_SIZE if self.model == DEMO else own_size(folder))
        sampling = Sampling(
            steps=self.steps or base.steps,
            guidance=self.guidance or base.guidance,
            sampler=self.sampler or base.sampler,
            scheduler=self.spacing or base.spacing,
            width=pixels,
            height=pixels,
            negative_prompt=self.negative,
        )
        return Settings(self.model, self.config, self.preset == PAPER, sampling, self.seed, self.rows)


def whole_latents(context: click.Context, option: click.Parameter, pixels: int | None) -> int | None:
    """Refuses a size that is not a whole number of latents."""
    if pixels and pixels % VAE_FACTOR:
        raise click.BadParameter(f"{pixels} is not a multiple of {VAE_FACTOR}", context, option)
    return pixels


SAMPLING_OPTIONS: list[Decorator] = [
    click.option(
        "--model",
        default=DEMO,
        show_default=True,
        metavar="MODEL",
        help="'demo', or a local diffusers folder of Stable Diffusion 1.x, 2.x, SDXL, SD 3 or Flux, or a .safetensors "
        "checkpoint.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="With a checkpoint: a diffusers folder of any model of the same family, for configuration and tokenizers.",
    ),
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help="Sampling settings: 'paper' is 50 steps, guidance "
        "7.5, PNDM; 'sd3' and 'flux' are 28 steps of Euler, guidance 7 and 1. Without it: 'demo' for the demo model, "
        "'sd3' and 'flux' for such folders, 'paper' for others. The options below change them one by one.",
    ),
    click.option("--steps", type=click.IntRange(1), help="Sampler steps."),
    click.option("--guidance", type=click.FloatRange(1), help="Classifier-free guidance (CFG)."),
    click.option(
        "--size",
        type=click.IntRange(64),
        callback=whole_latents,
        help="Width and height in pixels. Without it those that the model was made for: 512 for Stable Diffusion 1.x, "
        "768 or 512 for 2.x, 1024 for the others.",
    ),
    click.option("--sampler", type=click.Choice(list(SAMPLERS)), help="How the noise is taken away step by step."),
    click.option("--spacing", type=click.Choice(SPACINGS), help="How the steps are spread over the noise levels."),
    click.option("--negative", default="", help="The negative prompt."),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="The first seed."),
    click.option(
        "--rows",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Images made at once: as many as your memory takes is fastest.",
    ),
]


def settings(command: Command) -> Command:
    """Adds the options that say which model makes the images, and how; the command gets them as one Settings."""

    @functools.wraps(command)
    def run(**given: Any) -> None:
        own = {name: given.pop(name) for name in SamplingOptions.__dataclass_fields__}
        command(settings=SamplingOptions(**own).settings, **given)

    return with_options(run, SAMPLING_OPTIONS)


def with_options(command: Command, options: list[Decorator]) -> Command:
    """The command with these options, in their order."""
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Replacing:
    """What is to be found or removed, and what takes its place: one name or prompt per line."""

    concepts: str
    targets: str
    attribute: Attribute


def replacing(command: Command) -> Command:
    """Adds the options that say what takes whose place; the command gets them as one Replacing."""

    @functools.wraps(command)
    def run(concepts: tuple[str, ...], targets: tuple[str, ...], attribute: Attribute, **given: Any) -> None:
        told, instead = (with_files("\n".join(own), text_of) for own in (concepts, targets))
        command(replacing=Replacing(told, instead, attribute), **given)

    return with_options(
        run,
        [
            click.option(
                "--concept",
                "concepts",
                multiple=True,
                required=True,
                help="A name, which the paper's templates expand, or a whole prompt; 'name: ...' and 'prompt: ...' say "
                "which, here and in other options. Repeat it for more, or give 'names: A, B' or 'file: list.txt'.",
            ),
            click.option(
                "--target",
                "targets",
                multiple=True,
                required=True,
                help="What takes the concept's place: one for each concept, or one for all.",
            ),
            click.option(
                "--attribute",
                type=OneOf(Attribute),
                default="style",
                show_default=True,
                help="What kind of concept it is; chooses the templates.",
            ),
        ],
    )


def text_of(file: str) -> str:
    """Of a file that an option names."""
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"file: {file!r} cannot be read as text in UTF-8 ({error})") from error


def layers_option(help_text: str, required: bool = True) -> Decorator:
    how = "8-9, blocks like d2.2-9, m0, u1, or the result.json of a trace"
    return click.option("--layers", required=required, help=f"{help_text}: {how}.")


def chosen_layers(layers: ModelLayers, text: str) -> LayerSet:
    """Those that a person wrote down, or that a search found."""
    if not text.lower().endswith(".json"):
        chosen = layers.parse(text)
        if not chosen:
            raise ValueError("layers: empty; give at least one, like 8-9")
        return chosen
    found, _ = layers_of_search(text_of(text), text)
    layers.chosen(found)
    return found


def seeds_option(default: int) -> Decorator:
    return click.option(
        "--seeds", type=click.IntRange(1), default=default, show_default=True, help="Images of each prompt."
    )


def out_option(default: str, resumes: bool = False) -> Decorator:
    """Where to write. `resumes`: the command goes on with what it finds there."""
    kind = click.Path(path_type=Path)
    if resumes:
        return click.option("--out", type=kind, default=Path(default), show_default=True, help="A folder.")
    help_text = "A folder; where it holds something, a number is added to its name."
    return click.option("--out", type=kind, default=Path(default), show_default=True, help=help_text, callback=unused)


def unused(context: click.Context, option: click.Parameter, folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3 that holds nothing: what was made is not written over."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(one for one in itertools.chain([folder], numbered) if not one.is_dir() or not any(one.iterdir()))


def scorer_option() -> Decorator:
    return click.option(
        "--scorer",
        type=click.Path(path_type=Path),
        help="A .safetensors file of open_clip weights. The demo model brings its own.",
    )


def architecture_option() -> Decorator:
    return click.option(
        "--architecture", help="The scorer's open_clip architecture, where no configuration lies beside it."
    )


def load_engine(settings: Settings) -> DiffusersEngine:
    if settings.model == DEMO:
        return engine_for(demo_pipeline())
    return engine_for(load_pipeline(Path(settings.model), settings.config))


def load_editable_engine(settings: Settings) -> DiffusersEngine:
    """The same; an error where the model has no W_K and W_V that gets the prompt's embedding."""
    engine = load_engine(settings)
    engine.layers.check_projections()
    return engine


def load_clip(model: str, scorer: Path | None) -> ClipScorer:
    """The scorer in the file; the demo model brings its own."""
    clip = load_clip_if_given(model, scorer, None)
    if clip is None:
        raise ValueError("scorer: give --scorer, a .safetensors file of open_clip weights")
    return clip


def load_clip_if_given(model: str, scorer: Path | None, architecture: str | None) -> ClipScorer | None:
    """The same, or None where there is no file."""
    file = scorer or (DEMO_SCORER if model == DEMO else None)
    if file is None:
        return None
    clip = load_scorer(file, architecture)
    clip.model.to(best_device())
    return clip


def bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True)


@contextmanager
def counted(total: int) -> Iterator[images.Progress]:
    """A bar over so many images, which moves as they are made."""
    with bar() as progress:
        task = progress.add_task("images", total=total)

        def on_batch(done: int, total: int, label: str, thumbnail: np.ndarray) -> None:
            progress.update(task, completed=done, description=label)

        yield images.Progress(on_batch)


@contextmanager
def counted_rows(total: int, doing: str) -> Iterator[OnRows]:
    """A bar over so many rows of the denoiser, at most."""
    with bar() as progress:
        task = progress.add_task(doing, total=total)
        yield lambda done: progress.update(task, completed=min(done, total))


def image_maker(settings: Settings, seeds: int, total: int, progress: images.Progress) -> images.ImageMaker:
    return images.ImageMaker(
        seeds=settings.seeds(seeds),
        sampling=settings.sampling,
        rows_per_batch=settings.rows,
        total=total,
        progress=progress,
    )


def write_sheet(path: Path, title: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Images of 8 bits, made with the same prompts and seeds, one above the other."""
    shown = [images.thumbnails(made.float() / 255, SHEET_PICTURE) for made in (before, after)]
    write_picture(path, before_after_sheet(title, shown[0], shown[1]))


def versions() -> dict[str, str]:
    """The programs that made a file."""
    return {"diffusers": diffusers.__version__, "torch": torch.__version__}
