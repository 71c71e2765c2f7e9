"""Broken versions of the further linear solvers. Every fault has been seen in published code, or is one slip away.

The sound controls are written out here, too (`HandPCG`, `hand_block`, `hand_series`, `hand_nystrom`): what kills a
mutant is its fault, not the rewriting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from implicit_grad import (
    CG,
    Cholesky,
    Cost,
    MixedPrecision,
    NystromPreconditioner,
    Path,
    Solution,
    Status,
)
from implicit_grad.linear.operator import Operator
from implicit_grad.linear.preconditioners import Prepared

norm = np.linalg.norm


def _dense(A: Any) -> Any:
    return A.dense() if hasattr(A, "dense") else A


def _solution(A: Any, b: Any, points: Any, status: Status = Status.BUDGET_SPENT) -> Solution[Any]:
    points = np.array(points)
    residuals = norm(b - points @ _dense(A), axis=-1)
    path = Path(tuple(range(len(points))), points, residuals)
    return Solution(points[-1], residuals[-1], np.asarray(len(points) - 1), status, None, path, Cost())


# --- smallest residuals -------------------------------------------------------------------------------------------


def krylov(A: Any, b: Any, k: int) -> Any:
    """Orthonormal rows that span b, Ab, …, A^{k−1}b."""
    basis: list[Any] = []
    w = b
    for _ in range(k):
        for _ in range(2):
            for q in basis:
                w = w - (q @ w) * q
        if norm(w) <= 64 * len(b) * 2.0**-52 * (norm(A, 2) if basis else norm(b)):
            break
        basis.append(w / norm(w))
        w = A @ basis[-1]
    return np.array(basis).reshape(-1, len(b))


class HandMINRES:
    """The smallest residual in the Krylov space, by least squares: the sound control."""

    def __init__(self, max_steps: int, rtol: float = 0.0) -> None:
        self.max_steps = max_steps

    def space(self, A: Any, b: Any) -> Any:
        return krylov(A, b, self.max_steps)

    def pick(self, A: Any, b: Any, V: Any) -> Any:
        return V.T @ np.linalg.lstsq(A @ V.T, b, rcond=None)[0]

    def witness(self, A: Any, V: Any) -> Any:
        return np.linalg.eigvalsh(V @ A @ V.T)[0] if len(V) else np.inf

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        V = self.space(A, b)
        x = self.pick(A, b, V) if len(V) else 0 * b
        return replace(_solution(A, b, [x]), smallest_eigenvalue=np.asarray(self.witness(A, V)))


class Galerkin(HandMINRES):
    """CG sold as MINRES: the residual is orthogonal to the space, not smallest."""

    def pick(self, A: Any, b: Any, V: Any) -> Any:
        return V.T @ np.linalg.solve(V @ A @ V.T, V @ b)


class ShortSpace(HandMINRES):
    """Restarts after two vectors, from zero."""

    def space(self, A: Any, b: Any) -> Any:
        return krylov(A, b, min(2, self.max_steps))


class SmallestError(HandMINRES):
    """SYMMLQ's space A·K: the same error, another residual."""

    def space(self, A: Any, b: Any) -> Any:
        return krylov(A, A @ b, self.max_steps)


class LastQuotient(HandMINRES):
    """Reports the last Rayleigh quotient for the smallest Ritz value."""

    def witness(self, A: Any, V: Any) -> Any:
        return V[-1] @ A @ V[-1] if len(V) else np.inf


class Overshooting(HandMINRES):
    """Takes twice the step."""

    def pick(self, A: Any, b: Any, V: Any) -> Any:
        return 2 * super().pick(A, b, V)


# --- preconditioners ----------------------------------------------------------------------------------------------


class HandPCG:
    """Preconditioned conjugate gradient, written out: the sound control."""

    def __init__(self, max_steps: int, rtol: float = 0.0, preconditioner: Any = None, record: bool = False) -> None:
        self.max_steps, self.preconditioner = max_steps, preconditioner

    def beta(self, rz: Any, before: Any, rr: Any, rr_before: Any) -> Any:
        return rz / before

    def alpha(self, rz: Any, rr: Any, curvature: Any) -> Any:
        return rz / curvature

    def twice(self, apply: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return apply

    def floor(self, rr: Any) -> Any:
        return 1e-63 * rr

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        made = self.preconditioner
        if hasattr(made, "prepare"):
            from implicit_grad.linear.operator import matrix_operator

            made = made.prepare(matrix_operator(A)).apply
        apply = self.twice(made)
        unit = np.abs(apply(b)).max()
        x, r = np.zeros_like(b), b
        z = apply(r) / unit
        p, rz, rr, points, floor = z, r @ z, r @ r, [x], self.floor(b @ b)
        for _ in range(self.max_steps):
            curvature = p @ (A @ p)
            if rr <= floor or not curvature > 0:
                points.append(x)
                continue
            alpha = self.alpha(rz, rr, curvature)
            x, r = x + alpha * p, r - alpha * (A @ p)
            z = apply(r) / unit
            rz, before, rr, rr_before = r @ z, rz, r @ r, rr
            p = z + self.beta(rz, before, rr, rr_before) * p
            points.append(x)
        return _solution(A, b, points)


class PlainBeta(HandPCG):
    """Takes β from rᵀr, as without a preconditioner."""

    def beta(self, rz: Any, before: Any, rr: Any, rr_before: Any) -> Any:
        return rr / rr_before


class PlainAlpha(HandPCG):
    """Takes α from rᵀr, as without a preconditioner."""

    def alpha(self, rz: Any, rr: Any, curvature: Any) -> Any:
        return rr / curvature


class AppliedTwice(HandPCG):
    """Preconditions with M⁻² for M⁻¹."""

    def twice(self, apply: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda r: apply(apply(r))


class AbsoluteFloor(HandPCG):
    """Compares zᵀz with a fixed number, so that the scale of M decides."""

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        z = self.preconditioner(b)
        with np.errstate(all="ignore"):
            return super().__call__(A, b) if 1e-30 < z @ z < 1e30 else _solution(A, b, [np.zeros_like(b)])


class UnscaledFloor(NystromPreconditioner):
    """Leaves (λ̂_r + λ) out of the preconditioner: what is left alone is not on the scale of the rest."""

    def prepare(self, A: Operator) -> Prepared:
        prepared = super().prepare(A)
        sigma = float(A.shift)
        H = A.dense() - sigma * np.eye(A.size)
        floor = 1e3 * (norm(H, 2) + sigma)
        eye = np.eye(A.size)
        inverse = np.array([prepared.apply(e) for e in eye])
        values, U = np.linalg.eigh(0.5 * (inverse + inverse.T))
        values = np.where(values < 1 - 1e-9, values / floor, values)
        inverse = (U * values) @ U.T
        return replace(prepared, apply=lambda r: r @ inverse)


# --- blocks -------------------------------------------------------------------------------------------------------


class HandBlock:
    """Block CG by Galerkin's condition on the block Krylov space: the sound control."""

    def __init__(self, max_steps: int, rtol: float = 0.0, record: bool = False) -> None:
        self.max_steps, self.rtol = max_steps, rtol

    def columns(self, B: Any) -> Any:
        return B

    def steps_of(self, b: Any, k: int) -> int:
        return k if b.any() else 0

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        B = np.reshape(b, (-1, b.shape[-1]))
        points = [np.zeros_like(B)]
        for k in range(1, min(self.max_steps, 3 * B.shape[-1]) + 1):
            V = self.basis(A, self.columns(B), k)
            points.append(np.linalg.solve(V @ A @ V.T, V @ B.T).T @ V)
        points += [points[-1]] * (self.max_steps + 1 - len(points))
        stack = np.reshape(points, (-1, *b.shape))
        solution = _solution(A, b, stack)
        status = np.full(b.shape[:-1], Status.CONVERGED, dtype=object)
        steps = np.array([self.steps_of(row, self.max_steps) for row in B]).reshape(b.shape[:-1])
        return replace(solution, status=status, steps=steps)

    def basis(self, A: Any, B: Any, k: int) -> Any:
        rows = [b / (norm(b) or 1.0) for b in B]
        kept: list[Any] = []
        for _ in range(k):
            fresh = []
            for row in rows:
                w = row
                for _ in range(2):
                    for q in kept:
                        w = w - (q @ w) * q
                if norm(w) > 1e-8 * norm(row):
                    kept.append(w / norm(w))
                    fresh.append(A @ kept[-1] / norm(A, 2))
            rows = fresh
        return np.array(kept)


class OneColumn(HandBlock):
    """Every column uses the Krylov space of the first."""

    def columns(self, B: Any) -> Any:
        return B[:1]


class ColumnByColumn(HandBlock):
    """A loop over conjugate gradients sold as a block."""

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        B = np.reshape(b, (-1, b.shape[-1]))
        paths = [CG(self.max_steps, record=True)(A, row).path for row in B]
        points = np.stack([path.points for path in paths], axis=1)  # type: ignore[union-attr]
        return _solution(A, b, points.reshape(-1, *b.shape))


class Transposed(HandBlock):
    """αᵀ for α: the columns get each other's coefficients."""

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        solution = super().__call__(A, b)
        B = np.reshape(b, (-1, b.shape[-1]))
        return replace(solution, value=np.reshape(solution.value, B.shape)[::-1].reshape(b.shape))


class Singular(HandBlock):
    """Does not look for dependent right-hand sides: a singular block ends in zeros."""

    def __call__(self, A: Any, b: Any) -> Solution[Any]:
        solution = super().__call__(A, b)
        B = np.reshape(b, (-1, b.shape[-1]))
        if np.linalg.matrix_rank(B, tol=1e-12) < len(B):
            solution = replace(solution, value=0 * solution.value)
        return solution


# --- Neumann ------------------------------------------------------------------------------------------------------


def hand_series(step_size: float, steps: int, record: bool = True, **fault: Any) -> Any:
    """The series written out: the sound control. `fault` changes one thing."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        matrix, alpha = _dense(A), step_size
        points, term, status = [np.zeros_like(b)], b, Status.BUDGET_SPENT
        for _ in range(steps):
            with np.errstate(over="ignore", invalid="ignore"):
                following = term - alpha * (matrix @ term)
                grows = not norm(following) < norm(term)
            if grows:
                status = fault.get("status", Status.DIVERGED) if not fault.get("blind") else status
                if not fault.get("blind"):
                    break
            points.append(points[-1] + fault.get("scale", alpha) * term)
            term = following
        if fault.get("late"):
            points = [*points[1:], points[-1]]
        points += [points[-1]] * (steps + 1 - len(points))
        return _solution(A, b, points, status)

    return solve


unscaled_series = partial(hand_series, scale=1.0)
blind_series = partial(hand_series, blind=True)
late_series = partial(hand_series, late=True)


def ahead(step_size: float, steps: int) -> Any:
    """No polynomial of the degree: conjugate gradient, one step ahead."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        path = CG(steps + 1, record=True)(A, b).path
        assert path is not None
        return _solution(A, b, path.points[1:])

    return solve


def one_term_more(step_size: float, steps: int) -> Any:
    """Off by one."""
    return hand_series(step_size, steps + 1)


def damped_series(step_size: float, steps: int, record: bool = True) -> Any:
    """2I + H/λ for I + H/λ, in the spirit of an additional damping."""
    sound = hand_series(step_size, steps)

    def solve(A: Any, b: Any) -> Solution[Any]:
        matrix = _dense(A)
        return sound(matrix + 0.1 * norm(matrix, 2) * np.eye(len(b)), b)

    return solve


def normalised_series(spec: Any) -> Any:
    """Scales every term to the length of the first: no longer linear."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        x, term = np.zeros_like(b), b
        for _ in range(3):
            x = x + term / spec.kappa
            term = term - A @ term / spec.kappa
            term = term * (norm(b) / (norm(term) or 1.0))
        return _solution(A, b, [x])

    return solve


# --- Nyström ------------------------------------------------------------------------------------------------------


def hand_nystrom(
    rank: int, seed: int = 3, damping: float = 0.0, core: bool = True, factor: float = 1.0, own: bool = False
) -> Any:
    """Nyström by its formula: the sound control, up to the noise of a pseudo-inverse."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        d, lam = A.size, float(A.shift)
        omega = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, rank)))[0]
        Y = A(omega.T).T - (0.0 if own else lam) * omega
        middle = omega.T @ Y
        values, W = np.linalg.eigh(0.5 * (middle + middle.T))
        live = values > 16 * d * 2.0**-52 * (norm(Y) + lam)
        inverse = (W[:, live] / values[live]) @ W[:, live].T
        H = Y @ inverse @ Y.T if core else Y @ omega.T
        M = factor * 0.5 * (H + H.T) + (lam + damping * norm(Y, 2)) * np.eye(d)
        return replace(_solution(np.eye(d), b, [np.linalg.solve(M, b.T).T]), residual_norm=np.asarray(0.0))

    return solve


damped_nystrom = partial(hand_nystrom, damping=1e-2)
projected_nystrom = partial(hand_nystrom, core=False)
shift_in_the_sketch = partial(hand_nystrom, own=True)
swollen = partial(hand_nystrom, factor=1.3)


def negated(rank: int, seed: int = 3) -> Any:
    """Subtracts Ĥ where it should be added."""
    return hand_nystrom(rank, seed, factor=-1e-3)


# --- mixed precision ----------------------------------------------------------------------------------------------


def refined(max_steps: int, rtol: float = 0.0) -> MixedPrecision:
    """The sound control."""
    return MixedPrecision(Cholesky(), max_steps, rtol, dense=True)


def refined_in_single(max_steps: int, rtol: float = 0.0) -> Any:
    """Computes the residuals in float32: no digit is gained."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        coarse, x = A.astype(np.float32), np.zeros_like(b)
        for _ in range(max_steps):
            r = b.astype(np.float32) - coarse @ x.astype(np.float32)
            x = x + np.linalg.solve(coarse, r).astype(float)
        return _solution(A, b, [x])

    return solve


def accumulated_in_single(max_steps: int, rtol: float = 0.0) -> Any:
    """Adds the corrections up in float32."""

    def solve(A: Any, b: Any) -> Solution[Any]:
        coarse, x = A.astype(np.float32), np.zeros_like(b)
        for _ in range(max_steps):
            y = np.linalg.solve(coarse, (b - A @ x).astype(np.float32))
            x = (x.astype(np.float32) + y).astype(float)
        return _solution(A, b, [x])

    return solve


# --- every method -------------------------------------------------------------------------------------------------


def own_alpha(max_steps: int, rtol: float = 0.0) -> Any:
    """A step size of its own, whatever the scale of A."""
    return hand_series(0.1, max_steps)
