"""What an edit does, in sentences."""

from __future__ import annotations

from .recipe import Preservation
from .solve import LITTLE_ROOM, Edit


def report_lines(edit: Edit) -> list[str]:
    """What was solved, how the lines that asked for it were taken, and what to watch."""
    recipe, figures = edit.recipe, edit.figures
    if not len(recipe.layers):
        return ["no layers: nothing is edited"]
    lines = [
        f"layers {recipe.layers}: {len(recipe.pairs)} prompts, rank {figures.rank}, spectral norm "
        f"{figures.spectral_norm:.2f}, edit residual {figures.residual:.0%}",
        f"text encoder: {recipe.text_encoder}",
        *recipe.taken,
    ]
    if recipe.settings.preservation is Preservation.EXACT:
        lines.append(
            f"preserved exactly: {figures.kept_directions} directions (largest change {figures.kept_error:.0e}), their "
            f"tokens to {figures.token_error:.1%}; outside them lie {min(figures.room):.0%} of the concept or more"
        )
    elif recipe.settings.preservation is Preservation.WEIGHTED:
        lines.append(f"preserved: tokens to {figures.token_error:.1%}")
    if figures.chunks > 1:
        lines.append(
            f"WARNING: a concept prompt fills {figures.chunks} chunks of tokens, and its words may remove less of the "
            "concept than its name alone does; give the name, or compare images before and after"
        )
    for pair, share in zip(recipe.pairs, figures.room, strict=True):
        if share < LITTLE_ROOM:
            lines.append(
                f"WARNING: only {share:.1%} of {pair.concept!r} lies outside what is preserved; others may change with "
                "it. Take out of 'preserve' what is close to it"
            )
    return lines
