r"""What a prompt says: its text without weights, and the words in it.

plain_text(r"a cat, (art by name \(artist\):1.2)")   # "a cat, art by name (artist)"
holds(words("art by @wlop"), words("@WLOP"))         # True
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# Brackets that a backslash makes part of the text, while the weights are read.
ESCAPED = {r"\(": "\ue000", r"\)": "\ue001"}
# What stands before the name of a textual inversion, at the start or after a space.
EMBEDDING = re.compile(r"(?:^|(?<=\s))embedding:")
# Characters of Chinese, Japanese and Korean: scripts in which a word need not end at a space.
CJK = "\u3005-\u3007\u3041-\u30fa\u30fc-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003ffff"
# One such character, or a run of other letters and digits, or a sign. Spaces, dots between names, hyphens and
# apostrophes only part words.
WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+|[^\w\s\u00b7\u30fb\-\u2010-\u2015'\u2018\u2019]")
# Characters of a text that a message shows.
SHOWN = 60


def plain_text(prompt: str) -> str:
    r"""The prompt as a person says it: no weights and their brackets, no backslashes before brackets, no "embedding:".

    Weights are read as ComfyUI reads them: "(woodcut:1.3)", "((woodcut))" and "woodcut" say the same. Call it once: in
    plain text, brackets are text. Returns one line without spaces at its ends.
    """
    for escaped, kept in ESCAPED.items():
        prompt = prompt.replace(escaped, kept)
    said = ""
    for piece in _unweighted(prompt):
        apart = said[-1:].isalnum() and piece[:1].isalnum()  # a word ends where a weight does
        said += f" {piece}" if apart else piece
    for escaped, kept in ESCAPED.items():
        said = said.replace(kept, escaped.removeprefix("\\"))
    return " ".join(said.split())


def literal(text: str) -> str:
    """A prompt that says this plain text: its brackets escaped, so that none is a weight's."""
    for escaped in ESCAPED:
        text = text.replace(escaped.removeprefix("\\"), escaped)
    return text


def words(prompt: str) -> list[str]:
    """What a prompt says, in words to compare: in one case and width. A sign, and every character of Chinese, Japanese
    and Korean, is a word of its own.
    """
    return WORD.findall(unicodedata.normalize("NFKC", plain_text(prompt)).casefold())


def holds(said: Sequence[str], sought: Sequence[str]) -> bool:
    """Whether the words sought stand among those said, side by side; no words stand nowhere."""
    size = len(sought)
    return size > 0 and any(said[start : start + size] == sought for start in range(len(said) - size + 1))


def _unweighted(prompt: str) -> list[str]:
    """The pieces of a prompt with escaped brackets out of the way: between outermost brackets, and inside them."""
    pieces, depth, start = [], 0, 0
    for place, sign in enumerate(prompt):
        if sign == "(":
            if depth == 0:
                pieces.append(prompt[start:place])
                start = place
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                pieces.append(prompt[start : place + 1])
                start = place + 1
    pieces.append(prompt[start:])
    return [said for piece in pieces for said in _opened(piece)]


def _opened(piece: str) -> list[str]:
    """What stands in a piece's brackets, without its weight; a piece without brackets as it is."""
    if not (piece.startswith("(") and piece.endswith(")")):
        return [EMBEDDING.sub("", piece)]
    inner = piece[1:-1]
    weighted, _, weight = inner.rpartition(":")
    return _unweighted(weighted if weighted and _is_number(weight) else inner)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def quoted(text: str) -> str:
    """The text in quotation marks, for a message; the end of a long one is left out."""
    return f'"{text}"' if len(text) <= SHOWN else f'"{text[: SHOWN - 1]}\u2026"'
