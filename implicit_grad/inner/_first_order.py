"""The loop of first-order methods that carry a state: what is frozen, recorded and counted, and how a run ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, any_of, device_of, look_again, namespace, norm
from implicit_grad.inner._protocol import gradient_scale, start_point
from implicit_grad.inner._recording import check_memory, kept_steps
from implicit_grad.inner.stopping import Distance, Stop
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Path, Solution
from implicit_grad.status import Status, all_codes, marked, statuses

State = tuple[Array, ...]
"""Arrays `(..., d)`; the first is the iterate."""

_BLOWN_UP = 1e6


class Rule(Protocol):
    """A first-order method on one batch of problems."""

    @property
    def at_iterate(self) -> bool:
        """Whether the gradients it takes are those at the iterates."""
        ...

    @property
    def proximal(self) -> bool:
        """Whether they are gradients of G, or of the train loss alone."""
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

    proximal = True

    def __init__(self, problem: BilevelProblem, theta: Array) -> None:
        self.problem, self.theta = problem, theta
        self.lam = problem.lam_like(theta)[..., None]

    def gradient(self, point: Array, step: int = 0) -> tuple[Array, Array]:
        """Return ∇L(φ) and ∇L(φ) + λ(φ − θ)."""
        loss = self.problem.inner.gradient(point)
        return loss, self.pulled(loss, point)

    def pulled(self, loss: Array, point: Array) -> Array:
        """Return ∇G(φ) from ∇L(φ)."""
        pull = point - self.theta
        pull *= self.lam
        return loss + pull


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
    distance: Distance | float | None = None,
    safe: Callable[[], Array | None] | None = None,
) -> Solution[Any]:
    """Run `solver.steps` steps of a rule, recording what `solver.record` says.

    A problem whose gradient meets the tolerances stops at the point where it was taken; one whose next iterate is not
    finite is frozen at its last. The numbers of the others do not change.

    Parameters
    ----------
    alpha : (...) array
        Step sizes, for the path; a problem without one does not move.
    extra : Cost
        What finding them cost.
    safe : callable, optional
        Asked for `Solution.safe_step_size` if a problem diverged.
    """
    kept = kept_steps(solver.record, solver.steps)
    check_memory(theta, len(kept))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        run = _Run(problem, theta, rule, Stop(problem, theta, rtol, distance), kept)
        run.go(rule.start(start_point(problem, theta, start)), solver.steps, namespace(alpha).isfinite(alpha))
    path = None
    if kept:
        path = run.path(alpha, extra, start is None)
    residual, codes = run.end.residual, run.codes([run.end])[0, ...]
    cost = extra + Cost(gradients=run.asked + run.looked) + run.verdicts
    shorter = safe() if safe is not None and any_of(codes == Status.DIVERGED.code) else None
    return Solution(run.phi, residual, run.taken, statuses(codes), solver, path, cost, safe_step_size=shorter)


@dataclass(frozen=True, eq=False)
class _Seen:
    """Sizes of one gradient: that of G, what it is small against, and that of the rule's own."""

    residual: Array
    scale: Array
    own: Array


@dataclass(frozen=True, eq=False)
class _End:
    """What decides how a run that stops here has ended."""

    residual: Array
    own: Array
    reached: Array
    met: Array
    alive: Array


class _Run:
    """One run while it lasts."""

    def __init__(self, problem: BilevelProblem, theta: Array, rule: Rule, stop: Stop, kept: tuple[int, ...]) -> None:
        self.problem, self.theta, self.rule, self.stop, self.kept = problem, theta, rule, stop, kept
        self.full, self.wanted = FullGradient(problem, theta), frozenset(kept)
        self.points: Array = None
        self.ends: list[_End] = []
        self.asked = self.looked = 0  # gradients of the method, and of the recording alone
        self.verdicts = Cost()

    def go(self, state: State, steps: int, alive: Array) -> None:
        xp, stop = namespace(self.theta), self.stop
        active, taken = alive, xp.zeros(alive.shape, dtype=xp.int64)
        for step in range(steps + 1):
            last = step == steps
            where = state[0] if last else self.rule.point(state)
            loss, gradient = (self.full if last else self.rule).gradient(where, step)
            self.asked += 1
            if stop.asked or last or step == 0 or step in self.wanted:
                seen = self._seen(where, loss, gradient)
            if step == 0:
                self.first = seen
            if last or step in self.wanted:
                exact = last or self.rule.at_iterate
                self.end = self._end(state[0], seen if exact else self._look(state[0]), alive)
                if step in self.wanted:
                    self._keep(state[0], self.end)
            if last:
                break
            if stop.asked:
                done = active & stop.reached(seen.residual, seen.scale)
                state, active = self._settled(done, where, state), active & ~done
                # Those that are done stand still: a device is asked now and then only.
                if not look_again(active, step, tolerance=True):
                    # Whatever stands still was looked at just now.
                    self.end = self._end(state[0], seen, alive)
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

    def _seen(self, where: Array, loss: Array, gradient: Array) -> _Seen:
        if self.rule.proximal:
            residual = norm(gradient)
            return _Seen(residual, gradient_scale(self.problem, where, self.theta, loss), residual)
        own = norm(loss)
        return _Seen(norm(self.full.pulled(loss, where)), own, own)

    def _look(self, phi: Array) -> _Seen:
        self.looked += 1
        return self._seen(phi, *self.full.gradient(phi))

    def _end(self, phi: Array, seen: _Seen, alive: Array) -> _End:
        stop = self.stop
        if not stop.asked:
            never = namespace(alive).zeros_like(alive)
            return _End(seen.residual, seen.own, never, never, alive)
        self.verdicts += stop.verdict_cost
        met = stop.met(seen.residual, seen.scale, stop.floor(phi))
        return _End(seen.residual, seen.own, stop.reached(seen.residual, seen.scale), met, alive)

    def _keep(self, phi: Array, end: _End) -> None:
        if self.points is None:
            self.points = namespace(phi).empty((len(self.kept), *phi.shape), dtype=phi.dtype)
        self.points[len(self.ends), ...] = phi
        self.ends.append(end)

    def codes(self, ends: list[_End]) -> Array:
        """Status codes of runs that end like these: `(len(ends), ...)`."""
        xp = namespace(self.theta)
        own, reached, met, live = (
            xp.stack([getattr(end, name) for end in ends], axis=0) for name in ("own", "reached", "met", "alive")
        )
        first, scale = self.first.own, self.first.scale
        codes = all_codes(live, Status.MAX_STEPS if self.stop.asked else Status.BUDGET_SPENT)
        with np.errstate(over="ignore", invalid="ignore"):
            # It has stopped, and yet rounding alone may leave more than the distance allows.
            codes = marked(marked(codes, reached, Status.STAGNATED), met, Status.CONVERGED)
            # Descent never multiplies the gradient by a million: such a run is on its way to infinity.
            blown_up = own > _BLOWN_UP * xp.where(first > scale, first, scale)
        codes = marked(codes, ~live | blown_up, Status.DIVERGED)
        return marked(codes, ~xp.isfinite(first) & xp.ones_like(live), Status.NONFINITE)

    def path(self, alpha: Array, extra: Cost, starts_at_theta: bool) -> Path:
        xp, verdict = namespace(self.theta), self.stop.verdict_cost
        return Path(
            self.kept,
            self.points,
            xp.stack([end.residual for end in self.ends], axis=0),
            alpha,
            codes=self.codes(self.ends),
            costs=tuple(extra + Cost(gradients=min(step + 1, self.asked)) + verdict for step in self.kept),
            starts_at_theta=starts_at_theta,
            taken=self.taken if self.stop.asked else None,
        )
