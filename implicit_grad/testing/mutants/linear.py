"""Broken linear solvers. Every fault has been seen in published code, or is one slip away from it.

`HandCG` is a sound control, and each mutant is that control with one fault: what kills it is the fault, not the
rewriting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from implicit_grad.results import Cost, Path, Solution
from implicit_grad.status import Status

norm = np.linalg.norm


class HandCG:
    """Conjugate gradient, written out: the sound control."""

    dtype: Any = np.float64

    def __init__(self, max_steps: int, rtol: float = 0.0, record: bool = False) -> None:
        self.max_steps, self.rtol, self.record = max_steps, rtol, record

    def direction(self, new: Any, old: Any, p: Any, beta: Any) -> Any:
        """Return the next direction."""
        return new + beta * p

    def move(self, alpha: Any) -> Any:
        """Return the step length that x takes."""
        return alpha

    def done(self, rr: Any, bb: Any) -> bool:
        """Whether to stop."""
        return bool(rr <= max(self.rtol, 1e-32) ** 2 * bb)

    def refuse(self, curvature: Any) -> bool:
        """Whether pᵀAp is no curvature to step along."""
        return bool(curvature <= 0)

    def returned(self, points: list[Any]) -> list[Any]:
        """Return the iterates that are handed out."""
        return points

    def residuals(self, true: Any, recursive: Any) -> Any:
        """Return the residuals that are reported."""
        return true

    def verdict(self, residual: Any, attainable: Any, size: Any) -> Status:
        """Return the status."""
        if residual == 0 or (
            self.rtol > 0 and residual <= max(self.rtol * size, attainable * (attainable < 1e-2 * size))
        ):
            return Status.CONVERGED
        return Status.MAX_STEPS if self.rtol > 0 else Status.BUDGET_SPENT

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        """Solve A x = b."""
        apply = A if callable(A) else A.__matmul__
        scale = 2.0 ** np.floor(np.log2(np.abs(b).max() or 1.0))
        b = b / scale
        x, r = np.zeros_like(b, dtype=self.dtype), b.astype(self.dtype)
        p, rr, bb, points, recursive, saddle = r, r @ r, r @ r, [x], [norm(r)], None
        while len(points) <= self.max_steps and not self.done(rr, bb):
            Ap = apply(p).astype(self.dtype)
            curvature = p @ Ap
            if self.refuse(curvature):
                saddle = curvature / (p @ p)
                break
            alpha = rr / curvature
            x, old, r = x + self.move(alpha) * p, r, r - alpha * Ap
            rr, before = r @ r, rr
            p = self.direction(r, old, p, rr / before)
            points.append(x)
            recursive.append(norm(r))
        steps = len(points) - 1
        points = self.returned(points)
        points += [points[-1]] * (self.max_steps + 1 - len(points))
        recursive += [recursive[-1]] * (self.max_steps + 1 - len(recursive))
        stack = np.array(points).astype(b.dtype)
        true = np.array([norm(b - apply(point)) for point in stack])
        shown = self.residuals(true, np.array(recursive))
        terms = norm(apply(np.eye(b.size)), 2) * norm(stack[-1]) + norm(b)
        status = Status.INDEFINITE
        if saddle is None:
            status = self.verdict(shown[-1], 10 * b.size * 2.0**-52 * terms, norm(b))
        path = Path(tuple(range(len(stack))), stack * scale, shown * scale) if self.record else None
        return Solution(stack[-1] * scale, shown[-1] * scale, np.asarray(steps), status, self, path, Cost(), saddle)


class PreviousIterate(HandCG):
    """Stops with the iterate before the last update."""

    def returned(self, points: list[Any]) -> list[Any]:
        """Return the iterates that are handed out."""
        return [points[0], *points[:-1]]


class StaleResidual(HandCG):
    """Builds the new direction from the old residual."""

    def direction(self, new: Any, old: Any, p: Any, beta: Any) -> Any:
        """Return the next direction."""
        return old + beta * p


class UnscaledUpdate(HandCG):
    """Has a step size of its own for x, which the residual does not hear of."""

    def move(self, alpha: Any) -> Any:
        """Return the step length that x takes."""
        return 0.5 * alpha


class Overshooting(HandCG):
    """Takes twice the step."""

    def move(self, alpha: Any) -> Any:
        """Return the step length that x takes."""
        return 2 * alpha


class SteepestDescent(HandCG):
    """Forgets the conjugation."""

    def direction(self, new: Any, old: Any, p: Any, beta: Any) -> Any:
        """Return the next direction."""
        return new


class AbsoluteTolerance(HandCG):
    """Stops at rᵀr < 1e-10, whatever the size of b."""

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        """Solve A x = b."""
        self.size = float(np.abs(b).max())
        return super().__call__(A, b)

    def done(self, rr: Any, bb: Any) -> bool:
        """Whether to stop."""
        return super().done(rr, bb) or bool(rr**0.5 * self.size < 1e-5)


class RecursiveResidual(HandCG):
    """Works in float32 and reports the residual of the recurrence, which goes to zero regardless."""

    dtype = np.float32

    def residuals(self, true: Any, recursive: Any) -> Any:
        """Return the residuals that are reported."""
        return recursive


class SinglePrecision(HandCG):
    """Works in float32 inside."""

    dtype = np.float32


class AlwaysContent(HandCG):
    """Calls everything converged, no steps at all included."""

    def verdict(self, residual: Any, attainable: Any, size: Any) -> Status:
        """Return the status."""
        return Status.CONVERGED


class ZeroOnFailure(AlwaysContent):
    """Hands back its starting point where it did not get there, and says nothing."""

    def returned(self, points: list[Any]) -> list[Any]:
        """Return the iterates that are handed out."""
        return points if len(points) <= self.max_steps else [points[0]] * len(points)


class SaddleAccepting(HandCG):
    """Does not look at the sign of pᵀAp."""

    def refuse(self, curvature: Any) -> bool:
        """Whether pᵀAp is no curvature to step along."""
        return bool(curvature == 0)


class Tireless(HandCG):
    """Never stops before max_steps."""

    def done(self, rr: Any, bb: Any) -> bool:
        """Whether to stop."""
        return bool(rr == 0)


def dense_solver(solve: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Solution[Any]]:
    """A direct solver from a function of the dense matrix, with an honest residual and an eager status."""

    def call(A: Any, b: Any) -> Solution[Any]:
        matrix = A.dense() if hasattr(A, "dense") else A
        x = solve(matrix, b)
        return Solution(x, norm(b - matrix @ x), np.asarray(1), Status.CONVERGED, None)

    return call


def diagonal_blocks(A: Any) -> Any:
    """What is left of A when the blocks that couple the two halves of the parameters are dropped."""
    half = (len(A) + 1) // 2
    blocks = A.copy()
    blocks[:half, half:] = 0
    blocks[half:, :half] = 0
    return blocks


def normal_equations(A: Any, b: Any) -> Any:
    """Squares the condition number."""
    return np.linalg.solve(A.T @ A, A.T @ b)


def in_single_precision(A: Any, b: Any) -> Any:
    """Rounds to float32 inside."""
    return np.linalg.solve(A.astype(np.float32), b.astype(np.float32)).astype(np.float64)
