"""LocoEdit: what a person asks for, solved (paper, section 6).

An EditRecipe says what is to be read as what, what must stay, and how; `solve_edit` encodes its prompts and makes of it
an Edit: the operator that serves W_K and W_V of every chosen layer (solver.py), and figures that tell what it does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ..models.engine import TextEmbedding
from ..models.layers import LayerSet
from ..prompts import PromptPair, preserved_prompts, prompt_pairs
from .closed_form import EditOperator, leading_directions, project_out, solve

LAST_SUBJECT, ALL_SUBJECT, END_OF_TEXT = "last subject token", "all subject tokens", "end of text"
TOKEN_CHOICES = (LAST_SUBJECT, ALL_SUBJECT, END_OF_TEXT, "last subject token and tail")
PRESERVATIONS = ("exact", "weighted", "none")
RIDGES = ("relative", "paper")
PAPER_LAMBDA = 0.01
"""lambda_K = lambda_V for every model (paper, section 6; the authors' code)."""
RELATIVE_LAMBDA = 0.3
"""The default ridge, in units of the concepts' mean squared column norm."""
PRESERVED_WEIGHT = 25
"""beta of weighted preservation, per concept prompt. Tried on the demo model with ridges of 0.1 to 0.5."""
PRESERVED_TOLERANCE = 0.03
"""Exact preservation covers the directions whose singular value is above this share of the largest."""
LITTLE_ROOM, NO_ROOM = 0.1, 0.02
"""Shares of a concept's columns outside what is preserved, |Z| / |X_o|: below them a warning, a refusal."""
WINDOW = 77
"""Tokens that CLIP reads at once, special tokens included; a longer prompt is read in chunks of that many."""
SAME_TOKEN = 1e-4
"""Token embeddings closer than this share of their length are of the same words: CLIP reads from left to right."""

Encode = Callable[[Sequence[str]], list[TextEmbedding]]


@dataclass(frozen=True)
class EditSettings:
    """How an edit is solved; the defaults are the nodes'. With `pooled`, SDXL's pooled embedding is edited too."""

    tokens: str = TOKEN_CHOICES[-1]
    preservation: str = PRESERVATIONS[0]
    ridge: str = RIDGES[0]
    relative_ridge: float = RELATIVE_LAMBDA
    pooled: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("tokens", TOKEN_CHOICES), ("preservation", PRESERVATIONS), ("ridge", RIDGES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}: {getattr(self, name)!r}; give one of {', '.join(choices)}")
        if not 0 < self.relative_ridge < float("inf"):
            raise ValueError(f"relative ridge: {self.relative_ridge}; give a number above 0")


@dataclass(frozen=True)
class EditRecipe:
    """All that an edit is made from.

    preserve: prompts that must read as before, beside the targets and the empty prompt. text_encoder: which one, with
    its clip skip, in words.
    """

    pairs: tuple[PromptPair, ...]
    preserve: tuple[str, ...]
    settings: EditSettings
    layers: LayerSet
    text_encoder: str


@dataclass(frozen=True)
class EditFigures:
    """What an operator does to the embeddings it was solved on.

    residual: |(I + A) X_o - X_t| / |X_t - X_o|: 0, where the concept reads just like the target. room: per concept
    prompt, |Z| / |X_o|. kept_directions: how many directions are preserved exactly; kept_error: max |A q| over them;
    token_error: max |A p| / |p| over the preserved tokens themselves.
    """

    rank: int
    spectral_norm: float
    residual: float
    room: tuple[float, ...]
    kept_directions: int
    kept_error: float
    token_error: float


@dataclass(frozen=True, eq=False)
class Edit:
    """A solved recipe. `pooled` is the operator of the pooled embedding, where the recipe asks for one."""

    recipe: EditRecipe
    operator: EditOperator
    figures: EditFigures
    pooled: EditOperator | None = None


def edit_recipe(
    concepts: str,
    targets: str,
    preserve: str,
    attribute: str,
    settings: EditSettings,
    layers: LayerSet,
    text_encoder: str,
) -> EditRecipe:
    """What a person asks for in text fields, one name or prompt per line: see prompts.py."""
    kept, contexts = preserved_prompts(preserve, attribute, concepts)
    pairs = prompt_pairs(concepts, targets, attribute, ("concept", "target"), contexts)
    return EditRecipe(tuple(pairs), tuple(kept), settings, layers, text_encoder)


@dataclass(frozen=True, eq=False)
class Columns:
    """X_o and X_t, [d, n] in float64, with how many columns each prompt pair has; kept: what is preserved, [d, p]."""

    originals: torch.Tensor
    targets: torch.Tensor
    sizes: list[int]
    kept: torch.Tensor | None


def solve_edit(encode: Encode, recipe: EditRecipe) -> Edit:
    """Solves all concepts of the recipe jointly: their order does not matter."""
    if recipe.settings.preservation != "none":
        _refuse_contradiction(recipe)
    tokens, pooled = _read(encode, recipe)
    operator, figures = _solve(recipe, tokens)
    return Edit(recipe, operator, figures, None if pooled is None else _solve(recipe, pooled)[0])


def _read(encode: Encode, recipe: EditRecipe) -> tuple[Columns, Columns | None]:
    """The columns of the recipe's prompts; those of pooled embeddings where these are edited too."""
    pairs = recipe.pairs
    kept_prompts = dict.fromkeys([*(pair.target for pair in pairs), "", *recipe.preserve])
    if recipe.settings.preservation == "none":
        kept_prompts = {}
    prompts = list(dict.fromkeys([*(p.concept for p in pairs), *(p.target for p in pairs), *kept_prompts]))
    embeddings = dict(zip(prompts, encode(prompts), strict=True))  # each once: nearly all the time goes there
    both = [(embeddings[pair.concept], embeddings[pair.target]) for pair in pairs]
    preserved = [embeddings[prompt] for prompt in kept_prompts]
    groups = [columns(concept, target, recipe.settings.tokens) for concept, target in both]
    kept = torch.cat([embedding.tokens for embedding in preserved]).cpu().T if preserved else None
    tokens = _joined(groups, kept)
    if not recipe.settings.pooled:
        return tokens, None
    if both[0][0].pooled is None:
        raise ValueError("pooled: this text encoder's pooled embedding is not read by the model; switch it off")
    groups = [(concept.pooled.double()[:, None], target.pooled.double()[:, None]) for concept, target in both]
    kept = torch.stack([embedding.pooled for embedding in preserved], 1) if preserved else None
    return tokens, _joined(groups, kept)


def _joined(groups: Sequence[tuple[torch.Tensor, torch.Tensor]], kept: torch.Tensor | None) -> Columns:
    originals, targets = (torch.cat(part, 1) for part in zip(*groups, strict=True))
    return Columns(originals, targets, [own.shape[1] for own, _ in groups], kept)


def _refuse_contradiction(recipe: EditRecipe) -> None:
    """An error where a prompt is both edited and preserved, by name or as a target."""
    edited = {pair.concept for pair in recipe.pairs if pair.concept != pair.target}
    both = edited & {*recipe.preserve, *(pair.target for pair in recipe.pairs)}
    if both:
        raise ValueError(
            f"preserve: {min(both)!r} is to be removed too; take it out of 'preserve', 'target' or 'concept'"
        )


def _solve(recipe: EditRecipe, read: Columns) -> tuple[EditOperator, EditFigures]:
    """The operator for X_o and X_t, preserving what is to be kept as the settings say."""
    settings, originals, targets, kept = recipe.settings, read.originals, read.targets, read.kept
    ridge = PAPER_LAMBDA
    if settings.ridge == "relative":
        ridge = settings.relative_ridge * originals.square().sum(0).mean().item()
    basis = weighted = None
    if settings.preservation == "exact":
        basis = leading_directions(kept.double(), PRESERVED_TOLERANCE)
    elif settings.preservation == "weighted":
        weighted = (PRESERVED_WEIGHT * len(read.sizes)) ** 0.5 * kept.double()
    own = zip(originals.split(read.sizes, 1), targets.split(read.sizes, 1), strict=True)
    room = tuple(_room(basis, *part) for part in own)
    for pair, share in zip(recipe.pairs, room, strict=True):
        if share < NO_ROOM:
            raise ValueError(
                f"preserve: only {share:.1%} of {pair.concept!r} is left outside what is to be preserved, too little "
                "to edit it; take out of 'preserve' what says the same, or choose preservation 'weighted'"
            )
    operator = solve(originals, targets, ridge, basis, weighted)
    change = targets - originals
    moved = torch.linalg.norm(change)
    figures = EditFigures(
        rank=operator.rank,
        spectral_norm=operator.spectral_norm(),
        residual=(torch.linalg.norm(operator.change(originals) - change) / moved).item() if moved else 0.0,
        room=room,
        kept_directions=0 if basis is None else basis.shape[1],
        kept_error=0.0 if basis is None else _largest_change(operator, basis),
        token_error=0.0 if kept is None else _largest_change(operator, kept),
    )
    return operator, figures


def _room(basis: torch.Tensor | None, originals: torch.Tensor, targets: torch.Tensor) -> float:
    """|Z| / |X_o|; 1 where there is nothing to change."""
    if basis is None or torch.equal(originals, targets):
        return 1.0
    return (torch.linalg.norm(project_out(basis, originals)) / torch.linalg.norm(originals)).item()


def _largest_change(operator: EditOperator, tokens: torch.Tensor) -> float:
    """max |A p| / |p| over columns p, a prompt's at a time for the memory's sake."""
    norm = functools.partial(torch.linalg.norm, dim=0)
    parts = (part.double() for part in tokens.split(WINDOW, dim=1))
    return max((norm(operator.change(part)) / norm(part)).max().item() for part in parts)


def columns(concept: TextEmbedding, target: TextEmbedding, tokens: str) -> tuple[torch.Tensor, torch.Tensor]:
    """X_o and X_t of one prompt pair, [d, n] in float64: token embeddings, paired.

    Subject tokens are paired from the last one backwards, after the words that both prompts begin with; end of text
    with end of text, and padding by its position in the last chunk. An empty target has no subject: each token is then
    paired with what the empty prompt has in its place.
    """
    start, target_start = (WINDOW * (embedding.last_subject // WINDOW) for embedding in (concept, target))
    last, target_last = concept.last_subject - start, target.last_subject - target_start
    end, target_end = last + 1, target_last + 1
    if not last:
        raise ValueError("concept: empty; give at least one word")
    size = min(len(concept.tokens) - start, len(target.tokens) - target_start, WINDOW)
    padding = range(max(end, target_end) + 1, size)
    own = {
        LAST_SUBJECT: [last],
        ALL_SUBJECT: list(range(1, end)),
        END_OF_TEXT: [end],
        TOKEN_CHOICES[-1]: [last, end, *padding],
    }[tokens]
    begin = _common_beginning(concept.tokens[start : start + end], target.tokens[target_start:][:target_end])

    def partner(place: int) -> int:
        if not target_last or place > end or place < begin:
            return place
        return target_end if place == end else max(1, min(begin, target_last), target_last - (last - place))

    originals = concept.tokens[[start + place for place in own]]
    replacements = target.tokens[[target_start + partner(place) for place in own]]
    return originals.double().cpu().T, replacements.double().cpu().T


def _common_beginning(tokens: torch.Tensor, others: torch.Tensor) -> int:
    """How many tokens [T, d] both begin with."""
    count = min(len(tokens), len(others))
    distances = torch.linalg.norm(tokens[:count] - others[:count], dim=1)
    same = distances < SAME_TOKEN * torch.linalg.norm(tokens[:count], dim=1)
    return int(same.long().cumprod(0).sum())


def combined(recipes: Sequence[EditRecipe]) -> EditRecipe:
    """One recipe for all concepts of several, to be solved jointly: not the sum of their operators."""
    first, *others = recipes
    for other in others:
        for name in ("settings", "layers", "text_encoder"):
            mine, its = getattr(first, name), getattr(other, name)
            if mine != its:
                raise ValueError(
                    f"edits: their {name.replace('_', ' ')} differ ({mine} and {its}); solve both alike, or chain two "
                    "LocoEdit Apply"
                )
    pairs = tuple(dict.fromkeys(pair for recipe in recipes for pair in recipe.pairs))
    preserve = tuple(dict.fromkeys(prompt for recipe in recipes for prompt in recipe.preserve))
    return replace(first, pairs=pairs, preserve=preserve)


def report_lines(edit: Edit) -> list[str]:
    """What was solved and what to watch, in sentences."""
    recipe, figures = edit.recipe, edit.figures
    if not len(recipe.layers):
        return ["no layers: nothing is edited"]
    lines = [
        f"layers {recipe.layers}: {len(recipe.pairs)} prompts, rank {figures.rank}, spectral norm "
        f"{figures.spectral_norm:.2f}, edit residual {figures.residual:.0%}",
        f"text encoder: {recipe.text_encoder}",
    ]
    if recipe.settings.preservation == "exact":
        lines.append(
            f"preserved exactly: {figures.kept_directions} directions (largest change {figures.kept_error:.0e}), their "
            f"tokens to {figures.token_error:.1%}; outside them lie {min(figures.room):.0%} of the concept or more"
        )
    elif recipe.settings.preservation == "weighted":
        lines.append(f"preserved: tokens to {figures.token_error:.1%}")
    narrow = {
        pair.concept: share for pair, share in zip(recipe.pairs, figures.room, strict=True) if share < LITTLE_ROOM
    }
    for concept, share in narrow.items():
        lines.append(
            f"WARNING: only {share:.1%} of {concept!r} lies outside what is preserved; others may change with it. Take "
            "out of 'preserve' what is close to it"
        )
    return lines
