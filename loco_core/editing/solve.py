"""LocoEdit: a recipe, solved in closed form (paper, section 6).

    edit = solve_edit(engine.encode, recipe)
    print("\n".join(report_lines(edit)))

The prompts are encoded, their tokens paired (token_pairs.py), and one operator is solved that serves W_K and W_V of
every chosen layer (closed_form.py). Figures tell what it does to the embeddings that it was solved on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..models.engine import Encode, TextEmbedding
from ..prompts import PromptPair
from .closed_form import Columns, EditOperator, leading_directions
from .fingerprint import fingerprint
from .recipe import EditRecipe, EditSettings, Preservation, Ridge
from .token_pairs import token_pairs

# lambda_K = lambda_V for every model (paper, section 6; the authors' code).
PAPER_LAMBDA = 0.01
# beta of weighted preservation. Tried from 0.1 to 1000 on two models, with ridges of 0.03 to 0.3 and 4 to 60 concept
# prompts: in the prediction 10 has the least side effect, or nearly, of what removes as much as less weight does.
PRESERVED_WEIGHT = 10
# Below this share of a concept's columns outside what is preserved, |Z| / |X_o|, there is a warning...
LITTLE_ROOM = 0.1
# ... and below this one a refusal.
NO_ROOM = 0.02
# Concept prompts that are encoded at once: a prompt's embedding takes 0.6 MB with SDXL.
PROMPTS_AT_ONCE = 16

# Called with the concept prompts solved so far. An exception there ends the work.
OnPrompts = Callable[[int], None]


@dataclass(frozen=True)
class EditFigures:
    """What an edit does to the embeddings it was solved on.

    residual: |(I + A) X_o - X_t| / |X_t - X_o|: 0 where the concept's outputs are the target's. room: per concept
    prompt, |Z| / |X_o|. kept_directions: how many directions are preserved exactly; kept_error: max |A q| over them;
    token_error: max |A p| / |p| over the preserved tokens themselves. chunks: in how many the longest concept prompt is
    encoded. parts: of each of the operator's parts, the leading first, its share of |A X_o|^2: what the solve left out
    to be of a small rank is missing in the sum.
    """

    rank: int
    spectral_norm: float
    residual: float
    room: tuple[float, ...]
    kept_directions: int
    kept_error: float
    token_error: float
    parts: tuple[float, ...] = ()
    chunks: int = 1

    def left_out(self, rank: int) -> float:
        """What the change of the concept prompts lacks, as a share of it, with the first `rank` parts alone."""
        return max(0.0, 1 - sum(self.parts[:rank])) ** 0.5 if self.parts else 0.0


@dataclass(frozen=True, eq=False)
class Edit:
    """A solved recipe.

    operators: by layer; layers that get the same embedding share one. width: of the text embeddings it was solved for.
    pooled: the operator of the pooled embedding, where the recipe asks for one.
    """

    recipe: EditRecipe
    operators: Mapping[int, EditOperator]
    width: int
    figures: EditFigures
    pooled: EditOperator | None = None


def solve_edit(encode: Encode, recipe: EditRecipe, on_prompts: OnPrompts = lambda done: None) -> Edit:
    """Solves all concepts of the recipe jointly: their order does not matter. `on_prompts` is told of how many.

    The embeddings of concept prompts are not kept, so that many concepts do not need much memory.
    """
    settings, pairs = recipe.settings, recipe.pairs
    targets, kept = list(dict.fromkeys(pair.target for pair in pairs)), []
    if settings.preservation is not Preservation.NONE:
        _refuse_contradiction(recipe)
        kept = list(dict.fromkeys([*targets, "", *recipe.preserve]))
    recipe = replace(recipe, fingerprint=fingerprint(encode))
    prompts = kept or targets
    known = dict(zip(prompts, encode(prompts), strict=True))
    tokens = _Problem(settings, known[prompts[0]].tokens.shape[1], [known[prompt].tokens for prompt in kept])
    pooled, chunks = None, 1
    if settings.pooled:
        pooled = _Problem(settings, _pooled(known[prompts[0]]).shape[1], [_pooled(known[prompt]) for prompt in kept])
    for start in range(0, len(pairs), PROMPTS_AT_ONCE):
        part = pairs[start : start + PROMPTS_AT_ONCE]
        for pair, concept in zip(part, encode([pair.concept for pair in part]), strict=True):
            target = known[pair.target]
            tokens.add(pair, *token_pairs(concept, target, settings.tokens))
            chunks = max(chunks, 1 + len(concept.filled))
            if pooled is not None:
                pooled.add(pair, _pooled(concept).T, _pooled(target).T)
        on_prompts(start + len(part))
    operator, figures = tokens.solved()
    pooled_operator = None if pooled is None else pooled.solved()[0]
    figures = replace(figures, chunks=chunks)
    return Edit(recipe, dict.fromkeys(recipe.layers, operator), operator.width, figures, pooled_operator)


def _pooled(embedding: TextEmbedding) -> torch.Tensor:
    """[1, p], as if it were a token."""
    if embedding.pooled is None:
        raise ValueError("pooled: this text encoder gives no pooled embedding that the model gets; switch it off")
    return embedding.pooled.cpu()[None]


def _refuse_contradiction(recipe: EditRecipe) -> None:
    """An error where a prompt is both edited and preserved, by name or as a target."""
    edited = {pair.concept for pair in recipe.pairs if pair.concept != pair.target}
    both = edited & {*recipe.preserve, *(pair.target for pair in recipe.pairs)}
    if both:
        raise ValueError(
            f"preserve: {min(both)!r} is to be removed too; take it out of 'preserve', 'target' or 'concept'"
        )


class _Problem:
    """The closed form for prompt pairs that are added one by one; `kept` are the tokens [T, d] of what to preserve."""

    def __init__(self, settings: EditSettings, width: int, kept: Sequence[torch.Tensor]) -> None:
        self._settings = settings
        self._kept = [tokens.cpu().T for tokens in kept]
        self._basis: torch.Tensor | None = None
        if settings.preservation is Preservation.EXACT:
            self._basis = leading_directions(self._kept, settings.preserved_tolerance)
        self._preserved: Columns | None = None
        if settings.preservation is Preservation.WEIGHTED:
            self._preserved = self._weighted(width)
            self._columns = Columns(width, self._preserved.common(), within=True)
        else:
            self._columns = Columns(width, self._basis)
        self._squares, self._count, self._room = 0.0, 0, list[float]()

    def _weighted(self, width: int) -> Columns:
        """What is preserved with a weight, as columns that are not to change."""
        preserved, ridge = Columns(width), None
        if self._settings.ridge is Ridge.RELATIVE:
            squares = sum(float(torch.linalg.vector_norm(tokens)) ** 2 for tokens in self._kept)
            ridge = self._relative(squares / sum(tokens.shape[1] for tokens in self._kept))
        for tokens in self._kept:
            preserved.add(tokens, tokens[:0], ridge)
        preserved.keep(ridge)
        return preserved

    def add(self, pair: PromptPair, originals: torch.Tensor, targets: torch.Tensor) -> None:
        """Adds X_o and X_t of a pair, [d, n] each; an error where preservation leaves it next to no room."""
        changes, ridge = targets - originals, None
        squares = float(torch.linalg.vector_norm(originals)) ** 2
        if self._settings.ridge is Ridge.RELATIVE:
            ridge = self._relative(squares / originals.shape[1])
        room = self._columns.add(originals, changes, ridge)
        if room < NO_ROOM:
            raise ValueError(
                f"preserve: only {room:.1%} of {pair.concept!r} is left outside what is to be preserved, too little "
                "to edit it; take out of 'preserve' what says the same, or choose preservation 'weighted'"
            )
        self._squares += squares
        self._count += originals.shape[1]
        self._room.append(room)

    def solved(self) -> tuple[EditOperator, EditFigures]:
        """The operator for all pairs, preserving what is to be kept as the settings say."""
        if self._settings.ridge is Ridge.PAPER:  # the paper's edit, to rounding
            operator, parts = self._operator(PAPER_LAMBDA).compact(), tuple[float, ...]()
        else:
            operator, parts = self._columns.needed(self._operator(self._relative(self._squares / self._count)))
        figures = EditFigures(
            rank=operator.rank,
            spectral_norm=operator.spectral_norm(),
            residual=self._columns.residual(operator),
            room=tuple(self._room),
            kept_directions=0 if self._basis is None else self._basis.shape[1],
            kept_error=0.0 if self._basis is None else _largest_change(operator, [self._basis]),
            token_error=_largest_change(operator, self._kept),
            parts=parts,
        )
        return operator, figures

    def _operator(self, ridge: float) -> EditOperator:
        return self._columns.operator(ridge, self._preserved, PRESERVED_WEIGHT)

    def _relative(self, mean_square: float) -> float:
        """Lambda for columns of this mean squared norm."""
        return self._settings.relative_ridge * mean_square


def _largest_change(operator: EditOperator, parts: Sequence[torch.Tensor]) -> float:
    """max |A p| / |p| over columns p, which come in parts [d, k]; 0 of none, and of a column of zeros."""
    largest = 0.0
    for part in parts:
        own = part.double()
        sizes = torch.linalg.norm(own, dim=0).clamp(min=torch.finfo(own.dtype).tiny)
        largest = max(largest, (torch.linalg.norm(operator.change(own), dim=0) / sizes).max().item())
    return largest
