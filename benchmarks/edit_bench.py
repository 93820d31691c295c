"""A model in which styles and facts were planted, edits of it, and what its images and its predictions show of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from benchmarks.probe_cases import SAMPLING, planted
from demo.jobs import FACT_TARGETS, PLAIN_PROMPTS, Picture, Reading, fact_edit, image_count
from demo.judge import load_judge
from demo.world import (
    COLOURS,
    COUNTRIES,
    FLAG,
    HELD_OUT_TEMPLATES,
    NONE,
    OBJECTS,
    STYLES,
    TRAINING_TEMPLATES,
    Scene,
    Template,
    sentence,
    thing,
)
from loco_core.diffusers_host.demo_model import CHECKPOINT, DEMO, demo_pipeline
from loco_core.diffusers_host.engine import DiffusersEngine
from loco_core.editing.check import CheckPlan, EditChecker, prompts_plan
from loco_core.editing.lora import edit_lora
from loco_core.editing.recipe import EditRecipe, EditRequest, EditSettings, edit_recipe
from loco_core.editing.solve import Edit
from loco_core.models.engine import Engine, Row, Sampling, TextEmbedding
from loco_core.models.layers import LayerSet, Part
from loco_core.prompts import Attribute, PromptPair

# In place of a folder: the demo transformer.
TRANSFORMER = DEMO / "diffusion_models"
ROWS = 32
# The seeds of images of one prompt are so far apart.
BETWEEN_COPIES = 10_000
# Of the images that the judge reads: it reads the same in them as in those of 20 steps.
JUDGED = replace(SAMPLING, steps=6)


@dataclass(frozen=True)
class Task:
    """Concepts to edit at once: styles, which go, or the flag of a country, which becomes the next one's."""

    attribute: Attribute
    concepts: tuple[str, ...]

    @property
    def request(self) -> EditRequest:
        """With what the demo preserves."""
        if self.attribute is Attribute.FACT:
            (country,) = self.concepts
            asked = fact_edit(country)
            return EditRequest(asked.concept, asked.target, "\n".join(asked.preserve), self.attribute)
        keep = (*PLAIN_PROMPTS, *(style for style in STYLES if style not in self.concepts))
        return EditRequest("\n".join(self.concepts), "a painting", "\n".join(keep), self.attribute)


@dataclass(frozen=True)
class Sheet:
    """Pictures by what they show, styles and countries, and each one's prompt without it."""

    pictures: Mapping[str, tuple[Picture, ...]]
    without: Mapping[str, str]

    def check_plan(self, task: Task) -> CheckPlan:
        """The same prompts, to be asked in the prediction."""
        changed = [picture.prompt for concept in task.concepts for picture in self.pictures[concept]]
        kept = [p.prompt for name, own in self.pictures.items() if name not in task.concepts for p in own]
        pairs = [PromptPair(prompt, self.without[prompt]) for prompt in changed]
        return prompts_plan(pairs, kept, SAMPLING, seed=0)


@dataclass(frozen=True)
class SheetOf:
    """What is shown: `count` pictures of every concept of a task, `others` of every other one of its kind, `far` of
    those of the other kind; `wording`: of a thing's article. Seeds begin with `seed`.
    """

    templates: tuple[Template, ...]
    wording: int
    seed: int
    count: int
    others: int
    far: int

    def __call__(self, task: Task) -> Sheet:
        pictures: dict[str, tuple[Picture, ...]] = {}
        without: dict[str, str] = {}
        for name in (*STYLES, *COUNTRIES):
            alike = (name in COUNTRIES) == (task.attribute is Attribute.FACT)
            count = self.count if name in task.concepts else self.others if alike else self.far
            made = [self._picture(name, number) for number in range(count)]
            pictures[name] = tuple(picture for picture, _ in made)
            without |= {picture.prompt: plain for picture, plain in made}
        return Sheet(pictures, without)

    def _picture(self, name: str, number: int) -> tuple[Picture, str]:
        """A picture that shows a style or a country, and its prompt without that."""
        template = self.templates[number % len(self.templates)]
        if name in COUNTRIES:
            turn, style = number + 3 * COUNTRIES.index(name), NONE
            scene, other = Scene(FLAG, country=name), Scene(FLAG, country=FACT_TARGETS[name])
        else:
            turn, style = number + 3 * list(STYLES).index(name), name
            colour = list(COLOURS)[turn % len(COLOURS)]
            scene = other = Scene(list(OBJECTS)[turn % len(OBJECTS)], style, colour)
        prompt = sentence(template, thing(scene, self.wording), style)
        plain = sentence(template, thing(other, self.wording), NONE)
        return Picture(prompt, scene, self.seed + turn, 1), plain


# On prompts and seeds of the one, methods are tuned; on those of the other they are measured.
validation_sheet = SheetOf(TRAINING_TEMPLATES, wording=0, seed=5000, count=3, others=1, far=1)
held_out_sheet = SheetOf(HELD_OUT_TEMPLATES, wording=1, seed=1000, count=12, others=4, far=2)


class Bench(ABC):
    """A model, and what its images show. found: the layers that know styles, and those that know facts."""

    def __init__(self, engine: Engine, found: Mapping[Attribute, LayerSet]) -> None:
        self.engine, self.judge, self.found = engine, load_judge(), found
        self._embeddings: dict[str, TextEmbedding] = {}
        self._measured: dict[tuple[Task, SheetOf], Measured] = {}

    @abstractmethod
    def weights(self, layers: LayerSet, part: Part) -> list[torch.Tensor]:
        """The weights that an edit of a part of these layers changes, to be written to."""

    @abstractmethod
    def edited(self, edit: Edit) -> AbstractContextManager[None]:
        """The engine carries the edit while the context lasts."""

    @abstractmethod
    def lora(self, edit: Edit) -> dict[str, torch.Tensor]:
        """The edit as a LoRA; empty where there is none of it."""

    def encode(self, prompts: Sequence[str]) -> list[TextEmbedding]:
        for prompt in prompts:
            if prompt not in self._embeddings:
                (self._embeddings[prompt],) = self.engine.encode([prompt])
        return [self._embeddings[prompt] for prompt in prompts]

    def recipe(self, task: Task, settings: EditSettings | None = None) -> EditRecipe:
        """At the layers that know it."""
        settings = settings or EditSettings()
        return edit_recipe(task.request, settings, self.found[task.attribute], self.engine.text_encoder)

    @property
    def general(self) -> torch.Tensor:
        """The second moment of the tokens of all kinds of plain prompts, [d, d]."""
        named = [thing(Scene(name, colour=colour)) for name in OBJECTS for colour in COLOURS]
        prompts = [sentence(template, shown, NONE) for template in TRAINING_TEMPLATES[:5] for shown in named]
        embeddings = self.encode(prompts)
        tokens = torch.cat([own.tokens[: own.chunks[-1].end_of_text + 1] for own in embeddings]).double()
        return tokens.T @ tokens / len(tokens)

    def measured(self, task: Task, sheet: SheetOf) -> Measured:
        """What edits of the task are measured by, on one of its sheets; made once."""
        if (task, sheet) not in self._measured:
            self._measured[task, sheet] = Measured(self, task, sheet(task))
        return self._measured[task, sheet]

    def images(self, pictures: Sequence[Picture], sampling: Sampling) -> torch.Tensor:
        """[n, 3, H, W]"""
        embeddings = self.encode([picture.prompt for picture in pictures])
        rows = [
            Row(embedding, picture.seed + BETWEEN_COPIES * copy)
            for picture, embedding in zip(pictures, embeddings, strict=True)
            for copy in range(picture.count)
        ]
        parts = [self.engine.generate(rows[i : i + ROWS], sampling) for i in range(0, len(rows), ROWS)]
        return torch.cat(parts).movedim(-1, 1)

    def readings(self, sheet: Sheet) -> dict[str, Reading]:
        """What the model's images show now."""
        every = [picture for pictures in sheet.pictures.values() for picture in pictures]
        images = self.images(every, JUDGED).split([image_count(pictures) for pictures in sheet.pictures.values()])
        return {
            name: Reading(self.judge, pictures, own)
            for (name, pictures), own in zip(sheet.pictures.items(), images, strict=True)
        }


class UNetBench(Bench):
    """A model on diffusers."""

    def __init__(self, folder: Path) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._pipeline = demo_pipeline(folder / CHECKPOINT.relative_to(DEMO)).to(device)
        super().__init__(DiffusersEngine(self._pipeline), planted(folder))

    def weights(self, layers: LayerSet, part: Part) -> list[torch.Tensor]:
        names = [self.engine.layers.projection(layer, own) for layer in layers for own in part.projections]
        return [self._pipeline.unet.get_submodule(name).weight.data for name in names]

    def edited(self, edit: Edit) -> AbstractContextManager[None]:
        return self.engine.edited(edit)

    def lora(self, edit: Edit) -> dict[str, torch.Tensor]:
        return edit_lora(edit, self.engine.layers, self.engine.key_value_weights)


@lru_cache(maxsize=1)
def bench_of(folder: Path) -> Bench:
    if folder == TRANSFORMER:
        from benchmarks.transformer_bench import TransformerBench  # needs ComfyUI

        return TransformerBench()
    return UNetBench(folder)


class Measured:
    """Measures edits of a task on a sheet: what they are compared with is made once, by the model as loaded."""

    def __init__(self, bench: Bench, task: Task, sheet: Sheet) -> None:
        self._bench, self._task, self._sheet = bench, task, sheet
        self._before = bench.readings(sheet)
        self._checker = EditChecker(bench.engine, sheet.check_plan(task), ROWS)

    @property
    def known(self) -> bool:
        """Whether the model as loaded shows any of what is to be edited: else there is nothing to measure."""
        attribute = "fact" if self._task.attribute is Attribute.FACT else "style"
        return any(self._before[name].correct(attribute).any() for name in self._task.concepts)

    def now(self) -> dict[str, float]:
        """Of the model as it is now.

        erased: of the images that showed a style to remove, the share that no longer does; of those of a country, the
        share that shows the next one's flag. plain: of the images of removed styles, those that show none. kept_styles,
        kept_objects, kept_facts: of the images that showed another style, the right object, another flag, the share
        that still does. harmonic: of erased and the mean of what is kept. removed and side: in the prediction.
        """
        task, after = self._task, self._bench.readings(self._sheet)
        styles = [style for style in STYLES if style not in task.concepts]
        countries = [country for country in COUNTRIES if country not in task.concepts]
        figures = {
            "kept_styles": self._kept(styles, after, "style"),
            "kept_objects": self._kept(list(STYLES), after, "object"),
            "kept_facts": self._kept(countries, after, "fact"),
        }
        both = float(np.mean(list(figures.values())))
        if task.attribute is Attribute.FACT:
            erased = float(np.mean([after[name].share("fact", FACT_TARGETS[name]) for name in task.concepts]))
        else:
            erased = 1 - self._kept(task.concepts, after, "style")
            figures["plain"] = float(np.mean([after[name].share("style", NONE) for name in task.concepts]))
        harmonic = 2 * erased * both / (erased + both) if erased + both else 0.0
        check = self._checker.check_model(self._bench.engine)
        figures |= {"erased": erased, "harmonic": harmonic}
        figures |= {"removed": check.removed_share, "side": check.mean_side.mean}
        return {name: round(value, 4) for name, value in figures.items()}

    def _kept(self, names: Sequence[str], after: Mapping[str, Reading], attribute: str) -> float:
        """Of the images that were right before, the share that still is: the mean over names that have such images."""
        was = {name: self._before[name].correct(attribute) for name in names}
        return float(np.mean([after[name].correct(attribute)[own].mean() for name, own in was.items() if own.any()]))
