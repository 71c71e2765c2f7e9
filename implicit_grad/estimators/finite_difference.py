"""Central differences of F through a converged inner solve, and when they say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, expand, namespace, norm
from implicit_grad.estimators._verdict import refused
from implicit_grad.inner import InnerSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, status_codes, statuses, worst_status

_SIGNS = (1.0, -1.0)
_LADDER = (1.0, 2.0)
"""Every difference is taken with h and 2h: their disagreement shows the truncation error."""

_TENTH = 0.1


@dataclass(frozen=True)
class FiniteDifferenceGradient:
    r"""Central differences of F(θ) = L_test(φ*(θ)), every inner problem solved anew.

    .. math:: g_j = \frac{F(\theta + h e_j) - F(\theta - h e_j)}{2h} + O(h^2) + O(\eta/h), \qquad
              h = (3\eta/|F'''|)^{1/3}

    η is what the inner residuals r leave of noise in F: ‖b‖‖r‖/λ + ½β_T(‖r‖/λ)² with b = ∇L_test(φ), plus rounding.
    (1/λ bounds ‖A⁻¹‖ for a convex train loss; β_T is the test loss's curvature bound, where it knows one.) F''' is
    seen in a trial with h₀ = ℓ(3η/‖b‖ℓ)^⅓ along b, ℓ = ‖θ‖ + ‖φ‖.

    Parameters
    ----------
    inner_solver : InnerSolver
        Solves the perturbed problems, started from the inner solution. The more exactly the better: F cannot be
        differenced to better than η^⅔.
    step : float or None
        h, for every coordinate and problem; None follows the rule.

    Notes
    -----
    4d solves, since every difference is taken with 2h, too; without a `step` six more. A window of valid steps
    begins where the noise is a tenth of g, h ≥ 10η√d/‖g‖, and ends where the truncation error is, as seen from the
    two differences. If that window does not hold h, 2h and 4h for any h, or not the step taken, no difference can
    be trusted, and the status is `STAGNATED`.

    All 4d problems go through the solver as one batch: 4d² numbers a problem.
    """

    inner_solver: InnerSolver
    step: float | None = None
    card: ClassVar[Card] = Card(
        "4d inner solves from φ",
        "4d² (one batch)",
        "O(h²) + O(η/h), at best O(η^⅔) for noise η in F",
        "the inner solves are inexact: no step is valid (said so), or d is more than a few hundred",
    )

    def __post_init__(self) -> None:
        border.strategy("inner_solver", self.inner_solver, "Newton()")
        if self.step is not None:
            object.__setattr__(self, "step", border.positive_float("step", self.step))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "finite differences"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the differences; `inner.value` is the start of every solve."""
        xp, d = namespace(inner.value), int(inner.value.shape[-1])
        outer = _Outer(problem, expand(theta, tuple(inner.value.shape)), inner, self.inner_solver)
        h = outer.balanced_step() if self.step is None else xp.full_like(outer.size, self.step)
        ones = (1,) * (inner.value.ndim - 1)
        basis = xp.reshape(xp.eye(d, dtype=inner.value.dtype), (d, *ones, d))
        differences, noise = outer.differences(h, basis)
        first, second = (xp.moveaxis(differences[i, ...], 0, -1) for i in range(2))
        g, spread = norm(first), norm(second - first)
        # Where g is zero any noise is too much of it.
        size = xp.where(g > 0, g, xp.full_like(g, float(xp.finfo(g.dtype).tiny)))
        with np.errstate(over="ignore", invalid="ignore"):
            unsure, bent = noise * float(d) ** 0.5 / h / size, spread / size / 3
            valid = (unsure <= _TENTH) & (bent <= _TENTH) & (16 * unsure**2 * bent <= _TENTH**3)
        return Estimate(
            gradient=first,
            inner=inner,
            linear=None,
            cost=inner.cost + outer.cost,
            status=refused(worst_status(*outer.stages), ~valid),
        )


class _Outer:
    """F as a function of θ by inner solves, with their statuses and costs."""

    def __init__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any], solver: InnerSolver) -> None:
        self.problem, self.theta, self.phi, self.solver = problem, theta, inner.value, solver
        self.b = problem.outer.gradient(inner.value)
        self.size, self.cost = norm(self.b), Cost(gradients=1)
        self.stages: list[Any] = [inner.status]

    def _noise(self, residual: Array, value: Array) -> Array:
        """η: what residuals and rounding leave unknown of F."""
        eps, off = epsilon(self.phi), residual / self.problem.lam_like(self.phi)
        bound = getattr(self.problem.outer, "curvature_bound", None)
        bend = 0.0 if bound is None else 0.5 * bound() * off**2
        return self.size * off + bend + 4 * eps * (abs(value) + self.size * norm(self.phi))

    def _solve(self, points: Array) -> tuple[Array, Array]:
        """F at the points `(k, ..., d)`, and the largest η among them."""
        xp = namespace(points)
        run = self.solver(self.problem, points, start=self.phi)
        values = self.problem.outer.value(run.value)
        self.cost += (run.cost + Cost(values=1)).times(points.shape[0])
        codes = np.broadcast_to(status_codes(run.status), points.shape[:-1])
        self.stages += [statuses(each) for each in codes]
        return values, xp.max(self._noise(run.residual_norm, values), axis=0)

    def differences(self, h: Array, directions: Array) -> tuple[Array, Array]:
        """Central differences along k directions `(k, ..., d)` with h and 2h: `(2, k, ...)`, and η."""
        xp, k = namespace(h), directions.shape[0]
        moves = [sign * factor * h[..., None] * directions for factor in _LADDER for sign in _SIGNS]
        points = xp.concat([self.theta + move for move in moves], axis=0)
        values, noise = self._solve(points)
        # θ ± h rounds: the distance of the points is what was really taken.
        ends = xp.reshape(points, (2, 2, k, *points.shape[1:]))
        span = norm(ends[:, 0, ...] - ends[:, 1, ...])
        values = xp.reshape(values, (2, 2, k, *values.shape[1:]))
        rise = values[:, 0, ...] - values[:, 1, ...]
        safe = xp.where(span > 0, span, xp.ones_like(span))
        return xp.where(span > 0, rise / safe, xp.full_like(rise, float("nan"))), noise

    def balanced_step(self) -> Array:
        """Return h = (3η/|F'''|)^⅓ with F''' along b from a trial."""
        xp, d = namespace(self.phi), int(self.phi.shape[-1])
        _, noise = self._solve(self.theta[None, ...])
        length = norm(self.theta) + norm(self.phi)
        length = xp.where(length > 0, length, xp.ones_like(length))
        some = self.size > 0
        change = xp.where(some, self.size * length, xp.ones_like(length))
        share = 3 * noise / change
        floor = xp.full_like(share, 3 * epsilon(self.phi))
        trial = length * xp.where(share > floor, share, floor) ** (1 / 3)
        flat = xp.full_like(self.b, float(d) ** -0.5)
        direction = xp.where(some[..., None], self.b / xp.where(some, self.size, change)[..., None], flat)
        differences, noise = self.differences(trial, direction[None, ...])
        bend = 2 * abs(differences[1, 0, ...] - differences[0, 0, ...]) / trial**2
        known = (bend > 0) & xp.isfinite(bend)
        h = (3 * noise / xp.where(known, bend, xp.ones_like(bend))) ** (1 / 3)
        h = xp.where(known & (h < 10 * trial), h, 10 * trial)
        return xp.where(h > 1e-4 * trial, h, 1e-4 * trial)
