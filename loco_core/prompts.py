"""Prompts with a concept and without it: what a person wrote, expanded by the paper's templates.

prompt_pairs("Van Gogh", "a painting", Attribute.STYLE)      # four pairs, from a bare name
preserved_prompts("Monet\na photo of a cat", Attribute.STYLE, "Van Gogh")
contrast_prompts("Van Gogh", "a photo of a cat\nMonet")
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .choices import Choice


class Attribute(Choice):
    """What kind of concept is meant."""

    STYLE = "style"
    OBJECT = "object"
    FACT = "fact"


# The authors' four templates per concept for styles and objects. They list none for facts, which are worded as objects.
TEMPLATES = {
    Attribute.STYLE: (
        "{}",
        "a painting in the style of {}",
        "a photo in the style of {}",
        "a picture in the style of {}",
    ),
    Attribute.OBJECT: ("{}", "an image of {}", "a photo of {}", "a picture of {}"),
    Attribute.FACT: ("{}", "an image of {}", "a photo of {}", "a picture of {}"),
}
# Up to this many words, a line is taken for a name ("Van Gogh", "the president of the United States")...
NAME_WORDS = {Attribute.STYLE: 3, Attribute.OBJECT: 6, Attribute.FACT: 6}
# ... unless it says one of these: then it is a prompt already.
PICTURE_WORDS = {"painting", "photo", "picture", "image", "drawing", "portrait", "style"}
# How a line says the empty prompt.
EMPTY = '""'
# A line that begins with one of these names a thing ("a house").
ARTICLES = {"a", "an"}
# A prompt in a style, and the word by which a prompt says that it is in one.
STYLED = "{} in the style of {}"
STYLE_WORD = "style"


@dataclass(frozen=True)
class PromptPair:
    """A prompt that holds the concept, and the same prompt with the target in its place."""

    concept: str
    target: str


def check_pairs_differ(pairs: Sequence[PromptPair]) -> None:
    """An error where a concept prompt is its own target: no image could tell the two apart."""
    for pair in pairs:
        if pair.concept == pair.target:
            raise ValueError(
                f"target prompts: {pair.target!r} is the concept prompt too, so no image can show what the concept "
                "adds; give the same prompt without the concept"
            )


def lines(text: str, name: str) -> list[str]:
    """The prompts in the text field `name`, one per line. The empty prompt is an error: only a target can be."""
    prompts = _lines(text)
    if EMPTY in prompts:
        raise ValueError(f"{name}: {EMPTY}, the empty prompt, has nothing in it; give at least one word")
    return prompts


def _lines(text: str) -> list[str]:
    """The lines that hold something, stripped."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def prompt_pairs(
    concepts: str,
    targets: str,
    attribute: Attribute,
    names: tuple[str, str] = ("concept prompts", "target prompts"),
    contexts: Sequence[str] = (),
) -> list[PromptPair]:
    """The pairs meant by two text fields, one prompt per line; one target line serves all concepts.

    `names` are the fields' names, for errors. A target line of two quotes is the empty prompt. `contexts` are prompts
    without a style: with a style that is a bare name added, each is a concept whose target is the prompt itself.

    A bare name (see NAME_WORDS) is expanded with the attribute's templates. Its target is kept as it is for a style
    ("a painting") and goes through the same templates for an object or a fact.
    """
    attribute, pairs = Attribute.parse(attribute, "attribute"), []
    for pair in whole_pairs(concepts, targets, names):
        pairs += _expand(pair.concept, pair.target, attribute)
        if attribute is Attribute.STYLE and _is_name(pair.concept, attribute):
            pairs += [PromptPair(STYLED.format(context, pair.concept), context) for context in contexts]
    return pairs


def whole_pairs(
    concepts: str, targets: str, names: tuple[str, str] = ("concept prompts", "target prompts")
) -> list[PromptPair]:
    """The same without expansion: every line is a prompt as it stands."""
    concept_lines, target_lines = lines(concepts, names[0]), _lines(targets)
    for name, given in zip(names, (concept_lines, target_lines), strict=True):
        if not given:
            raise ValueError(f"{name}: empty; give at least one line")
    if len(target_lines) not in (1, len(concept_lines)):
        raise ValueError(
            f"{names[0]}: {len(concept_lines)} lines, {names[1]}: {len(target_lines)} lines; "
            "give one target per concept or a single one"
        )
    if len(target_lines) == 1:
        target_lines *= len(concept_lines)
    target_lines = ["" if target == EMPTY else target for target in target_lines]
    return [PromptPair(*pair) for pair in zip(concept_lines, target_lines, strict=True)]


def preserved_prompts(text: str, attribute: Attribute, concepts: str) -> tuple[list[str], list[str]]:
    """The prompts meant by a text field of what is to be preserved, one per line; and those that are contexts.

    A bare name is expanded with the attribute's templates, as a concept's is. Of the others, those without a style are
    contexts for one; a thing ("a house") is one too. An error where a line names one of the `concepts`.
    """
    attribute = Attribute.parse(attribute, "attribute")
    told, prompts, contexts = lines(text, "preserve"), [], []
    _check_apart(told, "preserve", [concept for concept in _lines(concepts) if _is_name(concept, attribute)])
    for line in told:
        if _is_bare(line, attribute):
            prompts += [template.format(line) for template in TEMPLATES[attribute]]
        else:
            prompts.append(line)
            contexts += [] if _has_style(line) else [line]
    return list(dict.fromkeys(prompts)), list(dict.fromkeys(contexts))


@dataclass(frozen=True)
class Contrast:
    """Prompts with a style and without it; `others` are those of `without` that hold another style, by style."""

    concept: tuple[str, ...]
    without: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]


def contrast_prompts(concepts: str, without: str) -> Contrast:
    """The prompts to compare, meant by two text fields, one name or prompt per line.

    Prompts without a style in `without` are contexts: a bare name, on either side, is put into all of them ("a photo
    of a cat in the style of Van Gogh"), so that both sides show the same things. What is a whole prompt stays as it is.
    """
    told, other = lines(concepts, "concept"), lines(without, "without")
    if not told:
        raise ValueError("concept: empty; give at least one line")
    _check_apart(other, "without", [concept for concept in told if _is_bare(concept, Attribute.STYLE)])
    contexts = [line for line in other if not _is_bare(line, Attribute.STYLE) and not _has_style(line)]
    templates = [STYLED.format(context, "{}") for context in contexts] or list(TEMPLATES[Attribute.STYLE])

    def expanded(line: str) -> tuple[str, ...]:
        return tuple(template.format(line) for template in templates) if _is_bare(line, Attribute.STYLE) else (line,)

    def unique(groups: list[tuple[str, ...]]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(prompt for group in groups for prompt in group))

    groups = [expanded(line) for line in dict.fromkeys(other) if line not in contexts]
    return Contrast(
        unique([expanded(line) for line in told]), unique([*((c,) for c in contexts), *groups]), tuple(groups)
    )


def _check_apart(prompts: Sequence[str], field: str, names: Sequence[str]) -> None:
    """An error where a prompt of the field names what is to be removed."""
    for prompt, name in itertools.product(prompts, names):
        if re.search(rf"\b{re.escape(name)}\b", prompt, re.IGNORECASE):
            raise ValueError(f"{field}: {prompt!r} names what is to be removed, {name!r}; take it out")


def _has_style(prompt: str) -> bool:
    return STYLE_WORD in prompt.lower().split()


def _is_bare(line: str, attribute: Attribute) -> bool:
    """Whether it is a name, and not a thing ("a house")."""
    return _is_name(line, attribute) and line.split()[0].lower() not in ARTICLES


def _expand(concept: str, target: str, attribute: Attribute) -> list[PromptPair]:
    if not _is_name(concept, attribute):
        return [PromptPair(concept, target)]
    fixed = attribute is Attribute.STYLE or not target or not _is_name(target, attribute)
    return [
        PromptPair(template.format(concept), target if fixed else template.format(target))
        for template in TEMPLATES[attribute]
    ]


def _is_name(line: str, attribute: Attribute) -> bool:
    words = line.lower().replace(",", " ").split()
    return len(words) <= NAME_WORDS[attribute] and not PICTURE_WORDS & set(words)
