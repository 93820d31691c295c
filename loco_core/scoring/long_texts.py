"""Whether a scorer sees all of the texts it is to score against, asked before any image is made.

CLIP's text tower takes one chunk of tokens, and what follows does not count in a score. A concept that stands there is
never scored.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..prompt_text import plain_text, quoted
from ..prompts import PromptPair
from .clip_score import Scorer


def unseen_ends(scorer: Scorer, pairs: Sequence[PromptPair], scored: Sequence[str]) -> tuple[str, ...]:
    """A warning for each of the `scored` texts of which the scorer sees the beginning alone.

    An error where it is the beginning alone in which a pair's prompts are the same: then no score tells them apart.
    """
    for pair in pairs:
        concept, target = (scorer.seen(plain_text(prompt)) for prompt in (pair.concept, pair.target))
        if concept.tokens == target.tokens and not (concept.whole and target.whole):
            raise ValueError(
                f"scorer: it sees the first {len(concept.tokens)} tokens of a prompt, and {quoted(pair.concept)} and "
                f"{quoted(pair.target)} differ only after them; shorten the prompts, or let them begin with what is "
                "different"
            )
    warnings = []
    for text in dict.fromkeys(scored):
        seen = scorer.seen(plain_text(text))
        if not seen.whole:
            warnings.append(
                f"WARNING: the scorer sees the first {len(seen.tokens)} of {seen.total} tokens of {quoted(text)}; what "
                "follows does not count in its scores"
            )
    return tuple(warnings)
