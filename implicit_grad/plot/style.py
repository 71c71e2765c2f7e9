"""Colours, markers, type and paper sizes: how everything here is drawn, in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

FLOOR = 1e-17
"""Errors below this are drawn here: a logarithmic axis has no zero."""

RC: dict[Any, Any] = {
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "pdf.fonttype": 42,
    "svg.hashsalt": "implicit_grad",
    "figure.dpi": 100,
}


@dataclass(frozen=True)
class Style:
    """How one estimator is drawn, in every figure alike."""

    color: str
    marker: str
    zorder: float = 2.0


# Okabe and Ito's colours: told apart by colour-blind readers and in grey print (markers help).
STYLES = {
    "exact inversion": Style("#000000", "s", 3.0),
    "CG-2": Style("#56B4E9", "v"),
    "CG-5": Style("#0072B2", "D"),
    "CG-10": Style("#009E73", "^"),
    "unrolled": Style("#E69F00", "o", 2.5),
    "unrolled (plain)": Style("#D55E00", "X"),
    "first-order": Style("#CC79A7", "P"),
}
MARKERS = "osD^vPX<>*"
SERIES = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")


def style_of(label: str) -> Style:
    """Return the style of an estimator label; unknown labels get a stable one of their own."""
    known = STYLES.get(label)
    return known or Style(SERIES[sum(map(ord, label)) % len(SERIES)], "o")


def styles_of(labels: Iterable[str]) -> dict[str, Style]:
    """Return a style for each label of one figure, no two alike: known estimators keep theirs."""
    labels = list(dict.fromkeys(labels))
    taken = {STYLES[label].color for label in labels if label in STYLES}
    colors = [*(color for color in SERIES if color not in taken), *SERIES]
    found: dict[str, Style] = {}
    for i, label in enumerate(each for each in labels if each not in STYLES):
        found[label] = Style(colors[i % len(colors)], MARKERS[i % len(MARKERS)])
    return {label: STYLES.get(label) or found[label] for label in labels}


@dataclass(frozen=True)
class Paper:
    """Where a figure is to stand.

    Attributes
    ----------
    width : float
        Inches from margin to margin.
    font_size : float
        Points of the running text; labels are that, ticks and legends a point less.
    """

    width: float
    font_size: float = 8.0


PAPERS = {
    "page": Paper(7.2),
    "neurips": Paper(5.5),
    "icml": Paper(3.25, 7.0),
    "icml-wide": Paper(6.75, 7.0),
    "jmlr": Paper(6.0),
}
"""Text widths of the style files; `icml` is one of its two columns. `page` is what this repository shows."""


@contextmanager
def house_style(paper: Paper = PAPERS["page"]) -> Iterator[None]:
    """Draw with the house's settings at the width of a paper, leaving the caller's settings untouched."""
    size = paper.font_size
    sizes: dict[Any, Any] = {
        "font.size": size,
        "axes.labelsize": size,
        "axes.titlesize": size + 0.5,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "legend.fontsize": size - 1,
        "figure.figsize": (paper.width, 0.62 * paper.width),
    }
    with mpl.rc_context({**RC, **sizes}):
        yield
