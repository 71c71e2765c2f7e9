"""The loop of methods that choose a direction and search along it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, device_of, look_again, namespace, to_numpy
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._protocol import start_point
from implicit_grad.inner._recording import check_memory, kept_steps
from implicit_grad.inner.stopping import Stop
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Path, Solution, Status, statuses


class Directions(Protocol):
    """Where to go from an iterate, on one batch of problems."""

    def __call__(self, here: Iterate, active: Array) -> tuple[Array, Cost]:
        """Return a direction downhill, zero where a problem is not active."""
        ...

    def restart(self, failed: Array) -> Array:
        """Forget what led to directions without a step; say for which of the failed there was anything to forget."""
        ...


def search(
    solver: Any, problem: BilevelProblem, theta: Array, start: Array | None, directions: Directions
) -> Solution[Any]:
    """Take `solver.steps` steps along given directions, with the line search of Newton's method.

    A problem stops where its residual meets `solver.rtol` and `solver.distance` or is down to what rounding leaves,
    and where no step can be found. A device is asked once for each length tried, and every eighth step whether all
    problems are done; those that are stand still.
    """
    kept = kept_steps(solver.record, solver.steps)
    check_memory(theta, len(kept))
    run = _Run(solver, problem, theta, start)
    run.go(directions, frozenset(kept))
    path, last = None, run.last
    if kept:
        xp, ends = namespace(theta), [run.ends.get(step, last) for step in kept]
        path = Path(
            kept,
            xp.stack([end.phi for end in ends], axis=0),
            xp.stack([end.residual for end in ends], axis=0),
            codes=np.stack([end.codes(step) for step, end in zip(kept, ends, strict=True)]).astype(np.int8),
            costs=tuple(end.cost for end in ends),
            starts_at_theta=start is None,
        )
    status = statuses(last.codes(solver.steps))
    return Solution(last.phi, last.residual, last.taken, status, solver, path, last.cost)


class _End:
    """What a run that stops here would return."""

    def __init__(self, here: Iterate, taken: Array, stuck: Array, cost: Cost, tolerant: bool) -> None:
        self.phi, self.residual, self.taken, self.cost = here.phi, here.residual, taken, cost
        self.stuck, self.tolerant = stuck, tolerant
        self.done, self.met = here.verdict()

    def codes(self, steps: int) -> Any:
        """Status codes of a run of so many steps."""
        spent = Status.MAX_STEPS if self.tolerant else Status.BUDGET_SPENT
        done, met, stuck, taken = (to_numpy(each) for each in (self.done, self.met, self.stuck, self.taken))
        codes = np.full(met.shape, spent.code)
        codes[(stuck & (taken < steps)) | (done & self.tolerant)] = Status.STAGNATED.code
        codes[met & (self.tolerant | (taken < steps))] = Status.CONVERGED.code
        codes[~np.isfinite(to_numpy(self.residual))] = Status.NONFINITE.code
        return codes


class _Run:
    """One run while it lasts."""

    def __init__(self, solver: Any, problem: BilevelProblem, theta: Array, start: Array | None) -> None:
        self.solver, self.theta = solver, theta
        stop = Stop(problem, theta, solver.rtol, solver.distance)
        self.here = Iterate(problem, theta, start_point(problem, theta, start), stop)
        # Sizing the rounding floor of a loss that cannot do it itself takes a product.
        self.check = Cost() if hasattr(problem.inner, "gradient_terms") else Cost(hvps=1)
        self.ends: dict[int, _End] = {}

    def go(self, directions: Directions, wanted: frozenset[int]) -> None:
        """Take the steps, keeping the ends of runs of the wanted lengths."""
        xp, solver, here = namespace(self.theta), self.solver, self.here
        active = xp.isfinite(here.residual) & (here.residual > 0)
        taken, stuck = xp.zeros(active.shape, dtype=xp.int64), xp.zeros_like(active)
        cost = Cost(gradients=1)
        for step in range(solver.steps + 1):
            cost += self.check
            self.last = _End(here, taken, stuck, cost, here.stop.asked)
            if step in wanted:
                self.ends[step] = self.last
            active = active & ~self.last.done
            if step == solver.steps or not look_again(active, step, tolerance=True):
                break
            direction, spent = directions(here, active)
            moved, trials = here.advance(direction, active)
            cost += spent + Cost(gradients=trials)
            failed = active & ~moved
            if device_of(failed) is not None or bool(xp.any(failed)):
                failed = failed & ~directions.restart(failed)
            taken = taken + xp.astype(moved, xp.int64)
            stuck, active = stuck | failed, active & ~failed
