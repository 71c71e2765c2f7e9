"""Block conjugate gradient: several right-hand sides of one A share their Krylov spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, join, look_again, namespace, norm, transpose
from implicit_grad.linear._restarts import Iterates, Run, solve_restarting, target_of
from implicit_grad.linear._system import System, prepare
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class BlockCG:
    r"""Conjugate gradient with a block of s right-hand sides sharing one A.

    .. math:: P_k = \operatorname{orth}(R_k + P_{k-1}\beta_k), \quad
              \alpha_k = (P_k^\top A P_k)^{-1} P_k^\top R_k, \quad X_{k+1} = X_k + P_k\alpha_k, \quad
              R_{k+1} = R_k - A P_k\alpha_k, \quad \beta_{k+1} = -(P_k^\top A P_k)^{-1} (A P_k)^\top R_{k+1}

    Each column minimises the energy error over the sum of all s Krylov spaces, so it is never behind its own CG,
    and the block is exact after about d/s steps. The axes of b before those of A are the block: b `(s, d)` with A
    `(d, d)`, or b `(s, T, d)` with A `(T, d, d)`. Without such axes it is conjugate gradient.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        A column stops when its recomputed residual satisfies ‖b − A x‖ ≤ rtol ‖b‖, and leaves the block.
    record : bool
        Keep every iterate in `Solution.path`.

    Notes
    -----
    One product a step for every right-hand side; s² inner products besides, and s·d numbers. The block is
    orthonormalised in every step, and directions that depend on others to √eps are left out: equal, dependent,
    zero and converged right-hand sides do not break it down. The eigenvalues of PᵀAP are Ritz values of A: where
    the smallest is ≤ eps ‖A‖ the whole block is `INDEFINITE`, and `Solution.smallest_eigenvalue` is the smallest
    one met.

    References
    ----------
    O'Leary, The block conjugate gradient algorithm, Linear Algebra Appl. 29, 1980; Ji & Li, A breakdown-free
    block conjugate gradient method, BIT 57, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> solution = BlockCG(1)(np.diag([1.0, 4.0]), np.array([[1.0, 1.0], [1.0, -1.0]]))
    >>> solution.value.round(12)
    array([[ 1.  ,  0.25],
           [ 1.  , -0.25]])
    """

    max_steps: int
    rtol: float = 0.0
    record: bool = field(default=False, kw_only=True)
    card: ClassVar[Card] = Card(
        "k + 1 HVPs for each b",
        "s·d",
        "2((√κ−1)/(√κ+1))ᵏ, κ without its s − 1 smallest",
        "a single b: use CG",
        saddle="refused once a Ritz value of the block is ≤ 0",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("record", self.record)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"block CG-{self.max_steps}" if self.rtol == 0 else f"block CG({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[BlockCG]:
        """Solve A X = B."""
        system = prepare(A, b)
        return solve_restarting(self, system, partial(_recurrence, _Layout(system), self.rtol > 0))


class _Layout:
    """Moves between `(*block, *problems, d)` and `(*problems, s, d)`."""

    def __init__(self, system: System) -> None:
        own = len(system.A.batch_shape)
        self.A: Operator = system.A
        self.block = system.shape[: len(system.shape) - own]
        self.problems = system.shape[len(system.shape) - own :]
        self.count = math.prod(self.block)

    def gather(self, x: Array, core: int = 1) -> Array:
        """Right-hand sides of one problem side by side; the last `core` axes belong to each."""
        xp, tail = namespace(x), x.shape[x.ndim - core :] if core else ()
        flat = xp.reshape(x, (self.count, *self.problems, *tail))
        return xp.moveaxis(flat, 0, len(self.problems))

    def scatter(self, x: Array, core: int = 1) -> Array:
        """Undo `gather`."""
        xp, tail = namespace(x), x.shape[x.ndim - core :] if core else ()
        return xp.reshape(xp.moveaxis(x, len(self.problems), 0), (*self.block, *self.problems, *tail))

    def apply(self, P: Array) -> Array:
        """A times every row."""
        xp = namespace(P)
        rows = xp.moveaxis(P, -2, 0)
        stack = self.A(rows) if self.A.stacks else xp.stack([self.A(rows[i, ...]) for i in range(rows.shape[0])])
        return xp.moveaxis(stack, 0, -2)

    def spread(self, per_problem: Array) -> Array:
        """One number a problem → one a right-hand side."""
        xp = namespace(per_problem)
        return xp.broadcast_to(per_problem, (*self.block, *self.problems))


def _recurrence(
    layout: _Layout, tolerance: bool, r: Array, limit: int, goal: Array, x: Array, iterates: Iterates | None
) -> Run:
    """Advance all columns; those that are done are frozen by a zero row."""
    xp, eps = namespace(r), epsilon(r)
    X, R = layout.gather(x), layout.gather(r)
    target = layout.gather(target_of(r, goal), 0)
    active = xp.sum(R * R, axis=-1) > target
    steps = xp.zeros(active.shape, dtype=xp.int64)
    P = xp.zeros_like(R)
    beta = xp.zeros((*R.shape[:-1], R.shape[-2]), dtype=R.dtype)
    smallest = xp.full(layout.problems, float("inf"), dtype=R.dtype)
    largest = xp.zeros(layout.problems, dtype=R.dtype)
    negative = xp.zeros(layout.problems, dtype=xp.bool) if hasattr(xp, "bool") else smallest < 0
    nonfinite, iterations = negative, 0
    with np.errstate(over="ignore", invalid="ignore"):
        while iterations < limit and look_again(active, iterations, tolerance=tolerance):
            D = xp.where(active[..., None], R + beta @ P, xp.zeros_like(R))
            # An iterate or a residual that has overflowed: LAPACK would give up on all problems.
            usable = xp.all(xp.all(xp.isfinite(D), axis=-1), axis=-1)
            nonfinite, active = nonfinite | ~usable, active & usable[..., None]
            here = xp.any(active, axis=-1)
            P, live = _orthonormal_rows(xp.where(usable[..., None, None], D, xp.zeros_like(D)))
            Q = layout.apply(P)
            iterations += 1
            finite = xp.all(xp.all(xp.isfinite(Q), axis=-1), axis=-1)
            nonfinite = nonfinite | (here & ~finite)
            Q = xp.where(finite[..., None, None], Q, P)
            values, W = _ritz(P @ transpose(Q), live)
            low, high = values[..., 0], values[..., -1]
            good = here & finite
            smallest = xp.where(good & (low < smallest), low, smallest)
            largest = xp.where(good & (high > largest), high, largest)
            positive = low > eps * largest
            negative = negative | (good & ~positive)
            active = active & (good & positive)[..., None]
            inverse = (W / xp.where(positive[..., None], values, xp.ones_like(values))[..., None, :]) @ transpose(W)
            alpha = transpose(inverse @ (P @ transpose(R)))
            alpha = xp.where(active[..., None], alpha, xp.zeros_like(alpha))
            X = X + alpha @ P
            R = R - alpha @ Q
            steps = steps + xp.astype(active, xp.int64)
            if iterates is not None:
                iterates.append(layout.scatter(X))
            active = active & (xp.sum(R * R, axis=-1) > target)
            beta = -transpose(inverse @ (Q @ transpose(R)))
    failed = {Status.NONFINITE: layout.spread(nonfinite), Status.INDEFINITE: layout.spread(negative)}
    spectrum = layout.spread(smallest), layout.spread(largest)
    return Run(layout.scatter(X), layout.scatter(steps, 0), iterations, failed, *spectrum)


def _orthonormal_rows(D: Array) -> tuple[Array, Array]:
    """Orthonormal rows that span those of D, zero rows in place of dependent ones, and which are live."""
    xp = namespace(D)
    size = norm(D)
    unit = D / xp.where(size > 0, size, xp.ones_like(size))[..., None]
    _, sizes, rows = xp.linalg.svd(unit, full_matrices=False)
    live = (sizes > epsilon(D) ** 0.5 * sizes[..., :1]) & (sizes > 0)
    rows = xp.where(live[..., None], rows, xp.zeros_like(rows))
    missing = D.shape[-2] - rows.shape[-2]
    if missing > 0:  # more right-hand sides than parameters
        rows = join([rows, xp.zeros_like(D[..., :missing, :])], axis=-2)
        live = join([live, xp.zeros_like(D[..., :missing, 0]) != 0], axis=-1)
    return rows, live


def _ritz(C: Array, live: Array) -> tuple[Array, Array]:
    """Eigenvalues and vectors of PᵀAP; rows that are not live get the largest diagonal entry, out of the way."""
    xp = namespace(C)
    # CuPy has no linalg.diagonal, and the array API no diagonal outside of linalg.
    linalg = xp.linalg
    diagonal = linalg.diagonal(C) if hasattr(linalg, "diagonal") else xp.diagonal(C, axis1=-2, axis2=-1)
    filler = xp.where(
        live, xp.zeros_like(diagonal), xp.max(xp.where(live, diagonal, diagonal * 0), axis=-1)[..., None]
    )
    C = 0.5 * (C + transpose(C)) + filler[..., None] * xp.eye(C.shape[-1], dtype=C.dtype)
    return xp.linalg.eigh(C)
