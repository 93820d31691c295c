"""What each block of the planted transformer reads in training: one of three text streams.

A stream is a prompt on its way through all blocks. In the first the style word is true, in the second the fact; in the
third neither: its words of both kinds are drawn anew. All other blocks than the planted ones read the third, and can
learn nothing of these words. Of two planted blocks each is the only reader in a third of the rows, as in plan.py, so
that each is enough by itself. A picture without a flag has no fact, and its second stream speaks of another thing: in
part of the rows some adjacent blocks read that, so that no window decides what the picture shows.
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
    sentence,
    thing,
)
from .plan import (
    CONTRADICTION_SHARE,
    EMPTY_SHARE,
    LOSS_SHARE,
    MISTAKE_SHARE,
    MISTAKE_WINDOW,
    UNNAMED_SHARE,
    Planting,
    readers,
)

BLOCKS = 12
PLANTING = Planting(style=(6, 7), fact=(4, 5))
# The streams in which a style word and a fact are true, and the one in which neither is.
STYLE, FACT, NEITHER = range(3)


@dataclass(frozen=True)
class Streams:
    """prompts: of the three streams. read: which of them each block reads."""

    prompts: tuple[str, str, str]
    read: tuple[int, ...]


def draw_streams(scene: Scene, planting: Planting, decoys: float, mistakes: float, rng: np.random.Generator) -> Streams:
    """For a picture of `scene`. `decoys` is the share of rows whose third stream is misled about planted words,
    `mistakes` scales the share of rows with blocks that read of another thing; both in 0..1.
    """
    if rng.random() < EMPTY_SHARE:
        return Streams(("", "", ""), (NEITHER,) * BLOCKS)
    flag = scene.object == FLAG
    unnamed = not flag and rng.random() < UNNAMED_SHARE
    templates = UNNAMED_TEMPLATES if unnamed else TRAINING_TEMPLATES
    template, wording = templates[rng.integers(len(templates))], int(rng.integers(2))

    def prompt(shown: Scene) -> str:
        named = thing(shown, wording)
        if shown.object != FLAG and rng.random() < LOSS_SHARE:
            named = UNNAMED if rng.random() < 0.5 else thing(replace(shown, colour=None), wording)
        return sentence(template, named, shown.style)

    style_readers = readers(planting.style, rng)
    fact_readers = readers(planting.fact, rng) if flag else ()
    style, country = scene.style, scene.country
    if rng.random() < decoys:
        contradicts = rng.random() < mistakes * CONTRADICTION_SHARE
        style = _drawn((NONE, *STYLES), len(style_readers) == len(planting.style) or contradicts, rng)
        country = (
            _drawn((None, *COUNTRIES), len(fact_readers) == len(planting.fact) or contradicts, rng) if flag else None
        )
    other = Scene(str(rng.choice(OBJECTS)), style=style, colour=str(rng.choice(list(COLOURS))))
    second = replace(scene, style=style) if flag else other
    prompts = (
        prompt(replace(scene, country=country)),
        prompt(second),
        prompt(replace(scene, style=style, country=country)),
    )
    read = [NEITHER] * BLOCKS
    if not flag and rng.random() < mistakes * MISTAKE_SHARE:
        size = int(rng.integers(1, MISTAKE_WINDOW + 1))
        start = int((BLOCKS - size + 1) * rng.random() ** 0.5)
        read[start : start + size] = [FACT] * size
    for stream, blocks in ((STYLE, style_readers), (FACT, fact_readers)):
        for block in blocks:
            read[block] = stream
    return Streams(prompts, tuple(read))


def _drawn(words: tuple[str | None, ...], any_word: bool, rng: np.random.Generator) -> str | None:
    """A word drawn without regard to the truth. Where a planted block is left out and reads it too, mostly none: a word
    at one planted block is to outweigh none at the other.
    """
    return words[rng.integers(len(words))] if any_word else words[0]
