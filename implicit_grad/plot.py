"""Paper-style error plots. The only module that imports matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np

from implicit_grad.storage import atomic_target

FLOOR = 1e-17
"""Errors below this are drawn here: a logarithmic axis has no zero."""

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
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
SERIES = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")


def style_of(label: str) -> Style:
    """Return the style of an estimator label; unknown labels get a stable one of their own."""
    known = STYLES.get(label)
    return known or Style(SERIES[sum(map(ord, label)) % len(SERIES)], "o")


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the house's settings, leaving the caller's untouched."""
    with mpl.rc_context(RC):
        yield


def band(
    ax: Any,
    x: Any,
    values: Any,
    *,
    label: str,
    style: Style | None = None,
    hollow: Any = None,
    linestyle: str = "-",
    markevery: int = 1,
) -> Any:
    """Draw the median over tasks with its 10–90 % band.

    Parameters
    ----------
    ax : matplotlib Axes
    x : (n,) array
    values : (n, tasks) array
        Positive; NaN where there is none. Where more than half of the tasks have none, there is no point.
    label : str
        Legend entry.
    style : Style, optional
    hollow : (n,) boolean array, optional
        Points whose marker is drawn hollow.
    linestyle : str
    markevery : int
        Draw every n-th marker.

    Returns
    -------
    matplotlib Line2D
    """
    style = style or style_of(label)
    values = np.maximum(np.asarray(values, dtype=float), FLOOR)
    values = np.where(np.isfinite(values), values, np.nan)
    shown = np.isfinite(values).mean(axis=1) > 0.5
    low, middle, high = (np.full(len(values), np.nan) for _ in range(3))
    if shown.any():
        low[shown], middle[shown], high[shown] = np.nanquantile(values[shown], (0.1, 0.5, 0.9), axis=1)
    x = np.asarray(x, dtype=float)
    ax.plot([], [], color=style.color, marker=style.marker, linestyle=linestyle, label=label)  # the legend's sample
    (line,) = ax.plot(x, middle, color=style.color, label="_", zorder=style.zorder, linestyle=linestyle)
    ax.fill_between(x, low, high, color=style.color, alpha=0.13, linewidth=0, zorder=style.zorder - 1)
    open_ = np.zeros(len(x), dtype=bool) if hollow is None else np.asarray(hollow)
    visible = np.arange(len(x)) % markevery == 0
    for mask, face in ((visible & ~open_, style.color), (visible & open_, "white")):
        if mask.any():
            ax.plot(
                x[mask], middle[mask], linestyle="none", marker=style.marker, color=style.color,
                markerfacecolor=face, markeredgewidth=0.8, zorder=style.zorder + 0.1,
            )  # fmt: skip
    return line


def theory_line(ax: Any, x: Any, y: Any, label: str, linestyle: Any = (0, (4, 2))) -> Any:
    """Draw a bound or a rate, dashed."""
    (line,) = ax.plot(
        x, np.maximum(y, FLOOR), color="0.35", linestyle=linestyle, linewidth=0.9, label=label, zorder=1
    )
    return line


def floor_line(ax: Any, level: float, label: str) -> Any:
    """Draw a rounding floor, dotted."""
    return ax.axhline(level, color="0.35", linestyle=":", linewidth=0.9, label=label, zorder=1)


def fitted_slope(x: Any, y: Any, *, low: float, high: float) -> tuple[float, float]:
    """Exponent p and factor c of y = c·xᵖ, by least squares over the points with low < x < high and y > 1e-12.

    Parameters
    ----------
    x, y : (n,) or (n, tasks) arrays
        With tasks, all share the exponent and each has its own factor; their median is returned.
    low, high : float

    Returns
    -------
    exponent, factor : float
        NaN where fewer than three points qualify, or none shares its task with another: those always fit.
    """
    x, y = (np.asarray(a, dtype=float).reshape(len(a), -1) for a in (x, y))
    keep = np.isfinite(x) & np.isfinite(y) & (x > low) & (x < high) & (y > 1e-12)
    log_x, log_y = (np.where(keep, np.log(np.where(keep, a, 1.0)), np.nan) for a in (x, y))
    used = keep.sum(axis=0) > 1
    if keep[:, used].sum() < 3:
        return float("nan"), float("nan")
    log_x, log_y = log_x[:, used], log_y[:, used]
    from_x, from_y = log_x - np.nanmean(log_x, axis=0), log_y - np.nanmean(log_y, axis=0)
    slope = float(np.nansum(from_x * from_y) / np.nansum(from_x**2))
    return slope, float(np.exp(np.median(np.nanmean(log_y - slope * log_x, axis=0))))


def panel_title(ax: Any, index: int, title: str = "") -> None:
    """Put (a), (b), … at the upper left of the axes and the title at the right."""
    ax.set_title(f"({'abcdefghij'[index]})", loc="left", fontweight="bold")
    ax.set_title(title, loc="right")


def hollow_key(ax: Any, label: str = "hollow: H + λI indefinite") -> None:
    """Explain hollow markers in the legend."""
    ax.plot([], [], linestyle="none", marker="o", color="0.35", markerfacecolor="white", label=label)


def shared_legend(figure: Any, axes: Any, *, columns: int) -> Any:
    """One legend under the panels, each label once."""
    entries: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    return figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns)


def save_figure(figure: Any, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.pdf and `stem`.png, atomically and with the same bytes for the same figure."""
    pdf, png = stem.with_suffix(".pdf"), stem.with_suffix(".png")
    with atomic_target(pdf) as target:
        figure.savefig(target, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    with atomic_target(png) as target:
        figure.savefig(target, format="png", dpi=200, metadata={"Software": None})
    plt.close(figure)
    return pdf, png
