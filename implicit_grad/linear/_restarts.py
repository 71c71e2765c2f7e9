"""The loop around a Krylov recurrence: stop by the true residual, restart from it, and account for every product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from implicit_grad._deferred import replaced
from implicit_grad.backend import Array, dot, epsilon, namespace, norm
from implicit_grad.linear._system import System, verdict
from implicit_grad.results import Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True, eq=False)
class Run:
    """One run of a recurrence.

    Attributes
    ----------
    x : (..., d) array
    steps : (...) int array
    iterations : int
        Products made, by all problems together.
    failed : dict
        Masks of the problems that cannot go on.
    smallest, largest : (...) arrays
        Extreme curvatures met, in Rayleigh or Ritz values.
    """

    x: Array
    steps: Array
    iterations: int
    failed: dict[Status, Array]
    smallest: Array
    largest: Array


_FAILURES = (Status.NONFINITE, Status.STAGNATED, Status.DIVERGED, Status.INDEFINITE)
"""Later ones overrule."""


class Iterates:
    """Recorded iterates x₀, x₁, …, each written once, straight into its place in the path `(length, ..., d)`."""

    def __init__(self, first: Array, length: int) -> None:
        self._points = namespace(first).empty((length, *first.shape), dtype=first.dtype)
        self._count = 0
        self.append(first)

    def append(self, x: Array) -> None:
        """Copy the next iterate."""
        self._points[self._count, ...] = x
        self._count += 1

    def complete(self) -> Array:
        """Return the path; steps that were not taken repeat the last iterate."""
        for k in range(self._count, self._points.shape[0]):
            self._points[k, ...] = self._points[self._count - 1, ...]
        return self._points


Recurrence = Callable[[Array, int, Array, Array, "Iterates | None"], Run]
"""(r, most steps, goal for ‖r‖, x, iterates) → Run: advance x, whose residual is r; append to iterates."""


def target_of(r: Array, goal: Array) -> Array:
    """Square of the residual at which a recurrence stops.

    Below eps² ‖r₀‖ it moves x by less than rounding; going on would only underflow.
    """
    xp = namespace(r)
    floor = epsilon(r) ** 4 * dot(r, r)
    return xp.where(goal * goal > floor, goal * goal, floor)


def solve_restarting(
    solver: Any,
    system: System,
    recurrence: Recurrence,
    *,
    setup: Cost | None = None,
    saddle: Array | None = None,
    smallest: Array | None = None,
) -> Solution[Any]:
    """Solve by a recurrence; `solver` has `max_steps`, `rtol` and `record`.

    The recurrence only proposes to stop: where the recomputed residual disagrees, it starts again from it.

    Parameters
    ----------
    solver : object
    system : System
    recurrence : callable
    setup : Cost, optional
        What was spent before the first step.
    saddle : (...) bool array, optional
        Problems known not to be positive definite before the first step: none is taken for them.
    smallest : (...) array, optional
        Smallest curvature met before the first step.
    """
    max_steps, rtol, setup = solver.max_steps, solver.rtol, setup or Cost()
    xp = namespace(system.b)
    x = xp.zeros_like(system.b)
    goal = rtol * norm(system.b)
    iterates, r, done = (Iterates(x, max_steps + 1) if solver.record else None), system.b, 0
    checks: list[int] = []  # step counts at which the residual was recomputed
    steps, residual = 0, norm(r)
    masks = dict.fromkeys(_FAILURES, residual < 0)
    if saddle is not None:
        saddle = masks[Status.INDEFINITE] | saddle
        masks[Status.INDEFINITE] = saddle
        r = xp.where(saddle[..., None], xp.zeros_like(r), r)
    lowest, largest = xp.full_like(residual, float("inf")), xp.zeros_like(residual)
    if smallest is not None:
        lowest = xp.where(smallest < lowest, smallest, lowest)
    while True:
        run = recurrence(r, max_steps - done, goal, x, iterates)
        x, done, steps = run.x, done + run.iterations, steps + run.steps
        for status, mask in run.failed.items():
            masks[status] = masks[status] | mask
        lowest = xp.where(run.smallest < lowest, run.smallest, lowest)
        largest = xp.where(run.largest > largest, run.largest, largest)
        if rtol == 0 or done >= max_steps or run.iterations == 0:
            break
        r = system.b - system.A(x)
        checks.append(done)
        before, residual = residual, norm(r)
        # A restart from the true residual must at least halve it; otherwise rounding has the last word.
        again = (residual > goal) & (residual < 0.5 * before)
        for mask in masks.values():
            again = again & ~mask
        if not bool(xp.any(again)):
            break
        r = xp.where(again[..., None], r, xp.zeros_like(r))

    def cost(k: int) -> Cost:
        """What a run of k steps costs: the same products up to there, and one for its final residual."""
        return setup + Cost(hvps=min(k, done) + sum(c < k for c in checks) + 1)

    recorded = range(0 if iterates is None else max_steps + 1)
    solution = verdict(
        system,
        x,
        solver=solver,
        rtol=rtol,
        steps=steps,
        budget=max_steps,
        operator_norm=largest,
        failed=masks,
        iterates=None if iterates is None else iterates.complete(),
        costs=tuple(map(cost, recorded)),
        cost=cost(max_steps) + Cost(hvps=len(recorded)),
        smallest_eigenvalue=lowest,
    )
    return solution if saddle is None else mark_saddles(solution, saddle & system.finite)


def mark_saddles(solution: Solution[Any], known: Array) -> Solution[Any]:
    """Mark problems known to be saddles before the first step in the path, too: a run of no steps knows it."""
    path = solution.path
    if path is None or path.codes is None:
        return solution
    xp = namespace(path.codes)
    codes = xp.where(known, xp.full_like(path.codes, Status.INDEFINITE.code), path.codes)
    return replaced(solution, path=replace(path, codes=codes))
