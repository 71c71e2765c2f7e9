"""Implicit differentiation does not remember how φ was found: memory is flat in inner and in linear steps.

Claim. The unrolled gradient keeps one iterate for each inner step, so that its memory grows with slope 1, and it goes
back through every step, so that each costs about three times what it costs implicit differentiation. The implicit
gradient's memory depends neither on the number of inner steps nor on that of conjugate gradient steps. Checkpointing
buys the unrolled gradient memory √K for one more pass.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), figure 2b and 2c (there 20-way 5-shot Omniglot with a convolutional
network on a GPU; here fully connected networks on a CPU); Griewank and Walther 2000 for checkpointing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.panels import OMNIGLOT, omniglot
from analysis.study import Progress, Study, dataset, draw, host, silent
from implicit_grad import (
    CG,
    CheckpointedGradient,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    UnrolledGradient,
    plot,
)
from implicit_grad.tasks import Sinusoid, TaskSource

STEM = "time_memory_vs_inner_steps"
FEW, MANY = 5, 20
STYLES = {
    "implicit, CG-5": plot.Style("#0072B2", "D", 3.0),
    "implicit, CG-20": plot.Style("#56B4E9", "v", 3.5),
    "unrolled": plot.STYLES["unrolled"],
    "unrolled, checkpointed": plot.Style("#009E73", "^"),
}
SHORT, LONG, UNROLLED, CHECKPOINTED = STYLES
DASHED = {LONG: (0, (2, 2))}
"""Where memory is flat both implicit lines are one."""


@dataclass(frozen=True)
class ResourceStudy:
    """Seconds and peak bytes of one meta-gradient, inner solve included; the cells run one after the other."""

    alone: ClassVar[bool] = True
    source: TaskSource
    lam: float
    step_size: float
    steps: tuple[int, ...]
    repeats: int
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `seconds` over (estimator, inner_steps, task), where tasks are repeats, and `peak_bytes`."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        peaks = np.zeros((len(STYLES), len(self.steps)))
        seconds = np.zeros((*peaks.shape, self.repeats))
        for column, steps in enumerate(self.steps):
            progress(f"K = {steps}")
            methods = self._methods(steps)
            for row, method in enumerate(methods):
                measured = MetaGradient(method.inner_solver, method.estimator, measure_memory=True)
                peaks[row, column] = measured(problem, theta).cost.peak_bytes
            for repeat in range(self.repeats):  # in turn: a disturbance meets all of them
                for row, method in enumerate(methods):
                    began = time.perf_counter()
                    method(problem, theta)
                    seconds[row, column, repeat] = time.perf_counter() - began
        over = ("estimator", "inner_steps")
        return dataset(
            self,
            {"seconds": ((*over, "task"), seconds), "peak_bytes": (over, peaks)},
            {"estimator": list(STYLES), "inner_steps": list(self.steps)},
            ran=f"{self.source.label}, network; d = {self.source.size}, {self.tasks} task(s) at once, "
            f"λ = {self.lam:g}, α = {self.step_size:g}, seed {self.seed}; K = {', '.join(map(str, self.steps))}; "
            f"{self.repeats} repeats",
            iterate_bytes=theta.nbytes,
        )

    def _methods(self, steps: int) -> tuple[MetaGradient, ...]:
        inner = GradientDescent(self.step_size, steps)
        few, many = (ImplicitGradient(CG(k), require_minimum=False) for k in (FEW, MANY))
        whole = MetaGradient(GradientDescent(self.step_size, steps, record=True), UnrolledGradient())
        return MetaGradient(inner, few), MetaGradient(inner, many), whole, MetaGradient(inner, CheckpointedGradient())


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """A small network on sine waves, and 20-way 5-shot Omniglot where its files are."""
    steps = tuple(2**k for k in range(7 if quick else 10))
    found: dict[str, Study] = {
        "sinusoid": ResourceStudy(Sinusoid(), 10.0, 0.03, steps, 3 if quick else 7, 4, seed),
    }
    for source in omniglot(ways=20, shots=5, hidden=(64,)):
        found[OMNIGLOT] = ResourceStudy(source, 2.0, 0.1, steps[: 5 if quick else 8], 3 if quick else 5, 1, seed)
    return found


TITLES = {"sinusoid": "sinusoid, MLP 1-40-40-1", OMNIGLOT: "Omniglot 20-way 5-shot, MLP 784-64-20"}


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Time (top) and memory (bottom) over the number of inner steps."""
    figure, axes = plot.grid(len(tables), 2, height=4.2)
    for column, (name, table) in enumerate(tables.items()):
        top, bottom = axes[:, column]
        table = table.assign(ms=1e3 * table.seconds.min("task"), megabytes=table.peak_bytes / 1e6)
        plot.plot_errors(table, ax=top, y="ms", styles=STYLES, linestyles=DASHED)
        plot.plot_errors(table, ax=bottom, y="megabytes", styles=STYLES, linestyles=DASHED)
        steps, last = table.inner_steps.values, table.megabytes.sel(estimator=UNROLLED).values
        plot.slope_triangle(bottom, (float(steps[-3]), float(last[-3]) / 1.6), 1, decades=0.5)
        for ax in (top, bottom):
            ax.set_xscale("log", base=2)
            ax.set_xticks(steps[::2], [str(k) for k in steps[::2]])
            ax.minorticks_off()
            plot.plain_numbers(ax.yaxis)
        bottom.set_xlabel("inner gradient steps K")
        plot.panel_title(top, column, TITLES[name])
        plot.panel_title(bottom, column + len(tables))
    axes[0, 0].set_ylabel("time of one meta-gradient (ms)")
    axes[1, 0].set_ylabel("peak of new memory (MB)")
    plot.shared_legend(figure, axes.ravel(), columns=4)
    return figure


def _per_step(values: Any) -> float:
    """What a further inner step adds, between the middle and the end."""
    steps = values.inner_steps.values
    middle = len(steps) // 2
    return float(values[-1] - values[middle]) / float(steps[-1] - steps[middle])


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Flat, and one iterate a step; times, by the quickest repeat, only as far as they are no accident."""
    found, source = [], "Rajeswaran et al. 2019, figure 2b, c"
    for name, table in tables.items():
        memory = {label: table.peak_bytes.sel(estimator=label) for label in STYLES}
        least = {label: table.seconds.sel(estimator=label).min("task") for label in STYLES}
        each = _per_step(memory[UNROLLED]) / table.attrs["iterate_bytes"]
        flat = memory[SHORT][-1] / memory[SHORT][0]
        linear = (memory[LONG] / memory[SHORT]).max()
        slower = _per_step(least[UNROLLED]) / _per_step(least[SHORT])
        solve = float((least[LONG] - least[SHORT]).median()) / (MANY - FEW) / _per_step(least[UNROLLED])
        saved = (memory[UNROLLED] / memory[CHECKPOINTED])[-1]
        found += [
            near(f"{name}: iterates that the unrolled gradient keeps for each inner step", each, 1, 0.05, source),
            at_most(f"{name}: memory of the implicit gradient, most inner steps over one", flat, 1.02, source),
            at_most(
                f"{name}: memory of the implicit gradient, CG-{MANY} over CG-{FEW}, largest", linear, 1.02, source
            ),
            at_least(f"{name}: time of a further inner step, unrolled over implicit", slower, 1.5, source),
            at_most(
                f"{name}: time of a CG step over that of an inner step of the unrolled gradient", solve, 1, source
            ),
            at_least(f"{name}: memory of the unrolled gradient over the checkpointed one, most steps", saved, 1.5),
        ]
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    optional=(OMNIGLOT,),
    reading="Times are of the machine that drew this, by the quickest of the repeats; nothing else should run. "
    "Memory is the peak of newly allocated bytes,\nin a run of its own. All take the same steps, whether they lead "
    "to φ* or not.",
)
