"""LocoEdit: a recipe, solved in closed form (paper, section 6).

    edit = solve_edit(engine.encode, recipe)
    print("\n".join(report_lines(edit)))

The prompts are encoded, their tokens paired (token_pairs.py), and one operator is solved that serves W_K and W_V of
every chosen layer (closed_form.py). Figures tell what it does to the embeddings that it was solved on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..models.engine import Encode, TextEmbedding
from .closed_form import EditOperator, leading_directions, project_out, solve
from .fingerprint import fingerprint
from .recipe import EditRecipe, Preservation, Ridge
from .token_pairs import token_pairs

# lambda_K = lambda_V for every model (paper, section 6; the authors' code).
PAPER_LAMBDA = 0.01
# beta of weighted preservation, per concept prompt. Tried on the demo model with ridges of 0.1 to 0.5.
PRESERVED_WEIGHT = 25
# Exact preservation covers the directions whose singular value is above this share of the largest.
PRESERVED_TOLERANCE = 0.03
# Below this share of a concept's columns outside what is preserved, |Z| / |X_o|, there is a warning...
LITTLE_ROOM = 0.1
# ... and below this one a refusal.
NO_ROOM = 0.02
# Preserved tokens that are checked at once, to spare memory.
COLUMNS_AT_ONCE = 128


@dataclass(frozen=True)
class EditFigures:
    """What an edit does to the embeddings it was solved on.

    residual: |(I + A) X_o - X_t| / |X_t - X_o|: 0 where the concept's outputs are the target's. room: per concept
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
    """A solved recipe.

    operators: by layer; layers that get the same embedding share one. width: of the text embeddings it was solved for.
    pooled: the operator of the pooled embedding, where the recipe asks for one.
    """

    recipe: EditRecipe
    operators: Mapping[int, EditOperator]
    width: int
    figures: EditFigures
    pooled: EditOperator | None = None


@dataclass(frozen=True, eq=False)
class Columns:
    """Embeddings as columns. originals and targets: X_o and X_t, [d, n] in float64; sizes: how many columns each prompt
    pair has; kept: what is preserved, [d, p].
    """

    originals: torch.Tensor
    targets: torch.Tensor
    sizes: list[int]
    kept: torch.Tensor | None

    @classmethod
    def joined(cls, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], kept: torch.Tensor | None) -> Columns:
        """Of each prompt pair's X_o and X_t."""
        originals = torch.cat([own for own, _ in pairs], 1)
        targets = torch.cat([other for _, other in pairs], 1)
        return cls(originals, targets, [own.shape[1] for own, _ in pairs], kept)


def solve_edit(encode: Encode, recipe: EditRecipe) -> Edit:
    """Solves all concepts of the recipe jointly: their order does not matter."""
    if recipe.settings.preservation is not Preservation.NONE:
        _refuse_contradiction(recipe)
    recipe = replace(recipe, fingerprint=fingerprint(encode))
    tokens, pooled = _encoded(encode, recipe)
    operator, figures = _solved(recipe, tokens)
    pooled_operator = None if pooled is None else _solved(recipe, pooled)[0]
    return Edit(recipe, dict.fromkeys(recipe.layers, operator), operator.width, figures, pooled_operator)


def _encoded(encode: Encode, recipe: EditRecipe) -> tuple[Columns, Columns | None]:
    """The columns of the recipe's prompts; those of pooled embeddings where these are edited too."""
    pairs = recipe.pairs
    concepts, targets = [pair.concept for pair in pairs], [pair.target for pair in pairs]
    kept_prompts = list(dict.fromkeys([*targets, "", *recipe.preserve]))
    if recipe.settings.preservation is Preservation.NONE:
        kept_prompts = []
    prompts = list(dict.fromkeys([*concepts, *targets, *kept_prompts]))
    embeddings = dict(zip(prompts, encode(prompts), strict=True))  # each once: nearly all the time goes there
    both = [(embeddings[pair.concept], embeddings[pair.target]) for pair in pairs]
    kept = [embeddings[prompt] for prompt in kept_prompts]
    tokens = Columns.joined(
        [token_pairs(concept, target, recipe.settings.tokens) for concept, target in both],
        torch.cat([embedding.tokens for embedding in kept]).cpu().T if kept else None,
    )
    if not recipe.settings.pooled:
        return tokens, None
    pooled = Columns.joined(
        [(_pooled(concept)[:, None].double(), _pooled(target)[:, None].double()) for concept, target in both],
        torch.stack([_pooled(embedding) for embedding in kept], 1) if kept else None,
    )
    return tokens, pooled


def _pooled(embedding: TextEmbedding) -> torch.Tensor:
    if embedding.pooled is None:
        raise ValueError("pooled: this text encoder gives no pooled embedding that the model gets; switch it off")
    return embedding.pooled


def _refuse_contradiction(recipe: EditRecipe) -> None:
    """An error where a prompt is both edited and preserved, by name or as a target."""
    edited = {pair.concept for pair in recipe.pairs if pair.concept != pair.target}
    both = edited & {*recipe.preserve, *(pair.target for pair in recipe.pairs)}
    if both:
        raise ValueError(
            f"preserve: {min(both)!r} is to be removed too; take it out of 'preserve', 'target' or 'concept'"
        )


def _solved(recipe: EditRecipe, columns: Columns) -> tuple[EditOperator, EditFigures]:
    """The operator for X_o and X_t, preserving what is to be kept as the settings say."""
    settings, originals, targets = recipe.settings, columns.originals, columns.targets
    ridge = PAPER_LAMBDA
    if settings.ridge is Ridge.RELATIVE:
        ridge = settings.relative_ridge * originals.square().sum(0).mean().item()
    basis = weighted = None
    if columns.kept is not None and settings.preservation is Preservation.EXACT:
        basis = leading_directions(columns.kept.double(), PRESERVED_TOLERANCE)
    elif columns.kept is not None:
        weighted = (PRESERVED_WEIGHT * len(columns.sizes)) ** 0.5 * columns.kept.double()
    room = _room_by_prompt(recipe, columns, basis)
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
        token_error=0.0 if columns.kept is None else _largest_change(operator, columns.kept),
    )
    return operator, figures


def _room_by_prompt(recipe: EditRecipe, columns: Columns, basis: torch.Tensor | None) -> tuple[float, ...]:
    """|Z| / |X_o| of each concept prompt; an error where one has next to none."""
    own = zip(columns.originals.split(columns.sizes, 1), columns.targets.split(columns.sizes, 1), strict=True)
    room = tuple(_room(basis, originals, targets) for originals, targets in own)
    for pair, share in zip(recipe.pairs, room, strict=True):
        if share < NO_ROOM:
            raise ValueError(
                f"preserve: only {share:.1%} of {pair.concept!r} is left outside what is to be preserved, too little "
                "to edit it; take out of 'preserve' what says the same, or choose preservation 'weighted'"
            )
    return room


def _room(basis: torch.Tensor | None, originals: torch.Tensor, targets: torch.Tensor) -> float:
    """|Z| / |X_o|; 1 where there is nothing to change."""
    if basis is None or torch.equal(originals, targets):
        return 1.0
    return (torch.linalg.norm(project_out(basis, originals)) / torch.linalg.norm(originals)).item()


def _largest_change(operator: EditOperator, tokens: torch.Tensor) -> float:
    """max |A p| / |p| over columns p; of a column of zeros nothing changes."""
    largest = 0.0
    for part in tokens.split(COLUMNS_AT_ONCE, dim=1):
        own = part.double()
        sizes = torch.linalg.norm(own, dim=0).clamp(min=torch.finfo(own.dtype).tiny)
        largest = max(largest, (torch.linalg.norm(operator.change(own), dim=0) / sizes).max().item())
    return largest
