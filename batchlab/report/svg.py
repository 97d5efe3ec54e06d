"""Figures as SVG inside a page: text stays text, colours follow the reader's scheme, identifiers are the figure's own."""

import html
import io
import re
from typing import TYPE_CHECKING

from batchlab.report.ink import ON_DARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TAG = re.compile(r"<[^>]*>")
NUMBERS = re.compile(r"-?\d+\.\d{3,}")
COLOURS = re.compile("|".join(ON_DARK), re.IGNORECASE)
FONT = re.compile(r"font: (?P<style>[^;\"']*?)(?P<size>[\d.]+)px [^;\"]*")


def inline(figure: "Figure", name: str, description: str) -> str:
    """Return the figure as an `<svg>` element; `name` begins its identifiers, `description` is what a screen reader says."""
    drawn = _drawn(figure, name)
    body = drawn[drawn.index("<svg") : drawn.rindex("</svg>")]
    opening, inside = body.split(">", 1)
    inside = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = _own_identifiers(inside.replace("xlink:href", "href"), name)
    inside = TAG.sub(lambda tag: NUMBERS.sub(_short, tag[0]), inside)
    inside = COLOURS.sub(lambda match: ON_DARK[match[0].lower()], inside)
    inside = FONT.sub(lambda match: f"{_weight(match['style'])}font-size: {match['size']}px", inside)
    box = re.search(r'viewBox="([^"]+)"', opening)
    said = html.escape(description, quote=True)
    return f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{said}">{_squeezed(inside)}</svg>'


def _drawn(figure: "Figure", name: str) -> str:
    from matplotlib import rc_context

    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        laid_out(figure)
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def laid_out(figure: "Figure") -> "Figure":
    """Make the figure's parts make room for one another now: left to itself, saving draws everything twice for it."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    return figure


def _own_identifiers(text: str, name: str) -> str:
    """Keep only identifiers that something refers to, and begin them with the figure's name."""
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    wanted = {one or other for one, other in used}
    text = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in wanted else "", text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)


def _short(digits: "re.Match[str]") -> str:
    return f"{float(digits[0]):.2f}".rstrip("0").rstrip(".")


def _weight(style: str) -> str:
    return "font-weight: 700; " if "bold" in style or "700" in style else ""


def _squeezed(text: str) -> str:
    return re.sub(r">\s+<", "><", re.sub(r"[ \t]*\n[ \t]*", "\n", text)).strip()
