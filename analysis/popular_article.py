"""What the formulas of a popular article on iMAML cost when they are taken at their word.

Claim. With the train loss on the right-hand side, as in the article's last two formulas, the gradient is wrong at
every λ: at φ* that vector is A⁻¹λ²(θ − φ*), which has nothing of the test data in it. Five conjugate gradient steps
reach 1 % only where λ makes κ(A) small; how many a digit takes is a matter of √κ and of the spectrum. With one λ a
parameter the order of the factors matters. One inner step is not ten. The plain objective, unrolled, does not tend to
the implicit gradient. After ten inner steps the forces ∇L and λ(φ − θ) do not balance. All of it varies with λ, and
each number here is a curve, not a point.

Source. The popular article's formulas and statements, in our words; Rajeswaran et al. 2019 (arXiv:1909.04630) for
what is right.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.linalg import cg as textbook_cg

from analysis import article_statements
from analysis.claims import Claim
from analysis.figure import Figure
from analysis.statements import Statement
from analysis.study import Progress, Scene, Study, dataset, draw, hessian, host, silent, solved
from implicit_grad import (
    CG,
    EXACT,
    BilevelProblem,
    DiagonalQuadratic,
    GradientDescent,
    ImplicitGradient,
    RegularizedProblem,
    UnrolledGradient,
    plot,
)
from implicit_grad.backend import norm
from implicit_grad.tasks import Digits, RandomRidge, Sinusoid, TaskSource

STEM = "popular_article"
FEW, INNER_STEPS, LONG, LONGEST = 5, 10, 256, 100
GOAL = 1e-6
TRAIN, FIVE, ORDER = "train loss on the right", "five CG steps", "one λ a parameter, factors swapped"
SINGLE, PLAIN, FORCES = "one inner step for ten", "plain objective, unrolled", "forces after ten steps, ‖∇G‖/λ‖φ − θ‖"
STYLES = {
    TRAIN: plot.Style("#009E73", "^"),
    FIVE: plot.Style("#000000", "o"),
    ORDER: plot.Style("#0072B2", "D"),
    SINGLE: plot.Style("#E69F00", "s"),
    PLAIN: plot.Style("#D55E00", "X"),
    FORCES: plot.Style("#CC79A7", "P"),
}


@dataclass(frozen=True)
class FormulaStudy:
    """The relative error that each of the article's formulas makes, over λ."""

    source: TaskSource
    lams: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` over (estimator, lam, task), and what the statements need besides."""
        host(backend)
        progress("reference")
        problem, theta = draw(self.source, np.array(self.lams)[:, None], self.tasks, self.seed)
        scene = solved(problem, theta, start=GradientDescent(None, LONG)(problem, theta).value)
        progress("formulas at φ*")
        phi, lam = scene.optimum.value, np.array(self.lams)[:, None]
        H = hessian(problem, problem.inner, phi)
        swapped = _solve(H / lam[..., None, None] + np.eye(H.shape[-1]), problem.inner.gradient(phi))
        estimate = ImplicitGradient(CG(LONGEST, record=True), require_minimum=False)(problem, theta, scene.optimum)
        assert estimate.path is not None  # record=True
        steps = scene.error(estimate.path.points)
        progress("inner runs")
        near = GradientDescent(None, INNER_STEPS)(problem, theta)
        balance = norm(problem.stationarity(near.value, theta)) / (lam * norm(near.value - theta))
        one, ten, plain, shrunk = self._unrolled(problem, theta)
        progress("one λ a parameter")
        errors = {
            TRAIN: scene.error(swapped),
            FIVE: steps[FEW],
            ORDER: self._order(problem, theta, scene),
            SINGLE: norm(one - ten) / norm(ten),
            PLAIN: scene.error(plain),
            FORCES: balance,
        }
        # Where there is no reference, there is no statement about the problem either.
        known = np.isfinite(scene.gradient[..., 0])
        reached = np.where((steps <= GOAL).any(axis=0), (steps <= GOAL).argmax(axis=0), np.nan)
        lowest = np.linalg.eigvalsh(hessian(problem, problem.inner, np.broadcast_to(theta, phi.shape)))[..., 0]
        over = ("lam", "task")
        return dataset(
            self,
            {
                "relative_error": (("estimator", *over), np.where(known, np.stack(list(errors.values())), np.nan)),
                "cosine": (over, _cosine(swapped, scene.gradient)),
                "steps_to_goal": (over, np.where(known, reached, np.nan)),
                "shrunk": (over, shrunk),
                "bends_down": (over, (lowest + lam <= 0).astype(float)),
                "condition": (over, scene.condition),
            },
            {"estimator": list(errors), "lam": list(self.lams)},
            ran=f"{self.source.label}; d = {self.source.size}, λ = {', '.join(f'{x:.3g}' for x in self.lams)}; "
            f"{self.tasks} tasks, seed {self.seed}; plain runs of {LONG} steps; κ(A) at φ* from "
            f"{np.nanmin(scene.condition):.3g} to {np.nanmax(scene.condition):.3g}; without φ*: "
            f"{int((~known).sum())} of {known.size}",
        )

    def _unrolled(self, problem: BilevelProblem, theta: Any) -> tuple[Any, Any, Any, Any]:
        """Unrolled plain gradients after 1, 10 and many steps, and ‖J ᵀv‖/‖v‖ after many."""
        found = []
        for steps in (1, INNER_STEPS, LONG):
            run = GradientDescent(None, steps, record=True, proximal=False)(problem, theta)
            found.append(UnrolledGradient()(problem, theta, run).gradient)
        return found[0], found[1], found[2], norm(found[2]) / norm(problem.outer.gradient(run.value))

    def _order(self, problem: BilevelProblem, theta: Any, scene: Scene) -> Any:
        """‖(I + Λ⁻¹H)⁻¹v − Λ(H + Λ)⁻¹v‖ over the right one, at the φ* of Λ; Λ is λ times 0.1 to 10."""
        spread = np.random.default_rng(self.seed).permutation(np.logspace(-1, 1, theta.shape[-1]))
        weights = np.asarray(problem.lam)[..., None] * spread
        white, root = RegularizedProblem(problem.inner, problem.outer, DiagonalQuadratic(weights)).whitened()
        optimum = EXACT.inner_solver(white, root * theta, start=root * scene.optimum.value)
        phi = optimum.value / root
        H, v = hessian(problem, problem.inner, phi), problem.outer.gradient(phi)
        right = weights * _solve(H + weights[..., None] * np.eye(phi.shape[-1]), v)
        naive = _solve(np.eye(phi.shape[-1]) + H / weights[..., None], v)
        return np.where(np.asarray(optimum.ok), norm(naive - right) / norm(right), np.nan)


@dataclass(frozen=True)
class SaddleStudy:
    """SciPy's conjugate gradient at exact saddles, L = ½φᵀSφ − cᵀφ with eigenvalues of S from −1 to 1."""

    dim: int
    lams: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return over (lam, task): its verdict, its residual, and the smallest eigenvalue of S + λI."""
        host(backend)
        rng = np.random.default_rng(self.seed)
        accepted, residual, smallest = (np.empty((len(self.lams), self.tasks)) for _ in range(3))
        for task in range(self.tasks):
            Q = np.linalg.qr(rng.normal(size=(self.dim, self.dim)))[0]
            S, v = (Q * np.linspace(-1, 1, self.dim)) @ Q.T, rng.normal(size=self.dim)
            for i, lam in enumerate(self.lams):
                A = S + lam * np.eye(self.dim)
                g, info = textbook_cg(A, lam * v, rtol=1e-10, maxiter=10 * self.dim)
                accepted[i, task] = info == 0
                residual[i, task] = np.linalg.norm(A @ g - lam * v) / np.linalg.norm(lam * v)
                smallest[i, task] = np.linalg.eigvalsh(A)[0]
        over = ("lam", "task")
        return dataset(
            self,
            {"accepted": (over, accepted), "residual": (over, residual), "smallest": (over, smallest)},
            {"lam": list(self.lams)},
            ran=f"quadratics with eigenvalues from −1 to 1; d = {self.dim}, λ = "
            f"{', '.join(f'{x:g}' for x in self.lams)}; {self.tasks} tasks, seed {self.seed}; "
            "scipy.sparse.linalg.cg with rtol = 1e-10",
        )


@dataclass(frozen=True)
class LimitStudy:
    """Both ways to write the gradient while λ goes to 0, on a ridge problem."""

    source: RandomRidge
    lams: tuple[float, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return over (lam, task): ‖g‖/‖v‖ by λ(H + λI)⁻¹v, and whether I + H/λ is finite."""
        host(backend)
        problem, theta = draw(self.source, 1.0, self.tasks, self.seed)
        H = hessian(problem, problem.inner, np.broadcast_to(theta, (self.tasks, theta.shape[-1])))
        v = problem.outer.gradient(theta)
        size, finite = (np.empty((len(self.lams), self.tasks)) for _ in range(2))
        for i, lam in enumerate(self.lams):
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                finite[i] = np.isfinite(np.eye(H.shape[-1]) + H / np.float64(lam)).all(axis=(-2, -1))
            size[i] = norm(lam * _solve(H + lam * np.eye(H.shape[-1]), v)) / norm(v)
        over = ("lam", "task")
        return dataset(
            self,
            {"size": (over, size), "finite": (over, finite)},
            {"lam": list(self.lams)},
            ran=f"{self.source.label}; at θ, λ = {', '.join(f'{x:g}' for x in self.lams)}; {self.tasks} tasks, "
            f"seed {self.seed}",
        )


def _solve(A: Any, b: Any) -> Any:
    return np.linalg.solve(A, b[..., None])[..., 0]


def _cosine(x: Any, y: Any) -> Any:
    return np.sum(x * y, axis=-1) / (norm(x) * norm(y))


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """Ridge, softmax regression and a small network over λ; saddles; λ → 0."""
    count = 4 if quick else 7
    wide, narrow = (tuple(np.logspace(first, last, count).tolist()) for first, last in ((-3, 3), (0, 3)))
    ridge = RandomRidge(50, 60, 60, 1e4)
    return {
        "ridge": FormulaStudy(ridge, wide, 3 if quick else 12, seed),
        "digits": FormulaStudy(Digits(), wide, 2 if quick else 6, seed),
        "sinusoid": FormulaStudy(Sinusoid(hidden=(10, 10)), narrow, 3 if quick else 12, seed),
        "saddle": SaddleStudy(20, (0.02, 0.1, 0.3, 0.7), 3 if quick else 20, seed),
        "limit": LimitStudy(ridge, (1e-2, 1e-4, 1e-6, 1e-7, 1e-8, 1e-310, 0.0), 3 if quick else 12, seed),
    }


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Relative error of six readings of the article over λ, one panel a problem."""
    titles = {"ridge": "ridge, d = 50", "digits": "digits, softmax", "sinusoid": "sinusoid, MLP 1-10-10-1"}
    figure, axes = plot.grid(len(titles))
    for column, (name, title) in enumerate(titles.items()):
        ax = axes[0, column]
        plot.plot_errors(tables[name], ax=ax, x="lam", styles=STYLES)
        ax.axhline(0.01, color="0.6", linewidth=0.7, zorder=1)
        ax.annotate("1 %", (1.0, 0.01), xycoords=("axes fraction", "data"), xytext=(2, 0), textcoords="offset points",
                    va="center", color="0.4")  # fmt: skip
        ax.set_ylim(1e-8, 1e3)
        ax.set_xlabel("λ")
        plot.panel_title(ax, column, title)
    axes[0, 0].set_ylabel("relative error")
    plot.shared_legend(figure, axes.ravel(), columns=3)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """What refutes each statement."""
    return article_statements.claims(tables)


def statements(tables: Mapping[str, Any]) -> list[Statement]:
    """Each statement with its measured effect."""
    return article_statements.statements(tables)


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    statements=statements,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles. Errors are relative to the exact gradient "
    "at φ*, but for one inner step (to the gradient of ten) and the forces (to λ‖φ − θ‖). There is no point where no "
    "minimum was found.",
)
