"""HTML text: tables, figures and sections of one page that needs nothing beside itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from profiler.shown_values import format_column

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 66rem; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { font-size: 1.02rem; margin: 1.5rem 0 .3rem; }
p, ul, dl { max-width: 48rem; }
.labels span { display: inline-block; border: 1px solid #b45f06; color: #7a3f00; background: #fff7ec;
  border-radius: 4px; padding: 0 .5em; margin: 0 .4em .3em 0; font-size: .87rem; }
.note { color: #555; font-size: .87rem; margin: .25rem 0 .9rem; }
.warning { border-left: 4px solid #d55e00; padding: .2rem .8rem; background: #fff7ec; }
.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td { padding: .16rem .6rem; border-bottom: 1px solid #e4e4e4; text-align: left; vertical-align: top; }
th { background: #f5f5f5; font-weight: 600; }
td.n, th.n { text-align: right; }
tr.ours td { background: #eef5fb; font-weight: 600; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(12rem, 1fr)); gap: .7rem; margin: 1rem 0; }
.key div { border: 1px solid #d5d5d5; border-radius: 6px; padding: .5rem .8rem; }
.key b { display: block; font-size: 1.35rem; }
.key span { font-size: .84rem; color: #444; }
figure { margin: .8rem 0; break-inside: avoid; }
figure svg { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: .5rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; }
nav a { margin-right: .9em; }
code { font-size: .92em; background: #f5f5f5; padding: 0 .2em; }
@page { margin: 14mm; }
@media print {
  body { margin: 0; max-width: none; font-size: 10pt; padding: 0; }
  nav { display: none; } .scroll { overflow: visible; } .row { display: block; }
  .row figure { display: inline-block; width: 49%; } .row figure:only-child { width: 100%; }
  table { font-size: 7pt; } th, td { padding: 1pt 3pt; } tr { break-inside: avoid; } h2, h3 { break-after: avoid; }
}
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n"
        "</html>\n"
    )


def section(name: str, title: str, content: Sequence[str]) -> str:
    """A section with a heading that links lead to; nothing where it has no content."""
    inner = [part for part in content if part]
    if not inner:
        return ""
    return f'<section id="{name}">\n<h2>{escape(title)}</h2>\n' + "\n".join(inner) + "\n</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{escape(text)}</p>"


def labels(texts: Iterable[str]) -> str:
    """What qualifies every figure on the page, in boxes."""
    return '<p class="labels">' + "".join(f"<span>{escape(text)}</span>" for text in texts) + "</p>"


def figures(*svgs: str) -> str:
    """Charts beside one another where there is room."""
    return '<div class="row">' + "".join(f"<figure>{svg}</figure>" for svg in svgs if svg) + "</div>"


def key_figures(items: Iterable[tuple[str, str]]) -> str:
    """A few large figures with what they say below."""
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in items)
    return f'<div class="key">{boxes}</div>'


def definitions(items: Mapping[str, str]) -> str:
    """Words and what they mean."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items()) + "</dl>"


def table(
    rows: Sequence[Mapping[str, object]],
    headings: Mapping[str, str] | None = None,
    *,
    caption: str = "",
    emphasised: Mapping[str, object] | None = None,
) -> str:
    """A table; nothing where there is no row.

    Args:
        rows: Its cells by column.
        headings: Column to heading, in the order of the table; by default every column by its name.
        caption: Above it.
        emphasised: The rows that have these cells stand out.
    """
    if not rows:
        return ""
    headings = headings or {name: name for row in rows for name in row}
    shown = {name: text for name, text in headings.items() if any(_there(row.get(name)) for row in rows)}
    right = {name for name in shown if all(_numeric(row.get(name)) for row in rows)}

    def cell(tag: str, name: str, text: str) -> str:
        return f'<{tag} class="n">{escape(text)}</{tag}>' if name in right else f"<{tag}>{escape(text)}</{tag}>"

    head = "".join(cell("th", name, text) for name, text in shown.items())
    columns = {name: format_column(text, [row.get(name) for row in rows], digits=3) for name, text in shown.items()}
    body = []
    for number, row in enumerate(rows):
        ours = emphasised is not None and all(row.get(name) == value for name, value in emphasised.items())
        cells = "".join(cell("td", name, column[number]) for name, column in columns.items())
        body.append(f'<tr class="ours">{cells}</tr>' if ours else f"<tr>{cells}</tr>")
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead>\n<tbody>' + "\n".join(body) + "</tbody>"
        "</table></div>"
    )


def _there(value: object) -> bool:
    return value is not None and value != "" and not (isinstance(value, float) and math.isnan(value))


def _numeric(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
