"""The implicit Jacobian is as good as the iterate, and Blondel's bound says how good.

Claim. ‖J(φ_K) − J(φ*)‖ ≤ ρλ‖φ_K − φ*‖/μ² for J(φ) = λ(∇²L_train(φ) + λI)⁻¹, so its slope over the iterate's error is
1 and the bound is never crossed. On ridge regression ρ = 0: the implicit Jacobian is exact at any φ, while that of K
unrolled steps is off by ‖(I − αA)^K H A⁻¹‖. On softmax regression the unrolled Jacobian has the larger error at the
same iterate.

Source. Blondel et al. 2022 (arXiv:2105.15183), theorem 1 with α = μ, R = λ, β = 0, γ = ρ, and its figure 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.claims import Claim, at_least, at_most, near
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, silent, solved
from implicit_grad import BilevelProblem, GradientDescent, plot
from implicit_grad.certificates import closed_form_constants
from implicit_grad.tasks import Digits, RandomRidge, TaskSource

STEM = "jacobian_error_vs_iterate_error"
EPS = float(np.finfo(float).eps)
STYLES = {"implicit": plot.Style("#000000", "s"), "unrolled": plot.STYLES["unrolled"]}


@dataclass(frozen=True)
class JacobianStudy:
    """Spectral norm of the error of dφ*/dθ along gradient descent, by dense matrices."""

    source: TaskSource
    lam: float
    steps: tuple[int, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return errors, distances, the bound and the closed form over (step, task)."""
        host(backend)
        problem, theta = draw(self.source, self.lam, self.tasks, self.seed)
        scene = solved(problem, theta)
        run = GradientDescent(None, self.steps[-1], record=True)(problem, theta)
        assert run.path is not None  # record=True
        constants = closed_form_constants(problem)
        assert constants is not None  # least squares and softmax know theirs
        columns = []
        for task in range(self.tasks):
            progress(f"task {task}")
            one = problem.select((task,), (self.tasks,))
            path = run.path.points[:, task]
            columns.append(self._errors(one, path, float(run.path.step_size[task]), scene.optimum.value[task]))
        implicit, unrolled, closed = (np.stack(each, axis=-1) for each in zip(*columns, strict=True))
        delta = np.linalg.norm(run.path.points[list(self.steps)] - scene.optimum.value, axis=-1)
        bound = constants.rho * self.lam * delta / constants.m**2
        return dataset(
            self,
            {
                "jacobian_error": (("estimator", "step", "task"), np.stack([implicit, unrolled])),
                "closed_form": (("step", "task"), closed),
                "bound": (("step", "task"), bound),
                "distance": (("step", "task"), delta),
                "condition": ("task", scene.condition),
            },
            {"estimator": list(STYLES), "step": list(self.steps)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {self.lam:g}, {self.tasks} tasks, "
            f"seed {self.seed}; K from {self.steps[0]} to {self.steps[-1]}; κ(A) at φ* from "
            f"{scene.condition.min():.3g} to "
            f"{scene.condition.max():.3g}",
        )

    def _errors(self, one: BilevelProblem, path: Any, alpha: float, star: Any) -> tuple[Any, Any, Any]:
        identity = np.eye(path.shape[-1])

        def implicit(phi: Any) -> Any:
            return self.lam * np.linalg.inv(one.curvature(phi).dense())

        exact, forward = implicit(star), identity
        contraction = identity - alpha * one.curvature(star).dense()
        found: list[list[float]] = [[], [], []]
        for step in range(self.steps[-1] + 1):
            if step in self.steps:
                predicted = np.linalg.matrix_power(contraction, step) @ (identity - exact)
                for column, matrix in zip(
                    found, (implicit(path[step]) - exact, forward - exact, predicted), strict=True
                ):
                    column.append(float(np.linalg.norm(matrix, 2)))
            # Rows are the columns of J, which the curvature takes as a stack.
            forward = (forward.T - alpha * (one.curvature(path[step])(forward.T) - self.lam * identity)).T
        return tuple(np.array(column) for column in found)  # type: ignore[return-value]


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge and two-way softmax regression, small enough for dense Jacobians."""
    steps = tuple(sorted({round(2 ** (k / 2)) for k in range(13 if quick else 20)}))
    ridge = RandomRidge(dim=20 if quick else 30, train_samples=40, condition=1e3)
    return {
        "ridge": JacobianStudy(ridge, 0.02, steps, 3 if quick else 8, seed),
        "digits": JacobianStudy(Digits(ways=2), 0.1, steps, 2 if quick else 6, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Jacobian error over iterate error."""
    figure, axes = plot.grid(len(tables), height=2.9)
    titles = {"ridge": "ridge: ρ = 0", "digits": "digits 2-way 5-shot, softmax"}
    for column, (name, table) in enumerate(tables.items()):
        ax = axes[0, column]
        plot.plot_errors(table, ax=ax, x="distance", y="jacobian_error", styles=STYLES)
        distance = table.distance.median("task").values
        ax.invert_xaxis()
        if float(table.bound.max()) > 0:
            bound = table.bound.median("task").values
            plot.theory_line(ax, distance, bound, "Blondel's bound ρλδ/μ²")
            middle = len(distance) // 2
            plot.slope_triangle(ax, (float(distance[middle]), 30 * float(bound[middle])), 1, decades=-1)
        else:
            closed = table.closed_form.median("task").values
            plot.theory_line(ax, distance, closed, "closed form ‖(I−αA)ᴷ(I−J*)‖", linestyle="-.")
        plot.floor_line(ax, EPS * float(table.condition.median()), "rounding, eps·κ")
        ax.set_ylim(bottom=4e-18)  # an error of 0 is drawn at 1e-17
        ax.set_xlabel("iterate error δ = ‖φ$_K$ − φ*‖")
        plot.panel_title(ax, column, titles[name])
    axes[0, 0].set_ylabel("Jacobian error ‖J − J*‖₂")
    plot.shared_legend(figure, axes.ravel(), columns=5)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """The bound, the slope, and the closed forms of ridge."""
    found = []
    source = "Blondel et al. 2022, theorem 1"
    for name, table in tables.items():
        implicit, unrolled = (table.jacobian_error.sel(estimator=each) for each in STYLES)
        floor = 1e3 * EPS * table.condition
        if name == "ridge":
            worst = (implicit / (EPS * table.condition)).max()
            found.append(
                at_most("ridge: error of the implicit Jacobian over eps·κ, any φ, largest", worst, 1e3, source)
            )
            ratio = (unrolled / table.closed_form).where(table.closed_form > 1e3 * floor)
            found.append(
                near(
                    "ridge: error of the unrolled Jacobian over ‖(I − αA)^K(I − J*)‖, farthest from 1",
                    1 + abs(ratio - 1).max(),
                    1,
                    1e-3,
                )
            )
            continue
        crossed = (implicit / table.bound).where(implicit > floor).max()
        slope, _ = plot.fitted_slope(
            table.distance.values,
            implicit.values,
            low=1e2 * float(floor.max()),
            high=0.1 * float(table.distance.max()),
        )
        last = unrolled.step.values[-1]
        worse = (unrolled / implicit).sel(step=last).median("task")
        found += [
            at_most(f"{name}: error of the implicit Jacobian over Blondel's bound, largest", crossed, 1, source),
            near(f"{name}: slope of the implicit Jacobian's error over the iterate's", slope, 1, 0.1),
            at_least(f"{name}: unrolled over implicit Jacobian error at K = {last}, median", worse, 1, source),
        ]
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Reference: φ* by Newton, J* by dense "
    "inversion there.",
)
