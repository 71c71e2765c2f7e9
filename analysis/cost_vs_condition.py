"""Table 1's scalings, measured: what a meta-gradient of a given accuracy costs as κ grows, and as the error falls.

Claim. Gradient descent takes a number of steps proportional to κ, Nesterov's method and conjugate gradients to √κ,
and every further digit costs as many steps as the last: κ·ln 10 by gradient descent, ½√κ·ln 10 by conjugate
gradients, at most. Unrolling keeps every iterate, so that its memory grows like its steps; a truncated pass to an
error ε keeps κ·ln 1/ε of them, the implicit gradient none: its memory does not depend on κ.

Source. Rajeswaran et al. 2019 (arXiv:1909.04630), table 1. Its last column is no common error: rows of MAML refer to
the gradient at the iterate that was found, iMAML's to that at φ*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.claims import Claim, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Scene, Study, dataset, draw, host, median_slope, silent, solved
from implicit_grad import (
    CG,
    BilevelProblem,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    Nesterov,
    Neumann,
    Solution,
    UnrolledGradient,
    plot,
    storage,
)
from implicit_grad.tasks import RandomRidge
from implicit_grad.tasks.spectrum import Arithmetic

STEM = "cost_vs_condition"
DESCENT, FAST, LINEAR, WINDOW = "gradient descent", "Nesterov", "CG, products", "truncated pass, window"
STYLES = {
    DESCENT: plot.STYLES["unrolled"],
    FAST: plot.Style("#D55E00", "X"),
    LINEAR: plot.Style("#0072B2", "D"),
    WINDOW: plot.Style("#009E73", "^"),
    "unrolled": plot.STYLES["unrolled"],
    "unrolled, truncated": plot.Style("#009E73", "^"),
    "implicit, CG": plot.Style("#0072B2", "D"),
}
MEMORY = ("unrolled", "unrolled, truncated", "implicit, CG")
STEPS = (DESCENT, FAST, LINEAR, WINDOW)
_NEEDED = ((DESCENT, -1), (LINEAR, -1), (WINDOW, 0))
POWERS = {DESCENT: 1.0, FAST: 0.5, LINEAR: 0.5, WINDOW: 1.0}
"""Table 1's exponents of κ."""

FIXED, COARSE = 1e-6, 1e-2
"""The error δ while κ varies, and ε, that of the truncated pass whose memory is measured."""


@dataclass(frozen=True)
class Tail:
    """Gradient descent that remembers its last steps alone: unrolled, they are the truncated gradient."""

    step_size: float
    steps: int
    window: int

    def __call__(self, problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
        """Run from `start`, and on from there with a record."""
        before = GradientDescent(self.step_size, self.steps - self.window)(problem, theta, start=start)
        return GradientDescent(self.step_size, self.window, record=True)(problem, theta, start=before.value)


@dataclass(frozen=True)
class ConditionStudy:
    """Steps to a relative error, for ridge problems with evenly spread eigenvalues of A and largest curvature 1."""

    conditions: tuple[float, ...]
    errors: tuple[float, ...]
    dim: int
    tasks: int
    seed: int
    memory: bool = True

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `steps` over (solver, condition, error, task), and `peak_bytes` over (estimator, condition)."""
        host(backend)
        shape = (len(STEPS), len(self.conditions), len(self.errors), self.tasks)
        steps, peaks = np.full(shape, np.nan), np.full((len(MEMORY), len(self.conditions)), np.nan)
        for i, condition in enumerate(self.conditions):
            progress(f"κ = {condition:.3g}")
            scene = self._scene(condition)
            steps[:, i] = self._steps(scene, condition)
            if self.memory:
                peaks[:, i] = self._peaks(scene, np.nanmedian(steps[:, i], axis=-1))
        return dataset(
            self,
            {
                "steps": (("solver", "condition", "error", "task"), steps),
                "peak_bytes": (("estimator", "condition"), peaks),
            },
            {
                "solver": list(STEPS),
                "estimator": list(MEMORY),
                "condition": list(self.conditions),
                "error": list(self.errors),
            },
            ran=f"ridge, evenly spread eigenvalues; d = {self.dim}, {self.tasks} tasks, seed {self.seed}; κ(A) = "
            f"{', '.join(f'{x:.3g}' for x in self.conditions)}; relative errors "
            f"{', '.join(f'{x:.0e}' for x in self.errors)}",
        )

    def _scene(self, condition: float) -> Scene:
        """Eigenvalues of H from 1 to λ, so that those of A are from 1 + λ to 2λ and κ(A) is the one asked for."""
        lam = 1 / (2 * condition - 1)
        source = RandomRidge(self.dim, self.dim + 10, self.dim + 10, 1 / lam, spectrum=Arithmetic())
        return solved(*draw(source, lam, self.tasks, self.seed))

    def _steps(self, scene: Scene, condition: float) -> Any:
        most = int(1.5 * condition * np.log(1 / min(self.errors))) + 50
        momentum = float((np.sqrt(condition) - 1) / (np.sqrt(condition) + 1))
        most_fast = int(4 * np.sqrt(condition) * np.log(1 / min(self.errors))) + 50
        found = [
            self._until(scene, most, lambda k: GradientDescent(None, k, record=True)),
            self._until(scene, most_fast, lambda k: Nesterov(None, k, momentum=momentum, record=True)),
        ]
        path = ImplicitGradient(CG(self.dim, record=True))(scene.problem, scene.theta, scene.optimum).path
        assert path is not None  # record=True
        found.append(self._first(scene.error(path.points)))
        # Near φ* a window is as many terms of the Neumann series.
        series = ImplicitGradient(Neumann(None, most, record=True))
        path = series(scene.problem, scene.theta, scene.optimum).path
        assert path is not None  # record=True
        found.append(self._first(scene.error(path.points)))
        return np.stack(found)

    def _until(self, scene: Scene, most: int, solver: Any) -> Any:
        run = solver(most)(scene.problem, scene.theta)
        return self._first(np.stack([scene.distance(point) for point in run.path.points]))

    def _first(self, errors: Any) -> Any:
        """First step from which on the error stays below each goal: `(errors, tasks)`; NaN where it never does."""
        rows = []
        for goal in self.errors:
            above = errors > goal
            last = np.where(above.any(axis=0), len(above) - np.argmax(above[::-1], axis=0), 0)
            rows.append(np.where(above[-1], np.nan, last))
        return np.stack(rows)

    def _peaks(self, scene: Scene, steps: Any) -> Any:
        """Peak bytes at as many steps as the accuracy takes."""
        inner, linear, window = (int(steps[STEPS.index(solver), i]) for solver, i in _NEEDED)
        alpha = float(1 / scene.largest.max())  # given, since to find it takes memory of its own
        methods = (
            MetaGradient(GradientDescent(alpha, inner, record=True), UnrolledGradient()),
            MetaGradient(Tail(alpha, inner, min(window, inner)), UnrolledGradient()),
            MetaGradient(GradientDescent(alpha, inner), ImplicitGradient(CG(linear))),
        )
        measured = (replace(method, measure_memory=True) for method in methods)
        return [method(scene.problem, scene.theta).cost.peak_bytes for method in measured]


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """κ at one error, and errors at one κ."""
    dim, tasks = (100, 2) if quick else (300, 3)
    conditions = tuple(np.geomspace(4, 32 if quick else 256, 4 if quick else 7).tolist())
    errors = tuple(np.logspace(-2, -10, 5 if quick else 9).tolist())
    return {
        "condition": ConditionStudy(conditions, (COARSE, FIXED), dim, tasks, seed),
        "accuracy": ConditionStudy((32.0 if quick else 100.0,), errors, dim, tasks, seed, memory=False),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Steps over κ, steps over log 1/δ, memory over κ; the legends say the fitted exponents."""
    figure, axes = plot.grid(3, height=2.6)
    first, second, third = axes[0]
    over_condition, digits = tables["condition"].isel(error=-1), _further_digits(tables["accuracy"])
    plot.plot_powers(over_condition, ax=first, x="condition", y="steps", series="solver", styles=STYLES)
    plot.plot_errors(digits, ax=second, x="digits", y="further", series="solver", styles=STYLES)
    second.set_xscale("linear")
    for rate in _rates(tables["accuracy"]).values():
        plot.floor_line(second, rate, "κ ln 10 and ½√κ ln 10")
    memory = over_condition.assign(megabytes=over_condition.peak_bytes / 1e6)
    plot.plot_powers(memory, ax=third, x="condition", y="megabytes", series="estimator", styles=STYLES)
    condition = float(tables["accuracy"].condition[0])
    titles = ("δ = 10⁻⁶", f"κ = {condition:g}", "δ = 10⁻⁶, ε = 10⁻²")
    for column, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
        plot.panel_title(ax, column, title)
        if ax is second:
            continue
        ax.set_xlabel("κ(A)")
        ax.set_ylim(top=ax.get_ylim()[1] * 30)
        ax.legend(loc="upper left", title="fitted exponent", alignment="left", borderaxespad=0.2)
        ax.minorticks_off()
        plot.plain_numbers(ax.xaxis)
    handles = [line for line in second.lines if line.get_label().startswith("κ")]
    second.legend(handles=handles[:1], loc="upper left", borderaxespad=0.2)
    second.set_ylim(top=second.get_ylim()[1] * 3)
    second.set_xlabel("digits, log$_{10}$ 1/δ")
    second.set_ylabel("steps for a further digit")
    first.set_ylabel("steps")
    third.set_ylabel("peak of new memory (MB)")
    return figure


def _further_digits(table: Any) -> Any:
    """Steps from each error to the next, for a tenth of it, over −log₁₀ of the smaller."""
    digits = -np.log10(table.error.values)
    steps = table.steps.isel(condition=0).transpose("solver", "error", "task").values
    further = np.diff(steps, axis=1) / np.diff(digits)[:, None]
    over = ("solver", "digits", "task")
    return storage.xarray().Dataset({"further": (over, further)}, {"solver": table.solver, "digits": digits[1:]})


def _rates(table: Any) -> dict[str, float]:
    """Steps a digit that the rates 1 − 1/κ and (√κ − 1)/(√κ + 1) stand for, where κ is large."""
    condition = float(table.condition[0])
    return {DESCENT: condition * np.log(10), LINEAR: np.sqrt(condition) / 2 * np.log(10)}


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The exponents of Table 1."""
    source = "Rajeswaran et al. 2019, table 1"
    over_condition = tables["condition"].isel(error=-1)
    kappa = np.log(over_condition.condition.values)
    found = []
    for solver, wanted in POWERS.items():
        steps = np.log(over_condition.steps.sel(solver=solver).transpose("condition", "task").values)
        slope = median_slope(kappa, steps)
        found.append(near(f"exponent of κ in the steps of {solver}", slope, wanted, 0.1, source))
    further = _further_digits(tables["accuracy"]).further.median("task")
    for solver in POWERS:
        late, middle = further.sel(solver=solver).values[[-1, further.sizes["digits"] // 2]]
        name = f"steps of {solver} for the last digit over those for one in the middle"
        found.append(near(name, late / middle, 1, 0.2, source))
    for solver, rate in _rates(tables["accuracy"]).items():
        late = further.sel(solver=solver).values[-1]
        found.append(at_most(f"steps of {solver} for a digit over those of its rate", late / rate, 1.05))
    peaks = over_condition.peak_bytes
    for estimator in MEMORY[:2]:
        upper = np.log(peaks.sel(estimator=estimator).values)[-4:]
        slope = median_slope(kappa[-4:], upper)
        found.append(near(f"exponent of κ in the memory, {estimator}, largest κ", slope, 1, 0.15, source))
    flat = peaks.sel(estimator=MEMORY[2])
    found.append(
        at_most("memory of the implicit gradient, largest κ over smallest", flat[-1] / flat[0], 1.05, source)
    )
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. A step of CG or of the truncated pass is "
    "one Hessian-vector product, any other one gradient;\nerrors: ‖φ − φ*‖/‖θ − φ*‖ of the inner solvers, "
    "‖g − g*‖/‖g*‖ at φ* of CG and the truncated pass.",
)
