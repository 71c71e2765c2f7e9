"""How bounds stand to errors, what they consist of, and what it costs to ask for an accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from implicit_grad.plot.datasets import each_series
from implicit_grad.plot.style import SERIES, Style

_SHARES = ("inner", "linear", "rounding")
_COLORS = ("#0072B2", "#E69F00", "#999999")
_DASHES = (0, (4, 2))


def plot_bound_ratios(
    dataset: Any,
    *,
    ax: Any = None,
    error: str = "relative_error",
    bound: str = "relative_bound",
    series: str | None = "estimator",
    label: str = "",
    styles: Mapping[str, Style] | None = None,
    smallest: float = 0.0,
) -> Any:
    """Draw bound over error, over the error: a hollow marker for each estimate. What is below 1 is no bound.

    Parameters
    ----------
    dataset : xarray.Dataset
        With both variables over the same dimensions.
    ax : matplotlib Axes, optional
    error, bound : str
        Names of the variables.
    series : str or None
        Dimension with a style for each entry; None draws all estimates as small dots.
    label : str
        Legend entry where `series` is None.
    styles : mapping, optional
    smallest : float
        Leave out errors below this, where rounding allowances are all that a bound shows.

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    for name, at, style in each_series(dataset, series, styles, label):
        one = dataset.isel(at)
        truth, limit = np.ravel(one[error].values), np.ravel(one[bound].values)
        use = np.isfinite(truth) & np.isfinite(limit) & (truth > smallest)
        look: dict[str, Any] = {"marker": style.marker, "markersize": 3, "fillstyle": "none", "markeredgewidth": 0.4}
        if series is None:
            look = {"marker": ".", "markersize": 2, "zorder": 3}
        ax.plot(
            truth[use], limit[use] / truth[use], linestyle="none", color=style.color, label=name, **look,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    return ax


def plot_shares(
    dataset: Any,
    *,
    ax: Any = None,
    x: str,
    shares: Sequence[str] = _SHARES,
    colors: Sequence[str] = _COLORS,
) -> Any:
    """Draw the fractions of a bound as stacked areas: medians over tasks, scaled to add up to 1.

    Parameters
    ----------
    dataset : xarray.Dataset
        With a variable for each share, over (x's dimension, task).
    ax : matplotlib Axes, optional
    x : str
        Name of the coordinate.
    shares, colors : sequences of str

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    labels = [f"{name} share" for name in shares]
    ax.stackplot(dataset[x].values, share_fractions(dataset, shares), labels=labels, colors=list(colors))
    ax.set_ylim(0, 1)
    return ax


def share_fractions(dataset: Any, shares: Sequence[str] = _SHARES) -> Any:
    """Median fraction of each share of a bound, made to add up to 1: `(shares, n)`."""
    total = sum(dataset[name] for name in shares)
    fractions = np.array([(dataset[name] / total).median("task").values for name in shares])
    return fractions / fractions.sum(axis=0)


def plot_demand(
    dataset: Any,
    *,
    ax: Any = None,
    cost: str = "cost",
    error: str = "error",
    fixed_cost: str = "fixed_cost",
    fixed_error: str = "fixed_error",
    series: str = "lam",
) -> Any:
    """Draw error over cost: asked for (solid), and the best of all fixed budgets of that cost (dashed).

    Parameters
    ----------
    dataset : xarray.Dataset
        `error` and `cost` over (series, any one dimension); `fixed_error` over the series and the dimensions of the
        budgets, `fixed_cost` over those alone.
    ax : matplotlib Axes, optional
    cost, error, fixed_cost, fixed_error, series : str

    Returns
    -------
    matplotlib Axes
    """
    ax = plt.gca() if ax is None else ax
    price = dataset[fixed_cost]
    order = np.argsort(price.values.ravel(), kind="stable")
    for i, value in enumerate(dataset[series].values):
        one, color = dataset.isel({series: i}), SERIES[i % len(SERIES)]
        front = np.minimum.accumulate(one[fixed_error].transpose(*price.dims).values.ravel()[order])
        ax.plot(price.values.ravel()[order], front, color=color, linewidth=0.8, linestyle=_DASHES)
        name = f"λ = {value:g}" if series == "lam" else str(value)
        ax.plot(one[cost], one[error], color=color, marker="osD^v<>"[i % 7], label=name)
    ax.plot([], [], color="0.35", linewidth=0.8, linestyle=_DASHES, label="best fixed budget for each")
    ax.set_xscale("log")
    ax.set_yscale("log")
    return ax
