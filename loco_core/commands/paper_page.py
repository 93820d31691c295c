"""The repeated table as a page: one HTML file, which shows the pictures in the concepts' folders beside it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from ..localization.plan import Effort
from .paper_table import TableRow, overlap_lines
from .trace import IMAGES, LAYERS

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
table { border-collapse: collapse; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid #8886; }
img { max-width: 100%; margin: .5rem 0; display: block; }
</style>
<body>
<h1>$title</h1>
<p>$intro</p>
<table>
$table
</table>
$sections
</body>
</html>
""")
SECTION = Template("""<h2 id="$slug">$title</h2>
$searches""")
SEARCH = Template("""<h3>$effort</h3>
<p>$verdict</p>
$pictures""")


def paper_page(rows: Sequence[TableRow], model: str) -> str:
    """`model`: its name, or what it is."""
    intro = [
        "Text layers that hold the concepts of the paper (arXiv 2405.01008), as found in this model and as the paper "
        "found them. A share is of the effect that all layers have.",
        *overlap_lines(rows),
    ]
    lines = [_line(list(rows[0].cells), "th"), *(_line(list(row.cells.values()), "td") for row in rows)]
    return PAGE.substitute(
        title=escape(f"The paper's table, repeated: {model}"),
        intro="<br>\n".join(map(escape, intro)),
        table="\n".join(lines),
        sections="\n".join(map(_section, rows)),
    )


def _line(cells: Sequence[str], kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{escape(cell)}</{kind}>' for cell in cells)}</tr>"


def _section(row: TableRow) -> str:
    concept = row.concept
    return SECTION.substitute(
        slug=concept.slug,
        title=escape(f"{concept.attribute}: {concept.name} \u2192 {concept.target}"),
        searches="\n".join(_search(row, effort) for effort in row.found),
    )


def _search(row: TableRow, effort: Effort) -> str:
    """What a search says and drew."""
    drawn = {"the layers": LAYERS, "images": IMAGES}
    pictures = [
        f'<img src="{row.concept.slug}/{effort}/{file}" alt="{escape(row.concept.name)}: {what}">'
        for what, file in drawn.items()
    ]
    verdict = escape(row.found[effort].text)
    return SEARCH.substitute(effort=escape(str(effort)), verdict=verdict, pictures="\n".join(pictures))
