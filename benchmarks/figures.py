"""Two figures: ratios to the peers, and memory over inner steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.contenders import LIBRARY
from benchmarks.jobs import Plan, Results, Series
from benchmarks.pairing import Row
from benchmarks.report import exponent_text
from implicit_grad import plot
from implicit_grad.plot import Style

PEER_STYLES = {
    "JAX": Style("#0072B2", "o", 3.0),
    "JAX, batch split": Style("#000000", "P", 3.0),
    "JAXopt": Style("#56B4E9", "v"),
    "Optimistix, Lineax": Style("#009E73", "D"),
    "PyTorch": Style("#D55E00", "s"),
    "TorchOpt": Style("#E69F00", "^"),
}
_SPREAD = 0.62
"""Part of a line's height that its peers share."""

_PANELS = (
    ("products", "HVP", "HVP after linearisation"),
    ("products", "gradient", "gradient"),
    ("meta_gradient", "meta-gradient", "meta-gradient by CG-10"),
    ("sweep", "", "canonical sweep"),
)


def draw_figures(plan: Plan, results: Results, folder: Path) -> list[Path]:
    """Draw what the jobs that ran allow, and return the files."""
    files: list[Path] = []
    with plot.house_style():
        if any(row.ratio is not None and row.contender != LIBRARY.name for row in results.rows):
            files += plot.save_figure(performance_peers(results), folder / "performance_peers")
        memory = [series for series in results.series if series.job == "memory" and series.y]
        if memory:
            files += plot.save_figure(memory_vs_inner_steps(memory, plan), folder / "memory_vs_inner_steps")
    return files


def performance_peers(results: Results) -> Any:
    """Time of the library over that of each peer, with the range over rounds; left of 1 the library is faster."""
    panels = [(title, _cases(results, job, quantity)) for job, quantity, title in _PANELS]
    panels = [(title, cases) for title, cases in panels if cases]
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(7.2, 1.0 + 0.3 * sum(len(cases) + 1 for _, cases in panels)),
        layout="constrained",
        sharex=True,
        squeeze=False,
        gridspec_kw={"height_ratios": [len(cases) + 0.4 for _, cases in panels]},
    )
    for index, (ax, (title, cases)) in enumerate(zip(axes[:, 0], panels, strict=True)):
        _ratios(ax, cases)
        plot.panel_title(ax, index, title)
    last = axes[-1, 0]
    last.set_xscale("log")
    ticks = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)
    last.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    last.minorticks_off()
    low, high = _range([row for _, cases in panels for rows in cases.values() for row in rows])
    last.set_xlim(low / 1.4, high * 1.4)
    last.set_xlabel("time of implicit_grad / time of the peer (left of 1: implicit_grad is faster)")
    _legend(figure, axes[:, 0])
    return figure


def _legend(figure: Any, axes: Any) -> None:
    """Every peer once, in one order, whoever was fastest."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    names = [name for name in PEER_STYLES if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside lower center", ncols=len(names))


def _cases(results: Results, job: str, quantity: str) -> dict[str, list[Row]]:
    """Rows of the peers by the name of their line."""
    found: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.job != job or row.ratio is None or row.contender == LIBRARY.name:
            continue
        if quantity and row.quantity == quantity:
            found.setdefault(row.case, []).append(row)
        elif not quantity:
            name = "first call, with compilation" if row.quantity.endswith("first call") else "after compilation"
            found.setdefault(name, []).append(row)
    return found


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return min(0.5, *(each.low for each in ratios)), max(2.0, *(each.high for each in ratios))


def _ratios(ax: Any, cases: dict[str, list[Row]]) -> None:
    """One line a case; its peers a little apart, each with the range over rounds behind the median."""
    ax.axvline(1.0, color="0.2", linewidth=0.9, zorder=1)
    peers = [name for name in PEER_STYLES if any(row.contender == name for rows in cases.values() for row in rows)]
    for line, rows in enumerate(cases.values()):
        for row in rows:
            assert row.ratio is not None
            style = PEER_STYLES[row.contender]
            y = line + _SPREAD * ((peers.index(row.contender) + 0.5) / len(peers) - 0.5)
            ax.plot((row.ratio.low, row.ratio.high), (y, y), color=style.color, linewidth=1, zorder=style.zorder)
            ax.plot(
                row.ratio.median, y, linestyle="none", color=style.color, marker=style.marker, label=row.contender,
                markeredgecolor="white", markeredgewidth=0.4, markersize=4.5, zorder=style.zorder + 0.1,
            )  # fmt: skip
    for line in range(1, len(cases)):
        ax.axhline(line - 0.5, color="0.9", linewidth=0.5, zorder=0)
    ax.set_yticks(range(len(cases)), list(cases))
    ax.set_ylim(len(cases) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


_WINDOW_STYLE = Style("#CC79A7", "P", 3.0)


def memory_vs_inner_steps(series: Sequence[Series], plan: Plan) -> Any:
    """Peak bytes over K, doubly logarithmic, with fitted exponents."""
    figure, ax = plt.subplots(figsize=(4.8, 3.8), layout="constrained")
    for each in series:
        style, linestyle = _memory_style(each.label)
        slope = "" if math.isnan(each.last_exponent) else f": {exponent_text(each.last_exponent)}"
        ax.plot(
            each.x, np.asarray(each.y) / 1e6, color=style.color, marker=style.marker, linestyle=linestyle,
            markerfacecolor="white" if each.label.startswith("JAX") else style.color, markersize=3.5,
            label=each.label + slope, zorder=style.zorder,
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ticks = plan.memory_steps[::2]
    ax.set_xticks(ticks, [str(k) for k in ticks])
    ax.yaxis.set_major_formatter(lambda megabytes, _: f"{megabytes:g}")
    ax.set_xlabel("inner steps K")
    ax.set_ylabel("peak memory of one meta-gradient (MB)")
    ax.set_title(f"{plan.memory.model.label}, {plan.memory.tasks} tasks", loc="right")
    figure.legend(
        loc="outside lower center", ncols=2, title="with the fitted exponent of K, upper half", title_fontsize=7
    )
    return figure


def _memory_style(label: str) -> tuple[Style, Any]:
    line = ":" if label.startswith("JAX") else "-"
    if "implicit" in label:
        return Style("#0072B2", "D"), line
    if label.startswith("unrolled, last"):  # dashed: where the whole path is recorded it lies on the full one
        return _WINDOW_STYLE, (0, (2, 2))
    if "unrolled" in label:
        return plot.STYLES["unrolled"], line
    return Style("#009E73", "^"), line
