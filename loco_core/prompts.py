"""Prompts with a concept and without it: what a person wrote, expanded by the paper's templates.

prompt_pairs("Van Gogh", "a painting", Attribute.STYLE).pairs      # four pairs, from a bare name
preserved_prompts("Monet\na photo of a cat", Attribute.STYLE, "Van Gogh").prompts
contrast_prompts("Van Gogh", "a photo of a cat\nMonet").without

Every line of a field is a name, a prompt or a context (see LineKind). A person says which with "name:" or "prompt:" at
its beginning; without that it is guessed. What each line was taken for, and what it became, stands in `taken`, as
sentences for a report. A person's text is put into templates as it stands: braces in it are text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .choices import Choice
from .prompt_lines import COMMAS, EMPTY, Line, LineKind, read_lines, taken_text
from .prompt_text import CJK, holds, plain_text, quoted, words


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
# By these a prompt says that it is in a style.
STYLE = re.compile(r"(?<![^\W_])style(?![\w-])|风格|風格|画风|畫風|画風|スタイル|스타일|화풍", re.IGNORECASE)
# The same at the end of a style's name ("Studio Ghibli style"), in brackets and before a weight too.
STYLE_ENDING = re.compile(rf"(?<=[^\s(])[\s_-]*(?:{STYLE.pattern})(?=[\s:.\d),]*$)", re.IGNORECASE)
# What people write before a painter's name.
STYLE_BEGINNING = re.compile(r"^([\s(]*)(?:art(?:work)?\s+)?by\s+(?=\S)", re.IGNORECASE)
# A line that says one of these speaks of a picture: it is a prompt, however short.
PICTURE = re.compile(
    r"(?<![\w-])(?:painting|photo|picture|image|drawing|portrait)(?![\w-])|照片|图片|圖片|写真|사진", re.IGNORECASE
)
# So is one with the particles of a sentence in Chinese, Japanese or Korean.
SENTENCE = re.compile(
    rf"[的在を。]|(?<=[\u30a1-\u30ff\u4e00-\u9fff])[はがにで](?=[{CJK}])|(?<=[\uac00-\ud7af])(?:[을를에]|에서)\s"
)
# So is one that counts people, as tags do.
TAG = re.compile(r"(?<!\w)\d+\+?(?:girl|boy|other)s?(?!\w)", re.IGNORECASE)
# Other lines are names up to this many words ("Van Gogh", "the president of the United States").
NAME_WORDS = {Attribute.STYLE: 3, Attribute.OBJECT: 6, Attribute.FACT: 6}
# What is counted, and how many words it is: a run of characters without a space, or of katakana; a character of Korean,
# of Chinese or of other Japanese, whose words need not end at a space.
WORD_SHARES = (
    (re.compile(rf"[^\s\u00b7\u30fb{CJK}]+"), 1),
    (re.compile("[\u30a1-\u30fa\u30fc-\u30ff]+"), 1),
    (re.compile("[\uac00-\ud7af]"), 1 / 3),
    (re.compile(rf"(?![\u30a1-\u30ff\uac00-\ud7af])[{CJK}]"), 1 / 2),
)


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


@dataclass(frozen=True)
class NamedConcept:
    """A concept of which a person gave the name, and what takes its place."""

    name: str
    target: str
    attribute: Attribute

    def __post_init__(self) -> None:
        Attribute.parse_field(self, "attribute")


@dataclass(frozen=True)
class AskedPairs:
    """The pairs meant by two text fields, the concepts that were given by name, and how the lines were taken."""

    pairs: tuple[PromptPair, ...]
    named: tuple[NamedConcept, ...]
    taken: tuple[str, ...]


@dataclass(frozen=True)
class Preserved:
    """The prompts that must stay, those of them that are contexts, and how the lines that asked were taken."""

    prompts: tuple[str, ...]
    contexts: tuple[str, ...]
    taken: tuple[str, ...]


@dataclass(frozen=True)
class Contrast:
    """Prompts with a style and without it; `others` are those of `without` that hold another style, by style. And how
    the lines of both fields were taken.
    """

    concept: tuple[str, ...]
    without: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    taken: tuple[str, ...] = ()

    @property
    def pairs(self) -> tuple[PromptPair, ...]:
        return continued(self.concept, self.without)


def continued(prompts: Sequence[str], plain: Sequence[str]) -> tuple[PromptPair, ...]:
    """Of the prompts those that go on from a plain one, each beside the longest of these."""
    begun = [(prompt, [own for own in plain if prompt.startswith(f"{own} ")]) for prompt in prompts]
    return tuple(PromptPair(prompt, max(own, key=len)) for prompt, own in begun if own)


def lines(text: str, field: str) -> list[str]:
    """The whole prompts in a text field, one per line. A name is an error, and so is the empty prompt."""
    return [line.text for line in _whole(_filled(text, field))]


def whole_pairs(
    concepts: str, targets: str, names: tuple[str, str] = ("concept prompts", "target prompts")
) -> list[PromptPair]:
    """The pairs of whole prompts in two text fields, one per line; one target line serves all concepts.

    `names` are the fields' names, for errors. A target line of two quotes is the empty prompt.
    """
    given = _matched(_whole(_filled(concepts, names[0])), _whole(read_lines(targets, names[1])), names)
    return [PromptPair(concept.text, target.text) for concept, target in given]


def prompt_pairs(
    concepts: str,
    targets: str,
    attribute: Attribute,
    names: tuple[str, str] = ("concept prompts", "target prompts"),
    contexts: Sequence[str] = (),
) -> AskedPairs:
    """The same with names expanded. `contexts` are prompts without a style: with the name of a style added, each is a
    concept whose target is the prompt itself.

    A name is expanded with the attribute's templates. Its target is kept as it is for a style ("a painting"), unless it
    is marked as a name, and goes through the same templates for an object or a fact.
    """
    attribute = Attribute.parse(attribute, "attribute")
    concept_lines = _guessed(_filled(concepts, names[0]), attribute)
    target_lines = _guessed(read_lines(targets, names[1]), attribute)
    pairs: list[PromptPair] = []
    named: list[NamedConcept] = []
    taken: tuple[list[Line], list[Line]] = ([], [])
    for concept, target in _matched(concept_lines, target_lines, names):
        target = _target_line(target, concept, attribute)
        own = _expanded_pair(concept, target, attribute, contexts if attribute is Attribute.STYLE else ())
        taken[0].append(replace(concept, prompts=tuple(pair.concept for pair in own)))
        taken[1].append(replace(target, prompts=tuple(pair.target for pair in own)))
        pairs += own
        if concept.kind is LineKind.NAME:
            named.append(NamedConcept(concept.text, target.text, attribute))
    return AskedPairs(tuple(pairs), tuple(named), taken_text([*taken[0], *taken[1]]))


def preserved_prompts(text: str, attribute: Attribute, concepts: str) -> Preserved:
    """The prompts meant by a text field of what is to be preserved, one per line.

    A name is expanded with the attribute's templates, as a concept's is. Where a style is removed by its name, prompts
    without a style are contexts for it; a thing ("a house") is one too. An error where a line names a concept.
    """
    attribute = Attribute.parse(attribute, "attribute")
    told = _guessed(_filled(text, "preserve"), attribute)
    names = [line for line in _guessed(read_lines(concepts, "concept"), attribute) if line.kind is LineKind.NAME]
    _check_apart(told, names, attribute)
    own = LineKind.CONTEXT if names and attribute is Attribute.STYLE else LineKind.PROMPT
    taken = []
    for line in told:
        if line.is_bare_name:
            taken.append(replace(line, prompts=_expanded(line.text, attribute)))
        else:
            kind = LineKind.PROMPT if has_style(line.text) else own
            taken.append(replace(line, kind=kind, prompts=(line.text,)))
    contexts = dict.fromkeys(line.text for line in taken if line.kind is LineKind.CONTEXT)
    return Preserved(_prompts(taken), tuple(contexts), taken_text(taken))


def contrast_prompts(concepts: str, without: str) -> Contrast:
    """The prompts to compare, meant by two text fields, one name or prompt per line.

    Prompts without a style in `without` are contexts: a name, on either side, is put into all of them ("a photo of a
    cat in the style of Van Gogh"), so that both sides show the same things. What is a whole prompt stays as it is.
    """
    style = Attribute.STYLE
    told, other = _guessed(_filled(concepts, "concept"), style), _guessed(_filled(without, "without"), style)
    if not told:
        raise ValueError("concept: empty; give at least one line")
    _check_apart(other, [line for line in told if line.is_bare_name], style)
    contexts = tuple(line.text for line in other if not (line.is_bare_name or has_style(line.text)))

    def taken(line: Line) -> Line:
        if line.is_bare_name:
            made = tuple(_in_style(context, line.text) for context in contexts) or _expanded(line.text, style)
            return replace(line, prompts=made)
        plain = line.field == "without" and line.text in contexts
        return replace(line, kind=LineKind.CONTEXT if plain else LineKind.PROMPT, prompts=(line.text,))

    told, other = list(map(taken, told)), list(map(taken, other))
    groups = dict.fromkeys(line.prompts for line in other if line.kind is not LineKind.CONTEXT)
    plain = tuple(dict.fromkeys(contexts))
    return Contrast(
        _prompts(told),
        tuple(dict.fromkeys([*plain, *(prompt for group in groups for prompt in group)])),
        tuple(groups),
        taken_text([*told, *other]),
    )


def has_style(prompt: str) -> bool:
    """Whether it says that it is in a style."""
    return STYLE.search(plain_text(prompt)) is not None


def taken_as_one(prompts: Sequence[str]) -> tuple[str, ...]:
    """A warning for prompts that are nothing but names with commas between them: a person may mean several."""
    lists = [prompt for prompt in dict.fromkeys(prompts) if _looks_like_a_list(prompt)]
    return tuple(
        f"WARNING: {quoted(prompt)} is taken as one prompt; if it names several, give each a line of its own"
        for prompt in lists
    )


def _looks_like_a_list(prompt: str) -> bool:
    parts = [part for part in COMMAS.split(plain_text(prompt)) if part.strip()]
    return len(parts) > 1 and all(_looks_like_a_name(part, Attribute.STYLE) for part in parts)


def _filled(text: str, field: str) -> list[Line]:
    """The same for a field in which no line can be the empty prompt: only a target can."""
    found = read_lines(text, field)
    if not all(line.text for line in found):
        raise ValueError(f"{field}: {EMPTY}, the empty prompt, has nothing in it; give at least one word")
    return found


def _whole(found: list[Line]) -> list[Line]:
    """The same for a field in which no line can be a name."""
    for line in found:
        if line.kind is LineKind.NAME:
            raise ValueError(f"{line.field}: {line.text!r} is marked as a name; write whole prompts here")
    return found


def _guessed(found: list[Line], attribute: Attribute) -> list[Line]:
    """The same with names among the lines that do not say what they are."""
    return [
        replace(line, kind=LineKind.NAME) if not line.said and _looks_like_a_name(line.text, attribute) else line
        for line in found
    ]


def _looks_like_a_name(text: str, attribute: Attribute) -> bool:
    if attribute is Attribute.STYLE:
        text = _unstyled(text)
    plain = unicodedata.normalize("NFKC", plain_text(text))
    parts = [part for part in COMMAS.split(plain) if part.strip()]
    if len(parts) != 1 or any(sign.search(plain) for sign in (PICTURE, STYLE, SENTENCE, TAG)):
        return False
    return sum(share * len(counted.findall(plain)) for counted, share in WORD_SHARES) <= NAME_WORDS[attribute]


def _matched(concepts: list[Line], targets: list[Line], names: tuple[str, str]) -> list[tuple[Line, Line]]:
    """Every concept line with its target line."""
    for name, given in zip(names, (concepts, targets), strict=True):
        if not given:
            raise ValueError(f"{name}: empty; give at least one line")
    if len(targets) not in (1, len(concepts)):
        raise ValueError(
            f"{names[0]}: {len(concepts)} lines, {names[1]}: {len(targets)} lines; "
            "give one target per concept or a single one"
        )
    return list(zip(concepts, targets * len(concepts) if len(targets) == 1 else targets, strict=True))


def _target_line(target: Line, concept: Line, attribute: Attribute) -> Line:
    """The target as what it is beside its concept: a name only where that is one."""
    if target.said and target.kind is LineKind.NAME and concept.kind is not LineKind.NAME:
        raise ValueError(
            f"{target.field}: {target.text!r} is marked as a name, and {concept.text!r}, which it replaces, is a whole "
            "prompt; take the mark off, or mark both"
        )
    named = concept.kind is LineKind.NAME and (target.said or attribute is not Attribute.STYLE)
    return target if named else replace(target, kind=LineKind.PROMPT)


def _expanded_pair(concept: Line, target: Line, attribute: Attribute, contexts: Sequence[str]) -> list[PromptPair]:
    if concept.kind is not LineKind.NAME:
        return [PromptPair(concept.text, target.text)]
    if target.kind is LineKind.NAME:
        replaced = _expanded(target.text, attribute, contexts)
    else:
        replaced = (*[target.text] * len(TEMPLATES[attribute]), *contexts)
    return list(map(PromptPair, _expanded(concept.text, attribute, contexts), replaced))


def _expanded(name: str, attribute: Attribute, contexts: Sequence[str] = ()) -> tuple[str, ...]:
    """A name in the attribute's templates, then as a style in each context."""
    made = [
        template.replace("{}", _unstyled(name) if STYLE.search(template) else name) for template in TEMPLATES[attribute]
    ]
    return (*made, *(_in_style(context, name) for context in contexts))


def _in_style(prompt: str, name: str) -> str:
    return f"{prompt} in the style of {_unstyled(name)}"


def _unstyled(name: str) -> str:
    """The name of a style without a word for it at the end, or "by" before it."""
    return STYLE_BEGINNING.sub(r"\1", STYLE_ENDING.sub("", name))


def _prompts(taken: Sequence[Line]) -> tuple[str, ...]:
    """What the lines became, each prompt once."""
    return tuple(dict.fromkeys(prompt for line in taken for prompt in line.prompts))


def _check_apart(told: Sequence[Line], names: Sequence[Line], attribute: Attribute) -> None:
    """An error where a line names what is to be removed."""
    own = (_unstyled(line.text) if attribute is Attribute.STYLE else line.text for line in names)
    sought = {line.text: words(name) for line, name in zip(names, own, strict=True)}
    for line in told:
        said = words(line.text)
        for name, parts in sought.items():
            if holds(said, parts):
                raise ValueError(f"{line.field}: {line.text!r} names what is to be removed, {name!r}; take it out")
