"""Wordings of a concept on which an edit was not solved: they tell whether the concept is gone, or its prompts alone.

People name a style in front of what a picture shows, behind it, as a tag, with a weight; a thing with other words
around it, or several of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TypeVar

from ..prompts import Attribute, NamedConcept, PromptPair, has_style
from .recipe import EditRecipe

Item = TypeVar("Item")

# How a style is said in front of what a picture shows, and behind it. Without the style it is the scene alone.
STYLE_WORDINGS = ("{name} style, {scene}", "{scene}, art by {name}", "{scene}, ({name}:1.2), highly detailed")
STYLE_SAID = "{scene} in the style of {name}"
# How a thing or a fact is said.
THING_WORDINGS = ("{name} in the morning light", "close-up of ({name}:1.2), highly detailed", "a drawing of {name}")
MANY_THINGS = "a photo of many {name}s"
# What pictures show where the recipe has no contexts, and what is kept where it has nothing to preserve.
SCENES = ("a house by the sea", "a woman with a hat", "a cat on a chair")
# How a whole prompt, whose concept is not known by name, is said in other words.
PROMPT_WORDINGS = ("{prompt}, highly detailed", "masterpiece, best quality, {prompt}")
# How a prompt that is to stay is said: not as it was preserved.
KEPT_WORDING = "{prompt}, highly detailed"
# Words of fewer letters stand in every text.
LEAST_LETTERS = 3
# Styles that any model knows. Where one is removed and none is preserved, a check looks at some of them: they are what
# such an edit is most likely to change.
OTHER_STYLES = ("watercolor", "stained glass", "pixel art", "Picasso")
MOST_STYLES = 2
# A check asks so many wordings, and so many prompts that are to stay.
MOST_WORDINGS, MOST_KEPT = 8, 6


def wordings(recipe: EditRecipe) -> tuple[PromptPair, ...]:
    """Other wordings of the recipe's concepts, each with the same words without the concept, or with its target."""
    scenes = _scenes(recipe)
    most = MOST_WORDINGS // max(1, len(recipe.named))
    found = [pair for number, named in enumerate(recipe.named) for pair in _wordings_of(named, scenes, number, most)]
    found += [
        PromptPair(filled(wording, prompt=pair.concept), filled(wording, prompt=pair.target))
        for pair in recipe.pairs
        if pair.concept != pair.target and not any(named.name in pair.concept for named in recipe.named)
        for wording in PROMPT_WORDINGS
    ]
    solved = {pair.concept for pair in recipe.pairs}
    changed = [pair for pair in dict.fromkeys(found) if pair.concept not in solved and pair.concept != pair.target]
    return spread(changed, MOST_WORDINGS)


def kept_wordings(recipe: EditRecipe) -> tuple[str, ...]:
    """What the recipe preserves, in other words; where that is nothing, scenes in which no concept is named."""
    named = {word for pair in recipe.pairs for word in words(pair.concept)}
    preserved = recipe.preserve or tuple(scene for scene in SCENES if not named & words(scene)) or SCENES
    styled: list[str] = []
    if any(own.attribute is Attribute.STYLE for own in recipe.named) and not any(map(has_style, recipe.preserve)):
        others = [style for style in OTHER_STYLES if not named & words(style)][:MOST_STYLES]
        styled = [
            filled(STYLE_SAID, name=style, scene=scene)
            for style, scene in zip(others, itertools.cycle(_scenes(recipe)), strict=False)
        ]
    asked = (*spread(preserved, MOST_KEPT - len(styled)), *styled)
    return tuple(filled(KEPT_WORDING, prompt=prompt) for prompt in asked)


def telling_pairs(recipe: EditRecipe, most: int) -> tuple[PromptPair, ...]:
    """So many prompts with the recipe's concepts, each beside one that differs in the concept and in nothing else.

    A style is said of a scene: beside 'a painting' alone, any word makes a large difference.
    """
    styles = [named for named in recipe.named if named.attribute is Attribute.STYLE]
    shown = zip(itertools.cycle(styles), itertools.cycle(_scenes(recipe)), strict=False)
    styled = [
        PromptPair(filled(STYLE_SAID, name=named.name, scene=scene), scene)
        for named, scene in itertools.islice(shown, max(most, len(styles)))
    ]
    others = [
        pair
        for pair in recipe.pairs
        if pair.concept != pair.target and not any(named.name in pair.concept for named in styles)
    ]
    return spread([*dict.fromkeys(styled), *others], most)


def words(text: str) -> set[str]:
    """Its words, without the short ones that stand in every text."""
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) >= LEAST_LETTERS}


def spread(items: Sequence[Item], most: int) -> tuple[Item, ...]:
    """All of them, or so many from beginning to end."""
    count = min(most, len(items))
    return tuple(items[number * len(items) // count] for number in range(count))


def filled(wording: str, **words: str) -> str:
    """The wording with these words, which stay as they stand: braces in them are text."""
    return re.sub(r"{(\w+)}", lambda found: words[found[1]], wording)


def _wordings_of(named: NamedConcept, scenes: Sequence[str], number: int, most: int) -> list[PromptPair]:
    """Every wording once; those of a style with one scene after the other, from the concept's number on, and again with
    other scenes up to about so many: a style may be gone from one scene and stay in another.
    """
    if named.attribute is Attribute.STYLE:
        count = max(len(STYLE_WORDINGS), min(most, len(scenes)))
        shown = [
            (STYLE_WORDINGS[place % len(STYLE_WORDINGS)], scenes[(number + place) % len(scenes)])
            for place in range(count)
        ]
        return [PromptPair(filled(wording, name=named.name, scene=scene), scene) for wording, scene in shown]
    said = [*THING_WORDINGS, *([MANY_THINGS] if named.attribute is Attribute.OBJECT else [])]
    return [PromptPair(filled(wording, name=named.name), filled(wording, name=named.target)) for wording in said]


def _scenes(recipe: EditRecipe) -> list[str]:
    """The contexts of the recipe's styles: concept prompts are those with a style added."""
    targets = {named.target for named in recipe.named}
    contexts = [pair.target for pair in recipe.pairs if pair.concept.startswith(f"{pair.target} ")]
    contexts = [context for context in contexts if context not in targets]
    return list(dict.fromkeys(contexts)) or list(SCENES)
