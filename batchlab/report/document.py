"""The parts that every page is built from: its opening, facts, sections, figures, tables, footer."""

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from batchlab.report.style import STYLE
from batchlab.report.svg import inline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def opening(title: str, body: str, facts: Mapping[str, str]) -> str:
    """Return the document's beginning up to the end of its header; `body` is markup that stands between the title and the facts."""
    name = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}</title><style>{STYLE}</style></head>\n<body><header><h1>{name}</h1>{body}{_facts(facts)}</header>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    items = "".join(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>" for label, value in facts.items())
    return f'<dl class="facts">{items}</dl>' if facts else ""


def section(heading: str, body: str, anchor: str = "") -> str:
    """Return a section; links may point to its `anchor`."""
    of_anchor = f' id="{anchor}"' if anchor else ""
    return f"<section{of_anchor}><h2>{html.escape(heading)}</h2>{body}</section>"


def framed(name: str, heading: str, caption: str, reading: str, figure: "Figure | None") -> str:
    """Return a figure with its heading, the sentence that says what it shows, and how it is read; None draws nothing."""
    drawn = "" if figure is None else inline(figure, name, f"{heading}. {caption}")
    picture = f'<div class="scroll">{drawn}</div>' if drawn else ""
    said = f"<figcaption><h3>{html.escape(heading)}</h3><p>{html.escape(caption)}</p></figcaption>"
    read = f'<p class="reading">{html.escape(reading)}</p>' if reading else ""
    return f'<figure id="{name}">{said}{picture}{read}</figure>\n'


def table(headings: Sequence[str], body: str, kind: str = "") -> str:
    """Return a table; `body` holds its rows as markup."""
    head = "".join(f"<th>{html.escape(text)}</th>" for text in headings)
    of_kind = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{of_kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def filled(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of plain texts; each cell says what it is, for narrow screens."""
    cells = (
        "".join(f'<td data-label="{html.escape(name)}">{html.escape(cell)}</td>' for name, cell in zip(headings, row, strict=True))
        for row in rows
    )
    return table(headings, "".join(f"<tr>{row}</tr>" for row in cells))


def listing(texts: Sequence[str], kind: str = "remarks") -> str:
    """Return the texts as a list; nothing for none."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def footer(links: Mapping[str, str]) -> str:
    """Return the links at the document's end."""
    items = [f'<a href="{html.escape(address, quote=True)}">{html.escape(text)}</a>' for text, address in links.items()]
    return f"<footer>{' · '.join(items)}</footer>"
