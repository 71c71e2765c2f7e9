"""What stands in a panel: medians with bands, bounds, floors, slope triangles, and the slopes themselves."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from implicit_grad.plot.style import FLOOR, Style, style_of


def geometric_quantiles(values: Any, quantiles: tuple[float, ...]) -> Any:
    """Quantiles over the last axis, interpolated on a logarithmic scale: `(len(quantiles), n)`.

    NaN are left out; where all are NaN, so is the quantile. Between two order statistics a < b the result is
    a·(b/a)^t, so that the quantiles of 1/x are those of x turned around.
    """
    ordered = np.sort(np.asarray(values, dtype=float), axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(axis=-1)
    found = []
    for q in quantiles:
        place = q * np.maximum(count - 1, 0)
        # 0.1·100 is a little more than 10: that order statistic is meant, not one beside it.
        place = np.where(np.abs(place - np.rint(place)) < 1e-9, np.rint(place), place)
        below, above = (
            np.take_along_axis(ordered, end(place).astype(int)[..., None], axis=-1)[..., 0]
            for end in (np.floor, np.ceil)
        )
        share = place - np.floor(place)
        with np.errstate(invalid="ignore", divide="ignore"):
            between = np.where(share > 0, below * (above / below) ** share, below)
        found.append(np.where(count > 0, between, np.nan))
    return np.stack(found)


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
    """Draw the median over tasks with its 10–90 % band, both as geometric quantiles.

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
        low[shown], middle[shown], high[shown] = geometric_quantiles(values[shown], (0.1, 0.5, 0.9))
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


def slope_triangle(ax: Any, corner: tuple[float, float], exponent: float, *, decades: float = 1.0) -> Any:
    """Draw a right triangle whose hypotenuse has the given slope on doubly logarithmic axes, with the exponent on it.

    Parameters
    ----------
    ax : matplotlib Axes
        With two logarithmic axes.
    corner : tuple of float
        Where the hypotenuse starts, in data coordinates.
    exponent : float
    decades : float
        Width; negative ones lead to smaller x. On an axis that is to run backwards, turn it before.
    """
    x, y = corner
    x_end = x * 10.0**decades
    y_end = y * 10.0 ** (decades * exponent)
    (line,) = ax.plot([x, x_end, x_end, x], [y, y, y_end, y], color="0.3", linewidth=0.8, zorder=1.5)
    right = (decades > 0) != ax.xaxis_inverted()
    ax.annotate(
        f"{exponent:g}".replace("-", "−"), (x_end, float(np.sqrt(y * y_end))), textcoords="offset points",
        xytext=(3 if right else -3, 0), ha="left" if right else "right", va="center",
        fontsize=plt.rcParams["legend.fontsize"], color="0.3",
    )  # fmt: skip
    return line


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
