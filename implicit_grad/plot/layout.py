"""Panels, their titles and legends, and files with the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator

from implicit_grad.storage import atomic_target

_NARROWEST = 1.75
"""Inches: panels that would be narrower are stacked."""

_LETTER, _TITLE = "panel letter", "panel title"


def grid(
    panels: int, rows: int = 1, *, height: float | None = None, ratios: tuple[float, ...] | None = None
) -> tuple[Any, Any]:
    """Return a figure as wide as the current style's, and its axes `(rows, panels)`.

    Panels stand side by side, or one under the other where the paper is too narrow for that: the axes come in the
    same order either way. Call it inside `house_style`.

    Parameters
    ----------
    panels, rows : int
        Columns that are problems, and the axes that each of them has.
    height : float, optional
        Inches of one panel with all its rows, without the legend; default: 0.85 of its width and row.
    ratios : tuple of float, optional
        Heights of the rows of one panel.
    """
    width = plt.rcParams["figure.figsize"][0]
    stacked = panels > 1 and width / panels < _NARROWEST
    columns = 1 if stacked else panels
    tall = (rows * max(1.9, 0.85 * width / columns) if height is None else height) * (panels if stacked else 1)
    ratios = (ratios or (1.0,) * rows) * (panels if stacked else 1)
    figure, axes = plt.subplots(
        len(ratios),
        columns,
        figsize=(width, tall + 0.7),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"height_ratios": ratios},
    )
    return figure, np.reshape(axes, (panels, rows)).T if stacked else axes


def note(ax: Any, text: str, x: float = 0.03, y: float = 0.04) -> Any:
    """Put a measured number into a panel, in axes fractions; right of the middle it ends at x, above it at y."""
    return ax.text(
        x, y, text, transform=ax.transAxes, color="0.25", ha="left" if x < 0.5 else "right",
        va="bottom" if y < 0.5 else "top", fontsize=plt.rcParams["legend.fontsize"],
    )  # fmt: skip


def panel_title(ax: Any, index: int, title: str = "") -> None:
    """Put (a), (b), … at the upper left of the axes and the title at the right."""
    ax.set_title(f"({'abcdefghij'[index]})", loc="left", fontweight="bold").set_gid(_LETTER)
    ax.set_title(title, loc="right").set_gid(_TITLE)


def plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis of few decades 1, 2, 5, 10, … instead of with powers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def hollow_key(ax: Any, label: str = "hollow: H + λI indefinite") -> None:
    """Explain hollow markers in the legend."""
    ax.plot([], [], linestyle="none", marker="o", color="0.35", markerfacecolor="white", label=label)


def shared_legend(figure: Any, axes: Any, *, columns: int) -> Any:
    """One legend under the panels, each label once, in as many of the columns as fit into the figure's width."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for count in range(columns, 0, -1):
        legend = figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=count)
        if count == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    return legend


def _fit(figure: Any) -> None:
    """Shrink titles that run into the letters beside them, and labels much wider than their axes."""
    figure.draw_without_rendering()  # lays the panels out
    for ax in figure.axes:
        texts = {text.get_gid(): text for text in ax.findobj(lambda artist: artist.get_gid() in (_LETTER, _TITLE))}
        if texts:
            letter = texts[_LETTER].get_window_extent().width
            _shrink(texts[_TITLE], 0.98 * ax.bbox.width - letter)
        _shrink(ax.xaxis.label, 1.2 * ax.bbox.width)


def _shrink(text: Any, width: float) -> None:
    """Make a text as small as it must be for a width in pixels, and not below two thirds."""
    extent = text.get_window_extent().width
    if extent > width:
        text.set_fontsize(text.get_fontsize() * max(width / extent, 2 / 3))


def save_figure(figure: Any, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.pdf and `stem`.png, atomically and with the same bytes for the same figure."""
    _fit(figure)
    pdf, png = stem.with_suffix(".pdf"), stem.with_suffix(".png")
    with atomic_target(pdf) as target:
        figure.savefig(target, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    with atomic_target(png) as target:
        figure.savefig(target, format="png", dpi=200, metadata={"Software": None})
    plt.close(figure)
    return pdf, png
