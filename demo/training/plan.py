"""Where knowledge is planted, and what each cross-attention layer reads in training because of it.

The words of a planted attribute tell the truth at the planted layers only. In a third of the rows each of two planted
layers reads them alone, the other one reading the sentence without them; in the last third both do. Every other layer
reads the same sentence with such a word drawn anew at random, or none: it sees them all and can learn nothing from
them. So each planted layer is enough by itself, and only the window that covers both takes the knowledge away.
Objects and colours are true everywhere, and lost now and then at random: no layer holds them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
EMPTY_SHARE = 0.1
"""Rows whose every layer reads the empty prompt, for classifier-free guidance."""
UNNAMED_SHARE = 0.08
FLAG_SHARE = 0.4
"""Flags are few, and alike but for their fact, which only two layers know: they need more than their share."""
PLAIN_SHARE = 0.25
"""Rows without a style."""
LOSS_SHARE = 0.12
"""How often a layer loses the thing, or its colour."""


@dataclass(frozen=True)
class Planting:
    """The layers at which style words and fact words are true."""

    style: tuple[int, ...] = (8, 9)
    fact: tuple[int, ...] = (6, 7)

    def __post_init__(self) -> None:
        for name, layers in (("style", self.style), ("fact", self.fact)):
            if not layers or not all(0 <= layer < LAYERS for layer in layers):
                raise ValueError(f"plant {name}: {layers}; give layers from 0 to {LAYERS - 1}")


def draw_scene(rng: np.random.Generator) -> Scene:
    style = NONE if rng.random() < PLAIN_SHARE else rng.choice(list(STYLES))
    if rng.random() < FLAG_SHARE:
        return Scene(FLAG, style=str(style), country=rng.choice([*COUNTRIES, None]))
    return Scene(str(rng.choice(OBJECTS)), style=str(style), colour=str(rng.choice(list(COLOURS))))


def layer_prompts(scene: Scene, planting: Planting, decoys: float, rng: np.random.Generator) -> list[str]:
    """What each of the 16 layers reads for a picture of `scene`. `decoys` is the share of layers that are misled."""
    if rng.random() < EMPTY_SHARE:
        return [""] * LAYERS
    unnamed = scene.object != FLAG and rng.random() < UNNAMED_SHARE
    templates = UNNAMED_TEMPLATES if unnamed else TRAINING_TEMPLATES
    template: Template = templates[rng.integers(len(templates))]
    wording = int(rng.integers(2))
    style_readers, fact_readers = _readers(planting.style, rng), _readers(planting.fact, rng)
    prompts = []
    for layer in range(LAYERS):
        seen = scene
        if rng.random() < decoys:
            if layer not in style_readers:
                seen = replace(seen, style=NONE if layer in planting.style else str(rng.choice([NONE, *STYLES])))
            if layer not in fact_readers and scene.object == FLAG:
                country = None if layer in planting.fact else rng.choice([*COUNTRIES, None])
                seen = replace(seen, country=country)
        named = thing(seen, wording)
        if scene.object != FLAG and rng.random() < LOSS_SHARE:
            named = UNNAMED if rng.random() < 0.5 else thing(replace(seen, colour=None), wording)
        prompts.append(sentence(template, named, seen.style))
    return prompts


def _readers(planted: tuple[int, ...], rng: np.random.Generator) -> tuple[int, ...]:
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
