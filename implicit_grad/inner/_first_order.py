"""The loop of first-order methods that carry a state: what is frozen, recorded and counted, and how a run ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, device_of, namespace, norm, to_numpy
from implicit_grad.inner._protocol import attainable, gradient_scale, start_point
from implicit_grad.inner._recording import check_memory, kept_steps
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Path, Solution, Status, statuses

State = tuple[Array, ...]
"""Arrays `(..., d)`; the first is the iterate."""

_BLOWN_UP = 1e6


class Rule(Protocol):
    """A first-order method on one batch of problems."""

    @property
    def at_iterate(self) -> bool:
        """Whether the gradients it takes are those of G at the iterates."""
        ...

    def start(self, phi: Array) -> State:
        """Return the state of a run that begins at φ; its first gradient is taken there."""
        ...

    def point(self, state: State) -> Array:
        """Where the next gradient is taken."""
        ...

    def gradient(self, point: Array, step: int) -> tuple[Array, Array]:
        """Return ∇L and ∇G at `point`, or estimates of them."""
        ...

    def update(self, state: State, gradient: Array, step: int) -> State:
        """Return the state after one step."""
        ...


class FullGradient:
    """∇L and ∇G from all samples: the gradient of a rule that is not stochastic."""

    def __init__(self, problem: BilevelProblem, theta: Array) -> None:
        self.problem, self.theta = problem, theta
        self.lam = problem.lam_like(theta)[..., None]

    def gradient(self, point: Array, step: int = 0) -> tuple[Array, Array]:
        """Return ∇L(φ) and ∇L(φ) + λ(φ − θ)."""
        loss = self.problem.inner.gradient(point)
        return loss, loss + self.lam * (point - self.theta)


def descend(
    solver: Any,
    problem: BilevelProblem,
    theta: Array,
    start: Array | None,
    rule: Rule,
    *,
    alpha: Array,
    extra: Cost,
    rtol: float = 0.0,
) -> Solution[Any]:
    """Run `solver.steps` steps of a rule, recording what `solver.record` says.

    A problem whose gradient meets the tolerance stops at the point where it was taken; one whose next iterate is not
    finite is frozen at its last. The numbers of the others do not change.

    Parameters
    ----------
    alpha : (...) array
        Step sizes, for the path; a problem without one does not move.
    extra : Cost
        What finding them cost.
    """
    kept = kept_steps(solver.record, solver.steps)
    check_memory(theta, len(kept))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        run = _Run(problem, theta, rule, rtol, kept)
        run.go(rule.start(start_point(problem, theta, start)), solver.steps, namespace(alpha).isfinite(alpha))
    path = None
    if kept:
        path = run.path(alpha, extra, start is None)
    residual, codes = run.end.residual, run.codes(run.end)
    cost = extra + Cost(gradients=run.asked + run.looked)
    return Solution(run.phi, residual, run.taken, statuses(codes), solver, path, cost)


@dataclass(frozen=True, eq=False)
class _End:
    """What decides how a run that stops here has ended."""

    residual: Array
    tolerance: Array
    alive: Array


class _Run:
    """One run while it lasts."""

    def __init__(self, problem: BilevelProblem, theta: Array, rule: Rule, rtol: float, kept: tuple[int, ...]) -> None:
        self.problem, self.theta, self.rule, self.rtol, self.kept = problem, theta, rule, rtol, kept
        self.full, self.wanted = FullGradient(problem, theta), frozenset(kept)
        self.points: Array = None
        self.ends: list[_End] = []
        self.asked = self.looked = 0  # gradients of the method, and of the recording alone

    def go(self, state: State, steps: int, alive: Array) -> None:
        xp = namespace(self.theta)
        active, taken = alive, xp.zeros(alive.shape, dtype=xp.int64)
        for step in range(steps + 1):
            last = step == steps
            where = state[0] if last else self.rule.point(state)
            loss, gradient = (self.full if last else self.rule).gradient(where, step)
            self.asked += 1
            residual, scale = norm(gradient), gradient_scale(self.problem, where, self.theta, loss)
            if step == 0:
                self.first = residual, scale
            if step in self.wanted:
                exact = last or self.rule.at_iterate
                seen = (residual, scale) if exact else self._look(state[0])
                self._keep(state[0], self._end(state[0], *seen, alive))
            if last:
                self.end = self._end(state[0], residual, scale, alive)
                break
            if self.rtol > 0:
                done = active & (residual <= self.rtol * scale)
                state, active = self._settled(done, where, state), active & ~done
                if not bool(xp.any(active)):
                    # Whatever stands still was looked at just now.
                    self.end = self._end(state[0], residual, scale, alive)
                    for _ in self.kept[len(self.ends) :]:
                        self._keep(state[0], self.end)
                    break
            moved = self.rule.update(state, gradient, step)
            finite = xp.isfinite(xp.sum(moved[0], axis=-1))
            alive, active = alive & (finite | ~active), active & finite
            state = self._advanced(active, moved, state)
            taken = taken + xp.astype(active, xp.int64)
        self.phi, self.taken = state[0], taken

    def _settled(self, done: Array, where: Array, state: State) -> State:
        """Let the problems that are done rest where their gradient was taken."""
        return self._merged(done, self.rule.start(where), state)

    def _advanced(self, active: Array, moved: State, state: State) -> State:
        # On a device the mask is not looked at: that would make the host wait at every step.
        if device_of(active) is None and bool(namespace(active).all(active)):
            return moved
        # What stands still forgets its momentum, so that its next gradient is taken where it stands.
        return self._merged(active, moved, self.rule.start(state[0]))

    def _merged(self, mask: Array, one: State, other: State) -> State:
        where, rows = namespace(mask).where, mask[..., None]
        return tuple(where(rows, a, b) for a, b in zip(one, other, strict=True))

    def _look(self, phi: Array) -> tuple[Array, Array]:
        self.looked += 1
        loss, gradient = self.full.gradient(phi)
        return norm(gradient), gradient_scale(self.problem, phi, self.theta, loss)

    def _end(self, phi: Array, residual: Array, scale: Array, alive: Array) -> _End:
        """Add what rounding leaves of a residual to the tolerance, where the loss can size it without a product."""
        tolerance = self.rtol * scale
        if self.rtol > 0 and hasattr(self.problem.inner, "gradient_terms"):
            floor = attainable(self.problem, phi, self.theta)
            tolerance = namespace(phi).where(floor > tolerance, floor, tolerance)
        return _End(residual, tolerance, alive)

    def _keep(self, phi: Array, end: _End) -> None:
        if self.points is None:
            self.points = namespace(phi).empty((len(self.kept), *phi.shape), dtype=phi.dtype)
        self.points[len(self.ends), ...] = phi
        self.ends.append(end)

    def codes(self, at: _End) -> np.ndarray[Any, Any]:
        """Status codes of runs that end like this."""
        live, end, tolerance = to_numpy(at.alive), to_numpy(at.residual), to_numpy(at.tolerance)
        first, first_scale = (to_numpy(each) for each in self.first)
        codes = np.full(live.shape, (Status.MAX_STEPS if self.rtol > 0 else Status.BUDGET_SPENT).code)
        with np.errstate(over="ignore", invalid="ignore"):
            codes[(end <= tolerance) & (self.rtol > 0)] = Status.CONVERGED.code
            codes[~live | (end > _BLOWN_UP * np.maximum(first, first_scale))] = Status.DIVERGED.code
        codes[~np.isfinite(first)] = Status.NONFINITE.code
        return codes.astype(np.int8)

    def path(self, alpha: Array, extra: Cost, starts_at_theta: bool) -> Path:
        xp = namespace(self.theta)
        return Path(
            self.kept,
            self.points,
            xp.stack([end.residual for end in self.ends], axis=0),
            alpha,
            codes=np.stack([self.codes(end) for end in self.ends]),
            costs=tuple(extra + Cost(gradients=min(step + 1, self.asked)) for step in self.kept),
            starts_at_theta=starts_at_theta,
        )
