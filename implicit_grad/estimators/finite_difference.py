"""Central differences of F through a converged inner solve, and when they say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, expand, namespace, norm
from implicit_grad.estimators._verdict import Resolution, refused
from implicit_grad.inner import InnerSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import statuses, worst_status

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
    (1/λ bounds ‖A⁻¹‖ for a convex train loss; β_T is the test loss's curvature bound, where it knows one.) The third
    derivative is seen in a trial with h₀ = ℓ(3η/‖b‖ℓ)^⅓ along b, where ℓ = ‖θ‖ + ‖φ‖.

    Parameters
    ----------
    inner_solver : InnerSolver
        Solves the perturbed problems, started from the inner solution. The more exactly the better: F cannot be
        differenced to better than η^⅔.
    step : float or None
        h, for every coordinate and problem; None follows the rule.

    Notes
    -----
    4d + 9 solves: the trial, and differences with h and 2h along every coordinate and along b. A window of valid
    steps begins where the noise is a tenth of g, h ≥ 10η√d/‖g‖, and ends where the truncation error is, as seen
    from the two differences. If it does not hold h, 2h and 4h for any h, or not the step taken, or if other
    opinions disagree by a tenth of ‖g‖, no difference can be trusted, and the status is `STAGNATED`. Other opinions
    are differences along b, those of a finer trial, and, for 4d + 4 solves more, those with the rule's step where a
    longer `step` is given: far from θ F may look straight at every scale.

    All go through the solver as one batch: 4d² numbers a problem.
    """

    inner_solver: InnerSolver
    step: float | None = None
    card: ClassVar[Card] = Card(
        "4d + 9 inner solves from φ with a value each (8d + 13 with a step), 1 gradient",
        "4d² (one batch)",
        "O(h²) + O(η/h), at best O(η^⅔) for noise η in F",
        "the inner solves are inexact: no step is valid (said so), or d is more than a few hundred",
        saddle="F jumps there: no step is valid (said so)",
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
        return self.resolved(problem, theta, inner)[0]

    def resolved(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> tuple[Estimate, Resolution]:
        """Return the differences, and what they can tell: their change from h to 2h, and √d·η/h."""
        expect_solution(inner)
        outer = _Outer(problem, expand(theta, tuple(inner.value.shape)), inner, self.inner_solver)
        trial = outer.trial()
        rule = trial.balanced_step()
        h = rule if self.step is None else namespace(rule).full_like(rule, self.step)
        g, coarse, along, noise = outer.gradients(h)
        slope = dot(g, outer.direction)
        with np.errstate(over="ignore", invalid="ignore"):
            off = noise / h
            valid = _in_window(h, g, coarse, noise) & _alike(slope - along, g, 2 * off)
            valid = valid & (_alike(slope - trial.slope, g, off + trial.noise / trial.h) | (trial.h >= h))
            if self.step is not None:
                finer, _, _, other = outer.gradients(rule)
                off = float(g.shape[-1]) ** 0.5 * (off + other / rule)
                valid = valid & (_alike(norm(g - finer), g, off) | (rule >= h))
        estimate = Estimate(
            gradient=g,
            inner=inner,
            linear=None,
            cost=inner.cost + outer.cost,
            status=refused(worst_status(*outer.stages), ~valid),
        )
        return estimate, Resolution(norm(coarse - g), float(g.shape[-1]) ** 0.5 * noise / h)


def _alike(difference: Array, g: Array, off: Array) -> Array:
    """Whether two opinions differ by a tenth of ‖g‖ at most, beside what noise makes of them."""
    return abs(difference) <= _TENTH * norm(g) + off


def _in_window(h: Array, g: Array, coarse: Array, noise: Array) -> Array:
    """Whether [10η√d/‖g‖, √(0.6‖g‖/‖F‴‖)] holds h, and three steps that double."""
    unsure, bent = noise * float(g.shape[-1]) ** 0.5 / h, norm(coarse - g) / 3
    # In units of ‖g‖, which may be zero: then only exact differences of a flat F are left.
    size, xp = norm(g), namespace(g)
    least = xp.full_like(size, float(xp.finfo(g.dtype).smallest_normal))
    unit = xp.where(size > 0, size, least)
    unsure, bent = unsure / unit, bent / unit
    return (unsure <= _TENTH) & (bent <= _TENTH) & (16 * unsure**2 * bent <= _TENTH**3)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Differences along one direction with h and 2h: F' and |F‴| there, and the noise η."""

    h: Array
    slope: Array
    bend: Array
    noise: Array

    def balanced_step(self) -> Array:
        """Return h = (3η/|F‴|)^⅓, at most ten times the trial's and not under a ten-thousandth of it."""
        xp = namespace(self.h)
        known = (self.bend > 0) & xp.isfinite(self.bend)
        h = (3 * self.noise / xp.where(known, self.bend, xp.ones_like(self.bend))) ** (1 / 3)
        h = xp.where(known & (h < 10 * self.h), h, 10 * self.h)
        return xp.where(h > 1e-4 * self.h, h, 1e-4 * self.h)


class _Outer:
    """F as a function of θ by inner solves, with their statuses and costs."""

    def __init__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any], solver: InnerSolver) -> None:
        self.problem, self.theta, self.phi, self.solver = problem, theta, inner.value, solver
        b = problem.outer.gradient(inner.value)
        self.size, self.cost = norm(b), Cost(gradients=1)
        self.stages: list[Any] = [inner]
        xp, some = namespace(b), (self.size > 0)[..., None]
        flat = xp.full_like(b, float(b.shape[-1]) ** -0.5)
        self.direction = xp.where(some, b / xp.where(some, self.size[..., None], xp.ones_like(b)), flat)

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
        codes = xp.broadcast_to(run.codes, points.shape[:-1])
        self.stages += [statuses(codes[i, ...]) for i in range(codes.shape[0])]
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

    def gradients(self, h: Array) -> tuple[Array, Array, Array, Array]:
        """Differences along all coordinates with h and with 2h, the slope along u, and η."""
        xp, d = namespace(h), int(self.phi.shape[-1])
        basis = xp.reshape(xp.eye(d, dtype=self.phi.dtype), (d, *(1,) * (self.phi.ndim - 1), d))
        basis = xp.broadcast_to(basis, (d, *self.phi.shape))
        both, noise = self.differences(h, xp.concat([basis, self.direction[None, ...]], axis=0))
        g, coarse = (xp.moveaxis(both[i, :-1, ...], 0, -1) for i in range(2))
        return g, coarse, both[0, -1, ...], noise

    def trial(self) -> _Trial:
        """Differences along u = b/‖b‖ with h₀ = ℓ(3η/‖b‖ℓ)^⅓."""
        xp = namespace(self.phi)
        _, noise = self._solve(self.theta[None, ...])
        length = norm(self.theta) + norm(self.phi)
        length = xp.where(length > 0, length, xp.ones_like(length))
        change = xp.where(self.size > 0, self.size * length, xp.ones_like(length))
        share = 3 * noise / change
        floor = xp.full_like(share, 3 * epsilon(self.phi))
        h = length * xp.where(share > floor, share, floor) ** (1 / 3)
        differences, noise = self.differences(h, self.direction[None, ...])
        slope, coarse = differences[0, 0, ...], differences[1, 0, ...]
        return _Trial(h, slope, 2 * abs(coarse - slope) / h**2, noise)
