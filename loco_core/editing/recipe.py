"""What an edit is made from: the words of a person, as prompts.

request = EditRequest("Van Gogh", "a painting", "Monet\na photo of a cat", Attribute.STYLE)
recipe = edit_recipe(request, EditSettings(), layers.parse("8-9"), engine.text_encoder)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..choices import Choice
from ..models.engine import Encode
from ..models.layers import LayerSet
from ..prompts import Attribute, NamedConcept, PromptPair, preserved_prompts, prompt_pairs
from .fingerprint import SAME_ENCODER, Fingerprint, difference, fingerprint


class Tokens(Choice):
    """Which tokens of the prompts are edited."""

    LAST_SUBJECT = "last subject token"
    ALL_SUBJECT = "all subject tokens"
    END_OF_TEXT = "end of text"
    TAIL = "last subject token and tail"


class Preservation(Choice):
    """How firmly other prompts are preserved: to rounding, weighted against the edit, or not at all."""

    EXACT = "exact"
    WEIGHTED = "weighted"
    NONE = "none"


class Ridge(Choice):
    """What lambda is measured in: the embeddings' own size, or the paper's absolute number."""

    RELATIVE = "relative"
    PAPER = "paper"


# The default ridge, in units of the concepts' mean squared column norm.
RELATIVE_LAMBDA = 0.3
# Of what is preserved exactly, directions whose singular value is below this share of the largest are left out.
PRESERVED_TOLERANCE = 0.03
# What is said where the recipes that are combined have other settings.
FIRST_SETTINGS = "the edits were solved with different settings; together they are solved with those of the first"


@dataclass(frozen=True)
class EditSettings:
    """How an edit is solved; the defaults are the nodes'.

    preserved_tolerance: of what is preserved exactly, directions are left out whose singular value is below this share
    of the largest. pooled: SDXL's pooled embedding is edited too.
    """

    tokens: Tokens = Tokens.TAIL
    preservation: Preservation = Preservation.WEIGHTED
    ridge: Ridge = Ridge.RELATIVE
    relative_ridge: float = RELATIVE_LAMBDA
    preserved_tolerance: float = PRESERVED_TOLERANCE
    pooled: bool = False

    def __post_init__(self) -> None:
        Tokens.parse_field(self, "tokens")
        Preservation.parse_field(self, "preservation")
        Ridge.parse_field(self, "ridge")
        if not 0 < self.relative_ridge < float("inf"):
            raise ValueError(f"relative ridge: {self.relative_ridge}; give a number above 0")
        if not 0 < self.preserved_tolerance < 1:
            raise ValueError(f"preserved tolerance: {self.preserved_tolerance}; give a number between 0 and 1")


@dataclass(frozen=True)
class EditRequest:
    """What a person wrote into text fields, one name or prompt per line (see prompts.py)."""

    concepts: str
    targets: str
    preserve: str
    attribute: Attribute

    def __post_init__(self) -> None:
        Attribute.parse_field(self, "attribute")


@dataclass(frozen=True)
class EditRecipe:
    """All that an edit is made from. named: the concepts among its pairs that were given by name.

    preserve: prompts whose outputs must not change, beside the targets and the empty prompt. text_encoder: which one,
    with its clip skip, in words. taken: how the request's lines were taken, in sentences. fingerprint: the text encoder
    in numbers, once the recipe is solved.
    """

    pairs: tuple[PromptPair, ...]
    preserve: tuple[str, ...]
    settings: EditSettings
    layers: LayerSet
    text_encoder: str
    taken: tuple[str, ...] = ()
    named: tuple[NamedConcept, ...] = ()
    fingerprint: Fingerprint = ()

    @property
    def changes_nothing(self) -> bool:
        """Whether no layer is chosen, or every concept is its own target."""
        return not self.layers or all(pair.concept == pair.target for pair in self.pairs)


def edit_recipe(request: EditRequest, settings: EditSettings, layers: LayerSet, text_encoder: str) -> EditRecipe:
    """The recipe for what a person asks for."""
    kept = preserved_prompts(request.preserve, request.attribute, request.concepts)
    names = ("concept", "target")
    asked = prompt_pairs(request.concepts, request.targets, request.attribute, names, kept.contexts)
    own = [named.target for named in asked.named if named.name == named.target]
    own += [pair.target for pair in asked.pairs if pair.concept == pair.target]
    if own:
        raise ValueError(f"target: {own[0]!r} is the concept too; give what takes its place")
    taken = (*asked.taken, *kept.taken)
    return EditRecipe(asked.pairs, kept.prompts, settings, layers, text_encoder, taken, asked.named)


def combined(recipes: Sequence[EditRecipe], encode: Encode, text_encoder: str) -> EditRecipe:
    """One recipe for all concepts of several, to be solved jointly: not the sum of their operators.

    `encode` and `text_encoder`, its name, are what it will be solved with; an error where one of the recipes was solved
    with another.
    """
    first, *others = recipes
    differing = [other for other in others if other.settings != first.settings]
    for other in others:
        for name, mine, its in _differences(first, other):
            raise ValueError(
                f"edits: their {name} differ ({mine} and {its}); solve both alike, with settings 'by hand', or chain "
                "two LoCo Edit Apply"
            )
    own = fingerprint(encode)
    for recipe in recipes:
        _check_encoder(recipe, own, text_encoder)
    pairs = tuple(dict.fromkeys(pair for recipe in recipes for pair in recipe.pairs))
    preserve = tuple(dict.fromkeys(prompt for recipe in recipes for prompt in recipe.preserve))
    told = [FIRST_SETTINGS] if differing else []
    taken = tuple(dict.fromkeys([*told, *(sentence for recipe in recipes for sentence in recipe.taken)]))
    named = tuple(dict.fromkeys(named for recipe in recipes for named in recipe.named))
    return replace(
        first, pairs=pairs, preserve=preserve, taken=taken, named=named, text_encoder=text_encoder, fingerprint=own
    )


def _differences(one: EditRecipe, other: EditRecipe) -> list[tuple[str, object, object]]:
    """What would keep two recipes from being solved as one: its name, and what it is in each."""
    compared: list[tuple[str, object, object]] = [
        ("models' numbers of layers", one.layers.layer_count, other.layers.layer_count),
        ("layers", one.layers, other.layers),
        ("pooled", one.settings.pooled, other.settings.pooled),
    ]
    return [(name, mine, its) for name, mine, its in compared if mine != its]


def _check_encoder(recipe: EditRecipe, own: Fingerprint, text_encoder: str) -> None:
    """An error where the recipe was solved with another text encoder: by its numbers, else by its name."""
    if recipe.fingerprint:
        apart = difference(own, recipe.fingerprint)
        how, same = f"whose embedding of a test prompt differs by {apart:.0%}", apart <= SAME_ENCODER
    else:
        how, same = "which has another name", recipe.text_encoder == text_encoder
    if not same:
        raise ValueError(
            f"clip: it is {text_encoder}; the edit of {recipe.pairs[0].concept!r} was solved with another text encoder "
            f"({recipe.text_encoder}), {how}. Connect that one, with the same LoRAs and clip skip, or solve the edit "
            "again with this one"
        )
