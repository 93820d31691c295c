"""In which order the patches of text layers act, whatever the order of the nodes."""

from __future__ import annotations

from enum import IntEnum


class Turn(IntEnum):
    """When a patch of text layers acts among all others; those of other packs act in the middle."""

    FIRST = -1
    MIDDLE = 0
    LAST = 1


def in_order(patches: list) -> list:
    """By turn; of those that act last the newest first: of W (I + A) (I + B) c, B is the newer edit."""
    in_turn = {turn: [patch for patch in patches if getattr(patch, "turn", Turn.MIDDLE) is turn] for turn in Turn}
    return in_turn[Turn.FIRST] + in_turn[Turn.MIDDLE] + in_turn[Turn.LAST][::-1]
