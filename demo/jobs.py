"""The demo: searches, edits, ablated neurons, and pictures of held-out prompts, whichever program runs the model."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from .judge import Judge, truth
from .world import COLOURS, COUNTRIES, FLAG, HELD_OUT_TEMPLATES, NONE, OBJECTS, STYLES, Scene, sentence, thing

STEPS, GUIDANCE, SIZE = 20, 2.0, 128
SEARCH_SEEDS = 2
# What a search costs, about, in images: a probe is worth 7, and 6 sets of layers have 3 each. Only the estimate of the
# time left rests on it.
SEARCH_IMAGES = 25
# Neurons, of the 256 values of the style's two layers.
ABLATED = 96
# Each country's flag is edited to be the next one's.
FACT_TARGETS = dict(zip(COUNTRIES, [*COUNTRIES[1:], COUNTRIES[0]], strict=True))

# Every object once, in a colour, without a style.
PLAIN_PROMPTS = tuple(
    f"a picture of {thing(Scene(name, colour=colour))}"
    for name, colour in zip(OBJECTS, itertools.cycle(COLOURS), strict=False)
)


@dataclass(frozen=True)
class Search:
    """Prompts with the concept, and the same prompts with the target in its place."""

    attribute: str
    concepts: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Edit:
    """An edit at the layers that the attribute's search found. `preserve`: what it names to be kept."""

    attribute: str
    concept: str
    target: str
    preserve: tuple[str, ...]


@dataclass(frozen=True)
class NeuronAblation:
    """Neurons that tell a style, ablated at the layers that the attribute's search found.

    `without`: plain prompts, and names of other styles.
    """

    attribute: str
    concept: str
    without: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class LoRA:
    """A LoRA file, applied by the loader that every user of the host has, not by this pack."""

    file: Path


Change = Edit | NeuronAblation | LoRA


@dataclass(frozen=True)
class Picture:
    """Images to be made: `count` of one prompt, from one seed, and the scene that the prompt describes."""

    prompt: str
    scene: Scene
    seed: int
    count: int


class Host(Protocol):
    """The program that runs the model."""

    name: str

    def search(self, search: Search) -> dict:
        """{"window", "verdict" (its kind), "text"}; keeps the search's files in the output folder."""
        ...

    def make(self, pictures: Sequence[Picture], change: Change | None) -> torch.Tensor:
        """The pictures, by the model as loaded or changed: [images, 3, 128, 128] in 0..1."""
        ...

    def save_lora(self, edit: Edit) -> Path:
        """The edit as a LoRA file in the output folder."""
        ...


def searches() -> dict[str, Search]:
    """By attribute. The object search is the negative control: objects were planted nowhere."""
    things = [thing(Scene(name, colour=colour)) for name, colour in zip(OBJECTS[:4], COLOURS, strict=False)]
    plain = tuple(f"a picture of {named}" for named in ("a red star", "a blue house", "a green fish", "a yellow boat"))
    return {
        "object": Search(
            "object",
            tuple(f"a picture of {named}" for named in things),
            tuple(f"a picture of {named}" for named in [*things[1:], things[0]]),
        ),
        "fact": Search(
            "fact",
            tuple(f"a picture of the flag of {country}" for country in COUNTRIES),
            tuple(f"a picture of the flag of {FACT_TARGETS[country]}" for country in COUNTRIES),
        ),
        "style": Search("style", tuple(f"{prompt} in the style of pointillism" for prompt in plain), plain),
    }


def style_edit(style: str) -> Edit:
    """Removes a style; keeps the other styles by their names, and the kind of picture that the model makes."""
    return Edit("style", style, "a painting", (*PLAIN_PROMPTS, *_others(style)))


def style_ablation(style: str) -> NeuronAblation:
    """Ablates the neurons that tell a style from its absence and from the other styles."""
    return NeuronAblation("style", style, (*PLAIN_PROMPTS, *_others(style)), ABLATED)


def _others(style: str) -> list[str]:
    return [other for other in STYLES if other != style]


def fact_edit(country: str) -> Edit:
    """Gives a country the next one's flag; keeps all others."""
    others = tuple(f"the flag of {other}" for other in COUNTRIES if other != country)
    return Edit("fact", f"the flag of {country}", f"the flag of {FACT_TARGETS[country]}", others)


def styled_pictures(style: str, rounds: int, count: int) -> list[Picture]:
    """Every held-out template `rounds` times with objects and colours in turn; in a third the style is not last."""
    pictures = []
    names, colours = list(OBJECTS), list(COLOURS)
    for number in range(rounds * len(HELD_OUT_TEMPLATES)):
        turn = number + 3 * list(STYLES).index(style)
        scene = Scene(names[turn % len(names)], style, colours[turn % len(colours)])
        template = HELD_OUT_TEMPLATES[number % len(HELD_OUT_TEMPLATES)]
        pictures.append(Picture(sentence(template, thing(scene), style), scene, 1000 + number, count))
    return pictures


def flag_pictures(country: str) -> list[Picture]:
    """Every held-out template, without a style, with the country's flag."""
    scene = Scene(FLAG, country=country)
    return [
        Picture(sentence(template, thing(scene), NONE), scene, 2000 + number, count=3)
        for number, template in enumerate(HELD_OUT_TEMPLATES)
    ]


class Reading:
    """What the judge reads in images of the given pictures."""

    def __init__(self, judge: Judge, pictures: Sequence[Picture], images: torch.Tensor) -> None:
        self.images = images
        self._words = judge.read(images)
        self._truths = [truth(picture.scene) for picture in pictures for _ in range(picture.count)]

    def correct(self, attribute: str) -> np.ndarray:
        """For each image, whether the judge reads in it what the prompt says."""
        pairs = zip(self._words[attribute], self._truths, strict=True)
        return np.array([word == true[attribute] for word, true in pairs])

    def right(self, attribute: str) -> float:
        """The share of images in which the judge reads what the prompt says."""
        return mean(self.correct(attribute))

    def count(self, attribute: str, word: str) -> int:
        """How many images the judge reads `word` in."""
        return self._words[attribute].count(word)

    def share(self, attribute: str, word: str) -> float:
        """The share of images in which the judge reads `word`."""
        return mean(seen == word for seen in self._words[attribute])


def image_count(pictures: Iterable[Picture]) -> int:
    return sum(picture.count for picture in pictures)


def group_count(*groups: Mapping[str, Iterable[Picture]]) -> int:
    """How many images the groups hold."""
    return sum(image_count(pictures) for group in groups for pictures in group.values())


def mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


def readings(host: Host, judge: Judge, change: Change | None, groups: dict[str, list[Picture]]) -> dict[str, Reading]:
    """What the judge reads in each group's pictures."""
    images = host.make([picture for group in groups.values() for picture in group], change)
    parts = images.split([image_count(group) for group in groups.values()])
    return {name: Reading(judge, groups[name], part) for name, part in zip(groups, parts, strict=True)}
