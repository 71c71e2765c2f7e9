"""The unrolled gradient in less memory: recompute the path from a few checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import comb, isqrt
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, to_numpy
from implicit_grad.errors import ArgumentError
from implicit_grad.inner import GradientDescent
from implicit_grad.inner._step_size import step_sizes
from implicit_grad.inner.gradient_descent import step_by_step
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import statuses


@dataclass(frozen=True)
class CheckpointedGradient:
    r"""The unrolled gradient by binomial checkpointing: the same numbers, without a recorded path.

    With c checkpoints beside the start, K ≤ C(c + 1 + r, r) steps are reversed while no step is recomputed more than
    r times: c = √K recomputes a step at most 2½ times on average, c = O(log K) a logarithmic number of times.

    Parameters
    ----------
    checkpoints : int or None
        Iterates kept at any time, beside the start; None takes ⌈√K⌉.

    Notes
    -----
    Works on `GradientDescent` runs that began at θ, with or without `record`. As the unrolled gradient it does not
    ask whether the run ended at a minimum.

    References
    ----------
    Griewank, Walther, Algorithm 799: revolve, ACM TOMS 26 (2000).
    """

    checkpoints: int | None = None
    card: ClassVar[Card] = Card(
        "K HVPs + at most 7K/2 + 2 gradients",
        "√K iterates",
        "as unrolled",
        "K is large",
        saddle="as unrolled",
    )

    def __post_init__(self) -> None:
        if self.checkpoints is not None:
            border.count("checkpoints", self.checkpoints)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "checkpointed" if self.checkpoints is None else f"checkpointed, {self.checkpoints} kept"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the derivative through the whole run of `inner`.

        Raises
        ------
        ArgumentError
            If `inner` is not a `GradientDescent` run from θ.
        """
        expect_solution(inner)
        solver = inner.solver
        if not isinstance(solver, GradientDescent):
            raise ArgumentError(f"inner: only GradientDescent can be run again, got {type(solver).__name__}")
        theta = problem.parameters(theta)
        alpha, extra = step_sizes(problem, theta, solver.step_size)
        xp = namespace(theta)
        state = {"v": problem.outer.gradient(inner.value), "g": xp.zeros_like(theta)}
        spent = {"gradients": 1, "hvps": 0}

        alphas = step_by_step(alpha, inner)

        def advance(at: tuple[int, Array], steps: int) -> tuple[int, Array]:
            spent["gradients"] += steps
            first, phi = at
            return first + steps, solver.advance(problem, theta, phi, alphas, range(first, first + steps))

        def pull(at: tuple[int, Array]) -> None:
            step, phi = at
            if not spent["hvps"]:  # the last step comes first
                self._check_end(inner, advance(at, 1)[1])
            state["v"], gained = solver.pull_step(problem, phi, alphas(step), state["v"])
            spent["gradients"] += 1
            spent["hvps"] += 1
            if gained is not None:
                state["g"] = state["g"] + gained

        K = solver.steps
        slots = isqrt(max(K - 1, 0)) + 1 if self.checkpoints is None else self.checkpoints
        reverse_binomially((0, theta), K, slots, advance, pull)
        if not K:
            self._check_end(inner, theta)
        cost = inner.cost + extra + Cost(gradients=spent["gradients"], hvps=spent["hvps"])
        return Estimate(state["g"] + state["v"], inner, None, cost, statuses(inner.codes))

    def _check_end(self, inner: Solution[Any], end: Array) -> None:
        good = to_numpy(inner.ok)
        if not np.array_equal(to_numpy(end)[good], to_numpy(inner.value)[good]):
            raise ArgumentError("inner: running again from θ ends elsewhere; this run was given another start")


def reverse_binomially(
    start: Any, length: int, slots: int, advance: Callable[[Any, int], Any], pull: Callable[[Any], None]
) -> None:
    """Call `pull` on the states number length − 1, …, 1, 0 after `start`, keeping at most `slots` beside `start`.

    Parameters
    ----------
    start : state
    length : int
        Number of steps to reverse.
    slots : int
        States that may be kept beside `start`; with 0 every state is recomputed from the start.
    advance : callable
        `(state, steps) → state` that many steps later.
    pull : callable
        Reverses the step taken at a state.
    """
    while length > 1:
        if slots == 0:
            for k in range(length - 1, 0, -1):
                pull(advance(start, k))
            break
        left = binomial_split(length, slots)
        reverse_binomially(advance(start, left), length - left, slots - 1, advance, pull)
        length = left
    if length:
        pull(start)


def binomial_split(length: int, slots: int) -> int:
    """Steps to advance before the next checkpoint so that the total of recomputed steps is least.

    A run of n steps with s states besides its start needs each step at most r times if n ≤ C(s + 1 + r, r). The
    part before the checkpoint is reversed with one repetition less, the part after it with one state less.
    """
    repeats = 1
    while comb(slots + 1 + repeats, repeats) < length:
        repeats += 1
    fewest = comb(slots + repeats - 1, repeats - 2) if repeats >= 2 else 1
    left = max(fewest, length - comb(slots + repeats, repeats))
    return min(max(left, 1), length - 1)
