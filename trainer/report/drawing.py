"""Matplotlib without a screen: one look for all plots, and SVG that is the same in every run."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any
from xml.sax.saxutils import quoteattr

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prompts.record import Frozen
from trainer.report.palette import LIGHT

INK, SOFT, LINE, PAPER = (LIGHT[name] for name in ("--ink", "--soft", "--line", "--paper"))
FORBIDDEN = r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "retort",
    "text.parse_math": False,  # a name with a dollar sign is a name
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
}


class Plot(Frozen):
    """One drawing."""

    name: str
    """Of its file, without the ending."""
    title: str
    alt: str
    """What it shows, in words and figures, for those who don't see it."""
    svg: str
    """Stands alone, in light colours."""


@contextmanager
def axes(width: float = 5.4, height: float = 3.5) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many inches with one pair of axes; few inches, so that a phone can show it."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # Text stays text: the reader's fonts draw it, whatever this one lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def settle(figure: Figure) -> None:
    """Lay the figure out, once: where things are in pixels holds from here on."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def draw(name: str, title: str, alt: str, figure: Figure) -> Plot:
    """Render; to be called while `axes` is open, since some settings act only here."""
    settle(figure)
    page = StringIO()
    figure.savefig(page, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(name=name, title=title, alt=alt, svg=alone(name, alt, page.getvalue()))


def alone(name: str, alt: str, svg: str) -> str:
    """An SVG element that can share a page with others: ids of its own, and a description.

    Characters that XML forbids, as names may hold them, are left out.
    """
    svg = re.sub(FORBIDDEN, "", svg[svg.index("<svg") :])
    alt = re.sub(FORBIDDEN, "", alt)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(\bhref="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'^(<svg[^>]*?) width="[^"]*"', r"\1", svg)
    svg = re.sub(r'^(<svg[^>]*?) height="[^"]*"', r"\1", svg)
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, system-ui, sans-serif")
    return svg.replace("<svg", f'<svg role="img" aria-label={quoteattr(alt)}', 1)


def shorten(text: str, longest: int = 26) -> str:
    """A name short enough for a plot, without line breaks."""
    line = re.sub(FORBIDDEN, "", " ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"
