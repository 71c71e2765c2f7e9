"""One call from a labelled data set to a panel: what `sweep` and the scripts of `analysis` return."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from implicit_grad.errors import ArgumentError
from implicit_grad.plot.marks import band, fitted_slope
from implicit_grad.plot.style import FLOOR, Style, styles_of


def plot_errors(
    dataset: Any,
    *,
    ax: Any = None,
    x: str = "inner_steps",
    y: str = "relative_error",
    series: str = "estimator",
    styles: Mapping[str, Style] | None = None,
    hollow: Any = None,
    linestyles: Mapping[str, Any] | None = None,
    markevery: int = 1,
) -> Any:
    """Draw one line a series: the median over tasks with its 10–90 % band, on doubly logarithmic axes.

    Parameters
    ----------
    dataset : xarray.Dataset
        With a variable `y` of dimensions (series, x's dimension, task), in any order; task may be missing.
    ax : matplotlib Axes, optional
        Default: those of a new figure.
    x : str
        Coordinate, or a variable over the same points and tasks, of which the median is taken.
    y, series : str
        Names of a variable and of a dimension.
    styles : mapping, optional
        Label → `Style`; default: `styles_of` the series.
    hollow : (n,) boolean array, optional
        Points drawn hollow.
    linestyles : mapping, optional
        Label → line style, for those that are not solid.
    markevery : int
        Draw every n-th marker.

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    dims = [name for name in dataset[y].dims if name not in (series, "task")]
    if len(dims) != 1:
        raise ArgumentError(
            f"dataset: {y!r} has the axes {dims} beside {series!r} and 'task', and one can be drawn; choose a point "
            f"of the others first, as in dataset.sel(lam=1.0)"
        )
    for label, at, style in each_series(dataset, series, styles):
        where = dataset[x].isel(at, missing_dims="ignore")
        where = where.median("task") if "task" in where.dims else where
        linestyle = (linestyles or {}).get(label, "-")
        band(
            ax, where.values, over_tasks(dataset[y].isel(at), dims[0]), label=label, style=style, hollow=hollow,
            linestyle=linestyle, markevery=markevery,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    return ax


def each_series(
    dataset: Any, series: str | None, styles: Mapping[str, Style] | None, label: str = ""
) -> Iterator[tuple[str, dict[str, int], Style]]:
    """Yield the label, the place and the style of each entry of `series`; the whole as `label` where that is None."""
    labels = [label] if series is None else [str(each) for each in dataset[series].values]
    chosen = {**styles_of(labels), **(styles or {})}
    for i, each in enumerate(labels):
        yield each, {} if series is None else {series: i}, chosen[each]


def over_tasks(values: Any, dim: str) -> Any:
    """Return a variable as `(n, tasks)`, one task where it has no such axis."""
    values = values if "task" in values.dims else values.expand_dims("task")
    return values.transpose(dim, "task").values


def plot_pareto(
    dataset: Any,
    *,
    ax: Any = None,
    cost: str = "cost",
    error: str = "relative_error",
    family: str = "family",
    styles: Mapping[str, Style] | None = None,
    fronts: bool = False,
) -> Any:
    """Draw error over cost, a marker for each setting of each family, and the front that none of them beats.

    Parameters
    ----------
    dataset : xarray.Dataset
        Over a dimension `setting`: `cost`, the family of each, and the error with a further dimension `task`.
    ax : matplotlib Axes, optional
    cost, error, family : str
        Names of the variables.
    styles : mapping, optional
    fronts : bool
        Show only the settings of each family that none of its own beats, joined by a line.

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    families = [str(each) for each in dataset[family].values]
    x = dataset[cost].values.astype(float)
    y = np.maximum(dataset[error].median("task").values, FLOOR)
    chosen = {**styles_of(families), **(styles or {})}
    for name in dict.fromkeys(families):
        mine = np.array([each == name for each in families]) & np.isfinite(y)
        style, where = chosen[name], np.flatnonzero(mine)
        shown = where[pareto_front(x[where], y[where])] if fronts else where
        ax.plot(
            x[shown], y[shown], linestyle="-" if fronts else "none", linewidth=0.6, marker=style.marker,
            color=style.color, label=name, markersize=3,
            markeredgewidth=0.4, markeredgecolor="white", zorder=style.zorder,
        )  # fmt: skip
    front = pareto_front(x, y)
    ax.plot(x[front], y[front], drawstyle="steps-post", color="0.75", linewidth=3, label="Pareto front", zorder=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    return ax


def pareto_front(cost: Any, error: Any) -> Any:
    """Positions of the settings that no other beats in both, by rising cost."""
    order = np.lexsort((error, cost))
    best, front = np.inf, []
    for i in order:
        if error[i] < best:  # NaN is never smaller
            best = error[i]
            front.append(i)
    return np.array(front, dtype=int)


def plot_powers(
    dataset: Any,
    *,
    ax: Any = None,
    x: str,
    y: str,
    series: str,
    styles: Mapping[str, Style] | None = None,
) -> Any:
    """Draw quantities that should be powers of x, each with its fitted exponent in the legend.

    Parameters
    ----------
    dataset : xarray.Dataset
        With a variable `y` of dimensions (series, x), and `task` where there are several.
    ax : matplotlib Axes, optional
    x, y, series : str
        Names of a coordinate, a variable and a dimension.
    styles : mapping, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    where = dataset[x].values.astype(float)
    for label, at, style in each_series(dataset, series, styles):
        values = over_tasks(dataset[y].isel(at), x).astype(float)
        slope, _ = fitted_slope(where, values, low=0, high=np.inf)
        band(ax, where, values, label=f"{label}: {round(slope, 2) + 0.0:.2f}", style=style)
    ax.set_xscale("log")
    ax.set_yscale("log")
    return ax
