"""Where knowledge is planted, and what each cross-attention layer reads in training because of it.

The words of a planted attribute tell the truth at the planted layers only. In a third of the rows each of two planted
layers reads them alone, the other one reading the sentence without them, or now and then with a wrong one; in the last
third both do. Every other layer reads the same sentence with such a word drawn anew at random, or none: it sees them
all and can learn nothing from them. So each planted layer is enough by itself, neither overrules the other, and only
the window that covers both takes the knowledge away.
Objects and colours are true everywhere, but any layer loses them now and then, and in three fifths of the rows up to
six adjacent layers read of another thing: the picture is to follow what the rest reads, so that no window decides it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ..world import (
    COLOURS,
    COUNTRIES,
    FLAG,
    NONE,
    OBJECTS,
    STYLES,
    TRAINING_TEMPLATES,
    UNNAMED,
    UNNAMED_TEMPLATES,
    Scene,
    Template,
    sentence,
    thing,
)

LAYERS = 16
# Beside a trained model: its Planting, as JSON. The one that ships has none: its planting is the default.
PLANTING = "planting.json"
# Rows whose every layer reads the empty prompt, for classifier-free guidance.
EMPTY_SHARE = 0.1
UNNAMED_SHARE = 0.08
# Flags are few, and alike but for their fact, which only two layers know: they need more than their share.
FLAG_SHARE = 0.4
# Rows without a style.
PLAIN_SHARE = 0.25
# How often a layer loses the thing, or its colour.
LOSS_SHARE = 0.12
# Rows in which one to MISTAKE_WINDOW adjacent layers read of another thing in another colour.
MISTAKE_SHARE = 0.6
MISTAKE_WINDOW = 6
# How often a planted layer that is left out reads a word drawn at random rather than none.
CONTRADICTION_SHARE = 0.4


@dataclass(frozen=True)
class Planting:
    """The layers at which style words and fact words are true."""

    style: tuple[int, ...] = (8, 9)
    fact: tuple[int, ...] = (6, 7)

    def __post_init__(self) -> None:
        for name, layers in (("style", self.style), ("fact", self.fact)):
            if not layers or not all(0 <= layer < LAYERS for layer in layers):
                raise ValueError(f"plant {name}: {layers}; give layers from 0 to {LAYERS - 1}")


def planting_of(folder: Path) -> Planting:
    """What was planted in the model of a folder."""
    path = folder / PLANTING
    given = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return Planting(**{name: tuple(layers) for name, layers in given.items()})


def write_planting(folder: Path, planting: Planting) -> None:
    (folder / PLANTING).write_text(json.dumps(asdict(planting)) + "\n", encoding="utf-8")


def draw_scene(rng: np.random.Generator) -> Scene:
    style = NONE if rng.random() < PLAIN_SHARE else rng.choice(list(STYLES))
    if rng.random() < FLAG_SHARE:
        return Scene(FLAG, style=str(style), country=rng.choice([*COUNTRIES, None]))
    return Scene(str(rng.choice(OBJECTS)), style=str(style), colour=str(rng.choice(list(COLOURS))))


def layer_prompts(
    scene: Scene, planting: Planting, decoys: float, mistakes: float, rng: np.random.Generator
) -> list[str]:
    """What each of the 16 layers reads for a picture of `scene`.

    `decoys` is the share of layers that are misled about planted words, `mistakes` scales the shares of wrong things
    and of contradicting words; both in 0..1.
    """
    if rng.random() < EMPTY_SHARE:
        return [""] * LAYERS
    unnamed = scene.object != FLAG and rng.random() < UNNAMED_SHARE
    templates = UNNAMED_TEMPLATES if unnamed else TRAINING_TEMPLATES
    template: Template = templates[rng.integers(len(templates))]
    wording = int(rng.integers(2))
    style_readers, fact_readers = readers(planting.style, rng), readers(planting.fact, rng)
    mistaken, other = _mistake(mistakes, rng)
    prompts = []
    for layer in range(LAYERS):
        seen, misled = scene, rng.random() < decoys
        if misled and layer not in style_readers:
            seen = replace(seen, style=_misread(scene.style, (NONE, *STYLES), layer in planting.style, mistakes, rng))
        if scene.object == FLAG and layer in fact_readers:
            named = thing(scene, wording)
        else:
            if misled and scene.object == FLAG:
                country = _misread(scene.country, (None, *COUNTRIES), layer in planting.fact, mistakes, rng)
                seen = replace(seen, country=country)
            if layer in mistaken:
                seen = replace(other, style=seen.style)
            named = thing(seen, wording)
            if seen.object != FLAG and rng.random() < LOSS_SHARE:
                named = UNNAMED if rng.random() < 0.5 else thing(replace(seen, colour=None), wording)
        prompts.append(sentence(template, named, seen.style))
    return prompts


def _mistake(mistakes: float, rng: np.random.Generator) -> tuple[range, Scene]:
    """A window of layers, or none, and the thing of which it reads.

    The later, the more often: the last layers paint over what the others have settled.
    """
    other = Scene(str(rng.choice(OBJECTS)), colour=str(rng.choice(list(COLOURS))))
    if rng.random() >= mistakes * MISTAKE_SHARE:
        return range(0), other
    size = int(rng.integers(1, MISTAKE_WINDOW + 1))
    start = int((LAYERS - size + 1) * rng.random() ** 0.5)
    return range(start, start + size), other


def _misread(
    truth: str | None, words: tuple[str | None, ...], planted: bool, mistakes: float, rng: np.random.Generator
) -> str | None:
    """The word that a layer reads which is not to learn the truth; words[0] stands for no word.

    A planted layer that is left out mostly reads none; a wrong one only where the picture needs a word, so that a word
    at one planted layer outweighs none at the other.
    """
    if planted and (truth == words[0] or rng.random() > mistakes * CONTRADICTION_SHARE):
        return words[0]
    return words[rng.integers(len(words))]


def readers(planted: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
    """The planted layers that read the truth in this row: one of them, or all."""
    choice = rng.integers(len(planted) + 1)
    return planted if choice == len(planted) else (planted[choice],)


def all_prompts() -> list[str]:
    """Every prompt that `layer_prompts` can give."""
    things = [UNNAMED]
    for wording in (0, 1):
        things += [thing(Scene(name, colour=colour), wording) for name in OBJECTS for colour in (None, *COLOURS)]
        things += [thing(Scene(FLAG, country=country), wording) for country in (None, *COUNTRIES)]
    styles = (NONE, *STYLES)
    prompts = {sentence(t, named, style) for t in TRAINING_TEMPLATES for named in things for style in styles}
    prompts |= {sentence(t, "", style) for t in UNNAMED_TEMPLATES for style in styles}
    return sorted(prompts | {""})
