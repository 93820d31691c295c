"""The lines of a text field: what each was taken for, and what a report says of that."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .choices import Choice
from .prompt_text import plain_text, quoted


class LineKind(Choice):
    """What a line is: a name, which templates expand; a prompt, which stays as it is; or a context: a prompt without a
    style, into which a style's name is put.
    """

    NAME = "name"
    PROMPT = "prompt"
    CONTEXT = "context"


# How a line says what it is; the second colon is the wide one of Chinese and Japanese keyboards.
MARK = re.compile(rf"({LineKind.NAME}s?|{LineKind.PROMPT})\s*[:\uff1a]\s*", re.IGNORECASE)
# The mark of a line with several names, and how they are parted.
NAMES, COMMAS = f"{LineKind.NAME}s", re.compile("[,\uff0c\u3001\u060c]")
# How a line says that a text file has lines to put in its place.
FILE = re.compile(r"file\s*[:\uff1a]\s*(.*)", re.IGNORECASE)
# How a line says the empty prompt.
EMPTY = '""'
# A line that begins like this names a thing ("a house").
THING = re.compile("an?(?!\\S)|一[个個只隻位名张張幅座条條匹头頭棵朵]", re.IGNORECASE)
# How many lines of a kind a report shows.
LISTED = 10


@dataclass(frozen=True)
class Line:
    """A line of the text field `field`, without its mark: what it was taken for, and the prompts that it became.

    said: whether its mark says what it is; else that is a guess. The empty prompt is the text "".
    """

    field: str
    text: str
    kind: LineKind
    said: bool
    prompts: tuple[str, ...] = ()

    @property
    def is_bare_name(self) -> bool:
        """Whether it is a name, and not a thing ("a house")."""
        return self.kind is LineKind.NAME and (self.said or not THING.match(plain_text(self.text)))


def read_lines(text: str, field: str) -> list[Line]:
    """The lines of a field that hold something: names where they say so, else prompts."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        mark = MARK.match(line)
        said, told = (mark[1].lower(), line[mark.end() :]) if mark else ("", line)
        if not told or said == NAMES and not COMMAS.sub("", told).strip():
            raise ValueError(f"{field}: nothing stands after {line!r}; write the name or the prompt on the same line")
        if said == NAMES:
            names = filter(None, map(str.strip, COMMAS.split(told)))
            found += [Line(field, name, LineKind.NAME, said=True) for name in names]
        else:
            kind = LineKind(said) if said and told != EMPTY else LineKind.PROMPT
            found.append(Line(field, "" if told == EMPTY else told, kind, mark is not None))
    return found


def with_files(text: str, read: Callable[[str], str]) -> str:
    """The text with the lines of files in place of lines like "file: artists.txt"; `read` gives a file's text."""
    return "\n".join(read(mark[1]) if (mark := FILE.fullmatch(line.strip())) else line for line in text.splitlines())


def files_named(text: str) -> list[str]:
    """The files that its lines name."""
    return [mark[1] for line in text.splitlines() if (mark := FILE.fullmatch(line.strip()))]


def taken_text(taken: Sequence[Line]) -> tuple[str, ...]:
    """How lines were taken, in a sentence for the names, prompts and contexts of each field."""
    groups: dict[tuple[str, LineKind], dict[str, tuple[str, ...]]] = {}
    for line in taken:
        groups.setdefault((line.field, line.kind), {})[line.text] = line.prompts
    return tuple(_group_text(field, kind, group) for (field, kind), group in groups.items())


def _group_text(field: str, kind: LineKind, group: Mapping[str, tuple[str, ...]]) -> str:
    """`group`: what each line became."""
    count, more = len(group), len(group) - LISTED
    listed = ", ".join(map(quoted, list(group)[:LISTED]))
    listed += f" and {more} more {kind}{'s' if more > 1 else ''}" if more > 0 else ""
    made = list(dict.fromkeys(prompt for prompts in group.values() for prompt in prompts))
    became = f" ({len(made)} prompts, like {quoted(next(iter(group.values()))[-1])})" if kind is LineKind.NAME else ""
    return f"{field}, taken as {f'{count} {kind}s' if count > 1 else f'a {kind}'}: {listed}{became}"
