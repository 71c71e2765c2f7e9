"""Conjugate gradient on a batch of systems."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, add_scaled, dot, epsilon, look_again, namespace
from implicit_grad.linear._restarts import Iterates, Run, solve_restarting, target_of
from implicit_grad.linear._system import prepare
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class CG:
    r"""Conjugate gradient (Hestenes & Stiefel 1952) from x₀ = 0, for all problems of a batch at once.

    .. math:: \alpha_k = \frac{r_k^\top r_k}{p_k^\top A p_k}, \quad x_{k+1} = x_k + \alpha_k p_k, \quad
              r_{k+1} = r_k - \alpha_k A p_k, \quad
              p_{k+1} = r_{k+1} + \frac{r_{k+1}^\top r_{k+1}}{r_k^\top r_k}\, p_k

    with the error :math:`\lVert x_k - x\rVert_A \le 2\left(\frac{\sqrt\kappa-1}{\sqrt\kappa+1}\right)^k
    \lVert x\rVert_A`. The iterates equal those of `scipy.sparse.linalg.cg`.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps ("CG-5").
    rtol : float
        A problem stops when its recomputed residual satisfies ‖b − A x‖ ≤ rtol ‖b‖. The recurrence only
        proposes to stop: where the recomputed residual disagrees, the iteration restarts from it.
    record : bool
        Keep every iterate in `Solution.path`: one run then serves every step count up to `max_steps`.

    Notes
    -----
    Each step costs one product with A, and the final residual another. Where pᵀAp ≤ eps ‖A‖ pᵀp the matrix is
    not positive definite in this precision: that problem keeps the iterate before p and is `INDEFINITE`, its
    neighbours go on. Negative curvature that the k directions do not meet is not seen, nor is any if b is orthogonal
    to it. On a device nothing is read inside the loop with `rtol=0`; with a tolerance every eighth step
    asks whether all problems are done, and up to seven products too many are made (and counted).
    `Solution.smallest_eigenvalue` is the smallest Rayleigh quotient met, an upper bound of λ_min(A).

    Examples
    --------
    >>> import numpy as np
    >>> solution = CG(max_steps=2)(np.diag([1.0, 4.0]), np.array([1.0, 1.0]))
    >>> solution.value.round(12), int(solution.steps)
    (array([1.  , 0.25]), 2)
    """

    max_steps: int
    rtol: float = 0.0
    record: bool = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "k + 1 HVPs",
        "4 vectors",
        "2√κ((√κ−1)/(√κ+1))ᵏ",
        "κ is large; stops at negative curvature",
        saddle="refused once pᵀAp ≤ 0; unseen where k steps from b do not reach it",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("record", self.record)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"CG-{self.max_steps}" if self.rtol == 0 else f"CG({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[CG]:
        """Solve A x = b."""
        system = prepare(A, b)
        return solve_restarting(self, system, partial(conjugate_gradient, system.A, tolerance=self.rtol > 0))


def conjugate_gradient(
    apply: Operator,
    r: Array,
    limit: int,
    goal: Array,
    x: Array,
    iterates: Iterates | None = None,
    *,
    tolerance: bool = True,
) -> Run:
    """Advance x by conjugate gradient on A e = r until ‖r_k‖ ≤ goal in the recurrence, or `limit` steps.

    Problems that are done are frozen by a zero direction: the arithmetic of the others is untouched. On a device
    the loop asks only now and then whether all are, and without a `tolerance` never.
    """
    xp = namespace(r)
    rs, target = dot(r, r), target_of(r, goal)
    active = rs > target
    steps = xp.zeros(rs.shape, dtype=xp.int64)
    negative, nonfinite = xp.zeros_like(active), xp.zeros_like(active)
    smallest, largest = xp.full_like(rs, float("inf")), xp.zeros_like(rs)
    unseen = smallest
    x, r, p, scratch = _own(x), _own(r), _own(r), xp.empty_like(r)
    iterations = 0
    whole = _freeze(p, active)
    with np.errstate(over="ignore", invalid="ignore"):
        while iterations < limit and (whole or look_again(active, iterations, tolerance=tolerance)):
            Ap = apply(p)
            curvature, length = dot(p, Ap), dot(p, p)
            quotient = _ratio(curvature, length, active, whole)
            smallest = xp.minimum(smallest, quotient if whole else xp.where(active, quotient, unseen))
            largest = xp.maximum(largest, quotient)
            # Rounding in pᵀAp is as large as eps ‖A‖ pᵀp: below it the sign is not known, and a step along p
            # would be rounding blown up.
            usable, positive = xp.isfinite(curvature), quotient > epsilon(r) * largest
            going = active & usable & positive
            if not (whole and bool(going.all())):
                nonfinite |= active & ~usable
                negative |= active & usable & ~positive
                active, whole = going, False
            alpha = _ratio(rs, curvature, active, whole)
            add_scaled(x, alpha, p, scratch)
            add_scaled(r, -alpha, Ap, scratch)
            new = dot(r, r)
            steps += xp.astype(active, xp.int64)
            iterations += 1
            if iterates is not None:
                iterates.append(x)
            active = active & (new > target)
            p *= _ratio(new, rs, active, whole)[..., None]
            p += r
            whole = _freeze(p, active)
            rs = new
    failed = {Status.NONFINITE: nonfinite, Status.INDEFINITE: negative}
    return Run(x, steps, iterations, failed, smallest, largest)


def _ratio(over: Array, under: Array, active: Array, whole: bool) -> Array:
    """Return over / under, and 0 for the problems that are done; `whole` says that none is."""
    if whole:
        return over / under
    xp = namespace(over)
    return xp.where(active, over / xp.where(active, under, xp.ones_like(under)), xp.zeros_like(over))


def _own(x: Array) -> Array:
    return namespace(x).asarray(x, copy=True)


def _freeze(p: Array, active: Array) -> bool:
    """Set the direction of finished problems to zero; a product with a mask would keep their NaN.

    Returns whether there are none, as far as that is known without waiting for a device.
    """
    if isinstance(p, np.ndarray):
        whole = bool(active.all())
        if not whole:
            p[~active] = 0
        return whole
    p[...] = namespace(p).where(active[..., None], p, namespace(p).zeros_like(p))
    return False
