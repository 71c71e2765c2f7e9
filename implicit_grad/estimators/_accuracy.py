"""A meta-gradient to a requested accuracy: inner steps and linear steps, balanced by a certificate's shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad.backend import Array, norm
from implicit_grad.certificates import (
    Certificate,
    Constants,
    SeenSpectrum,
    certify,
    closed_form_constants,
    sampled_constants,
)
from implicit_grad.errors import ArgumentError
from implicit_grad.inner import InnerSolver
from implicit_grad.linear import LinearSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Estimate, Solution
from implicit_grad.status import Status, statuses

_INNER_PART = 0.5
_LINEAR_PART = 0.4
"""Of the tolerance; what is left is for rounding."""

_FORCING = 0.1
"""The linear share is not made smaller than this part of the inner one."""

_FIRST_STEPS = 4
_GROWTH = 4
_ROUND = 1e-2
"""How much smaller the inner share is made before the linear system is looked at again."""

_LOOK_AHEAD = 3
"""Steps on from φ at which a certificate is evaluated, too, once they are a fortieth of what was spent."""

_SEED = 77
"""Of the directions in which the constants of losses that know none are sampled."""

_PROGRESS = 1e-3
"""Share of ‖∇G‖ that some inner steps must take away to count as progress."""

_UPHILL = 10
"""A run whose ‖∇G‖ has risen more than so much is taken for lost."""

_PATIENCE = 3
_MOST_ROUNDS = 200


def reach(
    inner_solver: InnerSolver,
    linear_solver: LinearSolver,
    problem: BilevelProblem,
    theta: Array,
    rtol: float,
    limit: Cost,
    constants: Constants | None,
) -> Estimate:
    """Advance φ and g, each from where it stands, until every problem is certified or cannot be."""
    known = constants or closed_form_constants(problem)
    run = _Run(inner_solver, linear_solver, problem, theta, rtol, limit, known)
    run.solve(np.full(theta.shape[:-1], _FORCING))
    for _ in range(_MOST_ROUNDS):
        run.judge()
        if not run.active.any():
            break
        if run.spent():
            run.stop(run.active, Status.BUDGET_SPENT)
            break
        if (run.active & run.wants_inner()).any():
            run.advance()
        run.solve(run.linear_target())
    else:
        run.stop(run.active, Status.STAGNATED)
    return run.estimate()


@dataclass(eq=False)
class _Run:
    inner_solver: Any
    linear_solver: Any
    problem: BilevelProblem
    theta: Array
    rtol: float
    limit: Cost
    constants: Constants | None

    def __post_init__(self) -> None:
        shape = self.theta.shape[:-1]
        self.phi, self.q = self.theta.copy(), np.zeros_like(self.theta)
        self.lam = self.problem.lam_like(self.theta)
        self.cost, self.chunk, self.tries = Cost(), _FIRST_STEPS, 1
        self.active = np.ones(shape, dtype=bool)
        self.codes = np.full(shape, Status.CONVERGED.code)
        self.residual = norm(self.problem.stationarity(self.phi, self.theta))
        self.cost += Cost(gradients=1)
        self.lowest = np.full(shape, np.inf)
        self.stalled, self.best = np.zeros(shape, dtype=int), np.full(shape, np.inf)
        self.inner: Solution[Any] | None = None
        self.linear: Solution[Any] | None = None
        self.certificate: Certificate | None = None
        self.saddle = np.zeros(shape, dtype=bool)
        self.rng, self.sampled = np.random.default_rng(_SEED), self.constants
        self.last: Constants | None = None

    @property
    def gradient(self) -> Array:
        return self.lam[..., None] * self.q

    def stop(self, mask: Array, status: Status) -> None:
        self.codes = np.where(mask & self.active, status.code, self.codes)
        self.active = self.active & ~mask

    def spent(self) -> bool:
        return self.cost.gradients >= self.limit.gradients or self.cost.hvps >= self.limit.hvps

    def judge(self) -> None:
        """Certify what there is; stop problems that are done, and those that cannot be."""
        if self.constants is None:
            self._sample()
        found = self._certified(self._look_ahead())
        self.certificate, self.cost = found, self.cost + found.cost
        self.goal = self.rtol * norm(self.gradient)
        self.stop((found.bound <= self.goal) & np.isfinite(found.bound), Status.CONVERGED)
        finite = np.isfinite(self.q).all(axis=-1) & np.isfinite(self.phi).all(axis=-1)
        self.stop(~finite, Status.NONFINITE)
        better = (found.bound < 0.9 * self.best) | (self.residual < 0.9 * self.lowest)
        self.lowest = np.fmin(self.lowest, self.residual)
        self.best, self.stalled = np.fmin(self.best, found.bound), np.where(better, 0, self.stalled + 1)
        # Where rounding alone is more than what is asked for, the rest is brought down to it and no further.
        rounding = (found.rounding_share > self.goal) & np.isfinite(found.bound)
        self.stop(rounding & (found.inner_share + found.linear_share <= found.rounding_share), Status.STAGNATED)
        lost = self.stalled >= _PATIENCE
        self.stop(lost & ~np.isfinite(found.bound) & (self.saddle | (found.smallest_seen <= 0)), Status.INDEFINITE)
        self.stop(lost, Status.STAGNATED)

    def _certified(self, ahead: int) -> Certificate:
        seen = SeenSpectrum() if self.constants is None else None
        return certify(
            self.problem,
            self.theta,
            self.gradient,
            self.phi,
            constants=self.sampled,
            curvature_bound=seen,
            gradient_steps=ahead,
        )

    def _sample(self) -> None:
        """Sample β and ρ where φ is now, in random directions that go on from round to round.

        The larger of these and the last round's counts: the same few directions again would see no more than before.
        """
        way = -self.problem.stationarity(self.phi, self.theta) / self.lam[..., None]
        new, cost = sampled_constants(self.problem, self.phi, ways=(way,), gradient=self.gradient, rng=self.rng)
        self.cost += cost + Cost(gradients=1)
        last, self.last = self.last, new
        if last is not None:
            new = replace(new, beta=np.maximum(new.beta, last.beta), rho=np.maximum(new.rho, last.rho))
        self.sampled = new

    def _look_ahead(self) -> int:
        """A closer bound saves inner steps where they are many."""
        return _LOOK_AHEAD if self.constants is not None and self.cost.gradients > 40 * _LOOK_AHEAD else 0

    def wants_inner(self) -> Array:
        assert self.certificate is not None  # judged before
        return ~(self.certificate.inner_share <= _INNER_PART * self.goal)

    def advance(self) -> None:
        """Take inner steps, from φ on, until the inner share is near its part or a hundredth of what it was."""
        assert self.certificate is not None  # judged before
        wanting, share = self.active & self.wants_inner(), self.certificate.inner_share
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(np.isfinite(share) & (share > 0), 0.9 * _INNER_PART * self.goal / share, 0.0)
        target, lowest, flat = self.residual * np.maximum(ratio, _ROUND), self.residual, 0
        while (pending := wanting & (self.residual > target)).any() and not self.spent():
            run = self._inner(self.chunk)
            # Newton goes one length at a time, and more where that one was no good.
            moved = (run.value != self.phi).any(axis=-1)
            self.tries = 1 if moved[pending].all() else 2 * self.tries
            self.phi = np.where(pending[..., None], run.value, self.phi)
            self.residual = after = np.where(pending, run.residual_norm, self.residual)
            with np.errstate(invalid="ignore", divide="ignore"):
                rate = np.log(after / lowest) / self.chunk
                needed = np.where(pending & (rate < 0), np.log(target / after) / rate, self.chunk)
            # Where G is not convex ‖∇G‖ may rise for a while on the way to a minimum; not for ever, and not by much.
            # With a step size too long it cycles. Slow progress shows in longer chunks.
            flat = 0 if (pending & (after < (1 - _PROGRESS) * lowest)).any() else flat + 1
            lost = ~(after < _UPHILL * lowest)
            if flat >= _PATIENCE or (lost | ~pending).all():
                break
            lowest = np.fmin(lowest, after)
            left = np.nanmax(np.where(pending & (after > target), needed, 0))
            self.chunk = int(np.clip(np.ceil(left), 1, _GROWTH * self.chunk))

    def _inner(self, steps: int) -> Solution[Any]:
        """Take inner steps from φ; Newton's a few at a time."""
        changes: dict[str, Any] = (
            {"steps": steps} if hasattr(self.inner_solver, "steps") else {"max_steps": min(steps, self.tries)}
        )
        if hasattr(self.inner_solver, "record"):
            changes["record"] = False
        self.inner = replace(self.inner_solver, **changes)(self.problem, self.theta, start=self.phi)
        self.cost += self.inner.cost
        return self.inner

    def linear_target(self) -> Array:
        """Return by how much the linear share is to shrink."""
        assert self.certificate is not None  # judged before
        found = self._certified(0)
        self.cost += found.cost
        wanted = np.maximum(_LINEAR_PART * self.goal, _FORCING * np.where(self.wants_inner(), found.inner_share, 0))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = wanted / found.linear_share
        return np.where(np.isfinite(ratio), ratio, _FORCING)

    def solve(self, target: Array) -> None:
        """Correct q by a solve of its residual system, to the share `target` of the residual."""
        needed = self.active & (target < 1)
        if not needed.any():
            return
        A, b = self.problem.curvature(self.phi), self.problem.outer.gradient(self.phi)
        r = b - A(self.q)
        r = np.where(needed[..., None], r, 0.0)
        self.cost += Cost(gradients=2, hvps=1)
        solver = self.linear_solver
        if hasattr(solver, "rtol"):
            rtol = float(np.clip(target[needed].min(), 1e-15, 0.9))
            solver = replace(solver, rtol=rtol, max_steps=max(10 * self.theta.shape[-1], 100))
        run = solver(A, r)
        self.cost += run.cost
        self.linear = run
        indefinite = run.codes == Status.INDEFINITE.code
        self.q = np.where((needed & ~indefinite)[..., None], self.q + run.value, self.q)
        self.saddle = needed & indefinite
        if self.certificate is not None:
            self.stop(self.saddle & ~self.wants_inner(), Status.INDEFINITE)

    def estimate(self) -> Estimate:
        assert self.certificate is not None  # every run is judged
        inner = self.inner or self._inner(0)
        inner = replace(inner, value=self.phi, residual_norm=self.residual, path=None, solver=self.inner_solver)
        g = np.where((self.codes == Status.INDEFINITE.code)[..., None], np.nan, self.gradient)
        return Estimate(g, inner, self.linear, self.cost, statuses(self.codes), self.certificate)


def check(estimator: Any, inner_solver: Any) -> Any:
    """Return the linear solver to be used.

    Raises
    ------
    ArgumentError
        For estimators without a linear solve, and inner solvers without a step count.
    """
    if not hasattr(estimator, "linear_solver"):
        raise ArgumentError(f"estimator: accuracy on demand needs ImplicitGradient(CG(10)), got {estimator!r}")
    if not (hasattr(inner_solver, "steps") or hasattr(inner_solver, "max_steps")):
        raise ArgumentError(f"inner_solver: accuracy on demand needs one with a step count, got {inner_solver!r}")
    if getattr(inner_solver, "proximal", True) is False:
        raise ArgumentError("inner_solver: with proximal=False it does not tend to φ*")
    return estimator.linear_solver
