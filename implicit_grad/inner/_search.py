"""The loop of methods that choose a direction and search along it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, any_of, dot, look_again, namespace
from implicit_grad.inner._line_search import Iterate, iterate_at
from implicit_grad.inner._protocol import start_point
from implicit_grad.inner._recording import check_memory, kept_steps
from implicit_grad.inner.stopping import Stop
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Path, Solution
from implicit_grad.status import Status, all_codes, marked, statuses

_MOST_LENGTHS = 40


class Directions(Protocol):
    """Where to go from an iterate, on one batch of problems."""

    def __call__(self, here: Iterate, fresh: Array) -> tuple[Array, Cost]:
        """Return a direction downhill for the problems that just got where they are; others do not look at theirs."""
        ...

    def restart(self, failed: Array) -> Array:
        """Forget what led to directions without a step; say for which of the failed there was anything to forget."""
        ...


class Search:
    """One run of a method that searches along directions, every problem at its own pace.

    A step is one length tried along a direction, 1 and then shorter, until one is good enough to move by.
    That takes one linearisation, of all problems together. Nobody waits for a neighbour's search, a device is not
    asked how one went, and what a run costs is known before.

    Parameters
    ----------
    steps : int
    record : bool or tuple of int
    stop : Stop
        A problem stops where its tolerances are met, where its residual is down to what rounding leaves, and where no
        length is better than standing still.
    tolerant : bool
        Whether steps that run out are a failure.
    polish : bool
        Take one whole step more from where a problem could stop, and keep it if it makes the residual smaller.
    looks : int
        A device is asked so often, in steps, whether all problems are done; those that are stand still. Without a
        tolerance it is never asked.
    """

    def __init__(
        self,
        problem: BilevelProblem,
        theta: Array,
        start: Array | None,
        stop: Stop,
        *,
        steps: int,
        record: bool | tuple[int, ...] = False,
        tolerant: bool | None = None,
        polish: bool = False,
        looks: int = 8,
    ) -> None:
        self.theta, self.steps, self.stop, self.polish, self.looks = theta, steps, stop, polish, looks
        self.kept = kept_steps(record, steps)
        check_memory(theta, len(self.kept))
        self.tolerant = stop.asked if tolerant is None else tolerant
        self.starts_at_theta = start is None
        self.here = iterate_at(problem, theta, start_point(problem, theta, start))
        # Sizing the rounding floor of a loss that cannot do it itself takes a product.
        self.check = Cost() if hasattr(problem.inner, "gradient_terms") else Cost(hvps=1)
        self.ends: dict[int, _End] = {}

    def run(self, solver: Any, directions: Directions) -> Solution[Any]:
        """Take the steps."""
        self._go(directions)
        xp, last, path = namespace(self.theta), self.last, None
        if self.kept:
            ends = [self.ends.get(step, last) for step in self.kept]
            path = Path(
                self.kept,
                xp.stack([end.phi for end in ends], axis=0),
                xp.stack([end.residual for end in ends], axis=0),
                codes=xp.stack([end.codes(step) for step, end in zip(self.kept, ends, strict=True)], axis=0),
                costs=tuple(end.cost for end in ends),
                starts_at_theta=self.starts_at_theta,
            )
        status = statuses(last.codes(self.steps))
        return Solution(last.phi, last.residual, last.taken, status, solver, path, last.cost)

    def _go(self, directions: Directions) -> None:
        xp, here, wanted = namespace(self.theta), self.here, frozenset(self.kept)
        active = xp.isfinite(here.residual) & (here.residual > 0)
        stuck = polishing = xp.zeros_like(active)
        taken, tried = (xp.zeros(active.shape, dtype=xp.int64) for _ in range(2))
        fresh, step, slope = active, xp.zeros_like(here.phi), xp.zeros_like(here.residual)
        cost = Cost(gradients=1)
        for count in range(self.steps + 1):
            cost += self.check
            done, met = here.verdict(self.stop)
            self.last = _End(here, done, met, taken, stuck, cost, self.tolerant)
            if count in wanted:
                self.ends[count] = self.last
            active = active & ~(done & polishing if self.polish else done)
            polishing = done & active if self.polish else polishing
            if count == self.steps or not look_again(active, count, tolerance=self.stop.asked, every=self.looks):
                break
            fresh = fresh & active
            if any_of(fresh):
                way, spent = directions(here, fresh)
                step = xp.where(fresh[..., None], way, step)
                with np.errstate(over="ignore", invalid="ignore"):
                    slope = xp.where(fresh, dot(here.gradient, way), slope)
                tried = xp.where(fresh, xp.zeros_like(tried), tried)
                cost += spent
            step = xp.where(active[..., None], step, xp.zeros_like(step))
            still = xp.all(here.phi + step == here.phi, axis=-1)  # and a shorter one would be no step either
            moved, here, shorter = here.attempt(step, slope, active, polishing)
            cost += Cost(gradients=1)
            taken = taken + xp.astype(active, xp.int64)
            step, slope, tried = shorter[..., None] * step, shorter * slope, tried + 1
            failed = active & ~moved & ((tried >= _MOST_LENGTHS) | still)
            fresh = moved
            if any_of(failed):
                again = directions.restart(failed)
                failed = failed & ~again
                stuck, active, fresh = stuck | failed, active & ~failed, fresh | again


class _End:
    """What a run that stops here would return."""

    def __init__(
        self, here: Iterate, done: Array, met: Array, taken: Array, stuck: Array, cost: Cost, tolerant: bool
    ) -> None:
        self.phi, self.residual, self.taken, self.cost = here.phi, here.residual, taken, cost
        self.done, self.met, self.stuck, self.tolerant = done, met, stuck, tolerant

    def codes(self, steps: int) -> Array:
        """Status codes of a run of so many steps."""
        early = self.taken < steps
        stopped = (self.stuck & early) | (self.done & self.tolerant)
        codes = all_codes(self.met, Status.MAX_STEPS if self.tolerant else Status.BUDGET_SPENT)
        codes = marked(codes, stopped, Status.STAGNATED)
        codes = marked(codes, self.met if self.tolerant else self.met & early, Status.CONVERGED)
        return marked(codes, ~namespace(codes).isfinite(self.residual), Status.NONFINITE)
