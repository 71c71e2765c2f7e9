"""Rounding costs eps·κ, and a float64 residual buys float64's digits from a float32 solver.

Claim. With everything solved to convergence, the relative error of a meta-gradient is at most a small multiple of
eps·κ(A), as long as that is well below 1. Solving in float32 and refining with residuals in float64 is nearly as good
as float64 itself until κ·eps₃₂ ≈ 1; beyond that it refuses. The status says what the digits are worth: a solve whose
recomputed residual does not meet what its precision allows is not called a success (hollow), and none that is has an
error above 1 %.

Source. Higham 2002, chapters 7 and 12; Carson and Higham 2018 for refinement in several precisions. The reference is
exact: the data are floating-point numbers, so φ* and ∇F are rational, and are computed as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from analysis.claims import Claim, at_most
from analysis.figure import Figure
from analysis.study import Progress, Study, dataset, draw, host, silent
from implicit_grad import (
    CG,
    BilevelProblem,
    Cholesky,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MixedPrecision,
    Newton,
    plot,
)
from implicit_grad.tasks import RandomRidge

STEM = "rounding_floor"
SINGLE, DOUBLE = "float32, Cholesky", "float64, Cholesky"
SINGLE_CG, DOUBLE_CG, MIXED = "float32, CG", "float64, CG", "float32 refined in float64"
STYLES = {
    SINGLE: plot.Style("#E69F00", "o"),
    SINGLE_CG: plot.Style("#D55E00", "X"),
    DOUBLE: plot.Style("#000000", "s"),
    DOUBLE_CG: plot.Style("#0072B2", "D"),
    MIXED: plot.Style("#009E73", "^"),
}
EPS32, EPS64 = (float(np.finfo(dtype).eps) for dtype in (np.float32, np.float64))


@dataclass(frozen=True)
class PrecisionStudy:
    """Errors against rational arithmetic, on one and the same float32 data; λ sets κ(A)."""

    dim: int
    powers: tuple[int, ...]
    tasks: int
    seed: int

    def run(self, progress: Progress = silent, *, backend: Any = None) -> Any:
        """Return `relative_error` and `ok` over (estimator, power, task); λ = 2^−power is exact in any precision."""
        host(backend)
        # Eigenvalues down to 1e-12, so that λ sets κ; the test features are white: v has a part in every direction.
        source = RandomRidge(self.dim, self.dim + 2, self.dim, 1e12)
        base, theta = draw(source, 1.0, self.tasks, self.seed)
        test = np.random.default_rng(self.seed).standard_normal((self.tasks, self.dim, self.dim))
        parts = [base.inner.X, base.inner.y, test, base.outer.y, theta]  # type: ignore[attr-defined]
        parts = [each.astype(np.float32) for each in parts]
        error = np.empty((len(STYLES), len(self.powers), self.tasks))
        ok, condition = np.empty(error.shape, dtype=bool), np.empty(error.shape[1:])
        for j, power in enumerate(self.powers):
            lam = 2.0**-power
            progress(f"λ = 2^−{power}")
            exact = [meta_gradient(*(part[t] for part in parts), power) for t in range(self.tasks)]
            X = parts[0].astype(float)
            largest = np.linalg.norm(X, 2, axis=(-2, -1)) ** 2 / X.shape[-2]
            smallest = np.linalg.norm(X, -2, axis=(-2, -1)) ** 2 / X.shape[-2]
            condition[j] = (largest + lam) / (smallest + lam)
            for i, label in enumerate(STYLES):
                estimate = self._estimate(label, parts, lam)
                assert estimate.linear is not None  # implicit
                ok[i, j] = estimate.linear.ok
                gradient = np.asarray(estimate.gradient, dtype=float)
                error[i, j] = [distance(g, e) for g, e in zip(gradient, exact, strict=True)]
        over = ("estimator", "power", "task")
        return dataset(
            self,
            {"relative_error": (over, error), "ok": (over, ok), "condition": (over[1:], condition)},
            {"estimator": list(STYLES), "power": list(self.powers)},
            ran=f"least squares, d = {self.dim}, data rounded to float32, λ = 2^−p for p from "
            f"{self.powers[0]} to {self.powers[-1]}, {self.tasks} tasks, seed {self.seed}; inner solutions by "
            f"Newton in "
            f"the same precision",
        )

    def _estimate(self, label: str, parts: list[Any], lam: float) -> Any:
        single = label in (SINGLE, SINGLE_CG)
        X, y, X_test, y_test, theta = (part.astype(np.float32 if single else np.float64) for part in parts)
        problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), lam)
        solver: Any = {SINGLE_CG: CG(20 * self.dim, 1e-7), DOUBLE_CG: CG(20 * self.dim, 1e-15)}.get(label, Cholesky())
        inner = Newton(rtol=1e-6 if single else 1e-14)
        if label == MIXED:
            solver = MixedPrecision(Cholesky(), dense=True, rtol=1e-15)
        return MetaGradient(inner, ImplicitGradient(solver))(problem, theta)


def meta_gradient(X: Any, y: Any, X_test: Any, y_test: Any, theta: Any, power: int) -> list[Fraction]:
    """λA⁻¹∇L_test(φ*) of least squares, exactly."""
    lam = Fraction(1, 2**power) if power >= 0 else Fraction(2**-power)
    A, at = _normal(X, y)
    for i in range(len(A)):
        A[i][i] += lam
    start = [Fraction(float(each)) for each in theta]
    phi = solve(A, [b + lam * each for b, each in zip(at, start, strict=True)])
    H, c = _normal(X_test, y_test)
    v = [sum((h * p for h, p in zip(row, phi, strict=True)), Fraction()) - b for row, b in zip(H, c, strict=True)]
    return [lam * each for each in solve(A, v)]


def _normal(X: Any, y: Any) -> tuple[list[list[Fraction]], list[Fraction]]:
    """XᵀX/n and Xᵀy/n."""
    columns = [[Fraction(float(each)) for each in column] for column in X.T]
    target = [Fraction(float(each)) for each in y]

    def product(a: list[Fraction], b: list[Fraction]) -> Fraction:
        return sum((p * q for p, q in zip(a, b, strict=True)), Fraction()) / len(target)

    return [[product(a, b) for b in columns] for a in columns], [product(a, target) for a in columns]


def solve(A: list[list[Fraction]], b: list[Fraction]) -> list[Fraction]:
    """Solve a positive definite system by elimination: no rounding, so no pivoting."""
    rows = [[*row, right] for row, right in zip(A, b, strict=True)]
    n = len(rows)
    for k in range(n):
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            rows[i] = [p - factor * q for p, q in zip(rows[i], rows[k], strict=True)]
    x = [Fraction()] * n
    for k in reversed(range(n)):
        known = sum((rows[k][j] * x[j] for j in range(k + 1, n)), Fraction())
        x[k] = (rows[k][n] - known) / rows[k][k]
    return x


def distance(gradient: Any, exact: list[Fraction]) -> float:
    """‖g − g*‖/‖g*‖, rounded once; NaN for a gradient that is not finite."""
    if not np.isfinite(gradient).all():
        return float("nan")
    gaps = [Fraction(float(g)) - e for g, e in zip(gradient, exact, strict=True)]
    return float(sum(gap * gap for gap in gaps) / sum(e * e for e in exact)) ** 0.5


def sweeps(quick: bool, seed: int) -> dict[str, Study]:
    """λ from 2⁻² to 2⁻⁴⁴."""
    powers = tuple(range(2, 45, 6 if quick else 2))
    return {"least squares": PrecisionStudy(6 if quick else 10, powers, 3 if quick else 9, seed)}


def draw_figure(tables: Mapping[str, Any]) -> Any:
    """Error over κ(A)."""
    table = tables["least squares"]
    figure, axes = plot.grid(1, height=3.3)
    ax = axes[0, 0]
    for label in STYLES:
        one = table.sel(estimator=[label])
        plot.plot_errors(one, ax=ax, x="condition", styles=STYLES, hollow=~(one.ok.mean("task").values[0] > 0.5))
    plot.hollow_key(ax, "hollow: not called a success")
    kappa = table.condition.median("task").values
    for eps, label, style in ((EPS32, "eps·κ, float32", (0, (4, 2))), (EPS64, "eps·κ, float64", "-.")):
        plot.theory_line(ax, kappa, np.minimum(eps * kappa, 10), label, linestyle=style)
    ax.axvline(1 / EPS32, color="0.5", linewidth=0.8, linestyle=":", label="κ = 1/eps, float32")
    ax.set_ylim(1e-17, 20)
    ax.set_xlabel("condition number κ(A)")
    ax.set_ylabel("relative error of the meta-gradient")
    plot.shared_legend(figure, [ax], columns=4)
    return figure


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """A small multiple of eps·κ; refinement as good as float64; refusal beyond."""
    table = tables["least squares"]
    found = []
    good = table.relative_error.where(table.ok)
    for label, eps in ((SINGLE, EPS32), (SINGLE_CG, EPS32), (DOUBLE, EPS64), (DOUBLE_CG, EPS64)):
        # The theorem is c·eps·κ/(1 − c·eps·κ): it says nothing of a matrix that is singular to this precision.
        ratio = (table.relative_error.sel(estimator=label) / (eps * table.condition)).where(
            table.condition < 0.1 / eps
        )
        said = f"{label}: error over eps·κ for κ < 0.1/eps, whatever the status, largest"
        found.append(at_most(said, ratio.max(), 10, "Higham 2002"))
    easy = table.condition < 0.1 / EPS32
    ratio = (good.sel(estimator=MIXED) / (EPS64 * table.condition)).where(easy).max()
    found.append(
        at_most("refined: error over float64's eps·κ for κ < 0.1/eps₃₂, largest", ratio, 10, "Carson, Higham 2018")
    )
    lost = (~table.ok.sel(estimator=MIXED)).where(easy, False).sum()
    found.append(at_most("refined: solves that are not called a success for κ < 0.1/eps₃₂", lost, 0))
    wrong = (table.relative_error > 1e-2).where(table.ok, False).sum()
    found.append(at_most("linear solves called a success with an error above 1 %, any precision and κ", wrong, 0))
    return found


FIGURE = Figure(
    STEM,
    sweeps,
    draw_figure,
    claims=claims,
    reading="Lines are medians over tasks, bands the 10 to 90 % quantiles, of the linear solves whose status is a "
    "success. "
    "Reference: rational arithmetic.",
)
