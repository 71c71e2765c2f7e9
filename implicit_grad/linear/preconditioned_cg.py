"""Preconditioned conjugate gradient on a batch of systems."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, add_scaled, dot, epsilon, look_again, namespace, norm, power_of_two_scale
from implicit_grad.errors import ArgumentError
from implicit_grad.linear._restarts import Iterates, Run, solve_restarting, target_of
from implicit_grad.linear._system import prepare
from implicit_grad.linear.operator import Operator
from implicit_grad.linear.preconditioners import Jacobi, Prepared, prepare_preconditioner
from implicit_grad.results import Card, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class PreconditionedCG:
    r"""Conjugate gradient in the inner product of M⁻¹, for all problems of a batch at once.

    .. math:: z_k = M^{-1} r_k, \quad \alpha_k = \frac{r_k^\top z_k}{p_k^\top A p_k}, \quad
              x_{k+1} = x_k + \alpha_k p_k, \quad r_{k+1} = r_k - \alpha_k A p_k, \quad
              p_{k+1} = z_{k+1} + \frac{r_{k+1}^\top z_{k+1}}{r_k^\top z_k}\, p_k

    with :math:`\lVert x_k - x\rVert_A \le 2\left(\frac{\sqrt\kappa-1}{\sqrt\kappa+1}\right)^k\lVert x\rVert_A`
    for κ the condition number of M^{-1/2}AM^{-1/2}.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        A problem stops when its recomputed residual satisfies ‖b − A x‖ ≤ rtol ‖b‖ (not ‖·‖ in M⁻¹: what is
        promised does not depend on the preconditioner).
    preconditioner : Preconditioner or callable
        `Jacobi()`, `NystromPreconditioner(rank)`, or r ↦ M⁻¹ r on `(..., d)` arrays, symmetric and positive
        definite. Its scale does not matter.
    record : bool
        Keep every iterate in `Solution.path`.

    Notes
    -----
    Each step costs one product with A and one with M⁻¹, and the final residual another product. Where
    pᵀAp ≤ eps ‖A‖ pᵀp, or the preconditioner met a curvature ≤ 0, the problem is `INDEFINITE`; where rᵀM⁻¹r is
    not positive by more than rounding M is no inner product, and the problem is `STAGNATED`.
    `Solution.smallest_eigenvalue` is the smallest Rayleigh quotient met, an upper bound of λ_min(A).

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th ed., section 11.5.

    Examples
    --------
    >>> import numpy as np
    >>> solution = PreconditionedCG(9, rtol=1e-12)(np.diag([1.0, 1e6, 1e3]), np.ones(3))
    >>> solution.value, int(solution.steps)
    (array([1.e+00, 1.e-06, 1.e-03]), 1)
    """

    max_steps: int
    rtol: float = 0.0
    preconditioner: Any = field(default_factory=Jacobi)
    record: bool = field(default=False, kw_only=True)
    card: ClassVar[Card] = Card(
        "k + 1 HVPs, and M (Jacobi: d HVPs, or an assembled H)",
        "M",
        "2((√κ−1)/(√κ+1))ᵏ, κ of M^{-1/2}AM^{-1/2}",
        "M costs more than it saves",
        saddle="refused once pᵀAp ≤ 0, or by M; unseen where k steps from b do not reach it",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("record", self.record)
        if not hasattr(self.preconditioner, "prepare") or isinstance(self.preconditioner, type):
            border.strategy("preconditioner", self.preconditioner, "Jacobi()")

    @property
    def label(self) -> str:
        """Short name for legends."""
        name = type(self.preconditioner).__name__
        name = "own" if name == "function" else name.removesuffix("Preconditioner")
        return f"CG-{self.max_steps}, {name}" if self.rtol == 0 else f"CG({self.rtol:g}), {name}"

    def __call__(self, A: Any, b: Array) -> Solution[PreconditionedCG]:
        """Solve A x = b.

        Raises
        ------
        ArgumentError
            If the preconditioner returns another shape than it was given.
        """
        system = prepare(A, b)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            prepared = prepare_preconditioner(self.preconditioner, system.A)
        smallest = prepared.smallest
        return solve_restarting(
            self,
            system,
            partial(preconditioned_cg, system.A, _checked(prepared), tolerance=self.rtol > 0),
            setup=prepared.cost,
            saddle=None if smallest is None else smallest <= 0,
            smallest=smallest,
        )


def _checked(prepared: Prepared) -> Any:
    def apply(r: Array) -> Array:
        z = prepared.apply(r)
        if z.shape != r.shape:
            raise ArgumentError(f"preconditioner: returned shape {tuple(z.shape)} for residuals {tuple(r.shape)}")
        return z

    return apply


def preconditioned_cg(
    apply: Operator,
    precondition: Any,
    r: Array,
    limit: int,
    goal: Array,
    x: Array,
    iterates: Iterates | None = None,
    *,
    tolerance: bool = True,
) -> Run:
    """Advance x until ‖r_k‖ ≤ goal in the recurrence, or `limit` steps.

    Problems that are done are frozen by a zero direction: the arithmetic of the others is untouched.
    """
    xp, eps = namespace(r), epsilon(r)
    target = target_of(r, goal)
    active = dot(r, r) > target
    steps = xp.zeros(active.shape, dtype=xp.int64)
    crooked, negative, nonfinite = (xp.zeros_like(active) for _ in range(3))
    x, r = xp.asarray(x, copy=True), xp.asarray(r, copy=True)
    p, scratch, iterations = xp.zeros_like(r), xp.empty_like(r), 0
    old = xp.ones_like(dot(r, r))
    smallest, largest, unit = xp.full_like(old, float("inf")), xp.zeros_like(old), None
    one, zero = xp.ones_like(old), xp.zeros_like(old)
    with np.errstate(over="ignore", invalid="ignore"):
        while iterations < limit and look_again(active, iterations, tolerance=tolerance):
            z = precondition(r)
            if unit is None:  # M and cM are one preconditioner, but ‖M⁻¹r‖² may overflow
                unit = power_of_two_scale(z)[..., None]
            z = z / unit
            new = dot(r, z)
            usable = xp.isfinite(new)
            nonfinite = nonfinite | (active & ~usable)
            upright = new > eps * norm(r) * norm(z)
            crooked = crooked | (active & usable & ~upright)
            active = active & usable & upright
            if not look_again(active, iterations, tolerance=tolerance):
                break
            beta = xp.where(active & (steps > 0), new / old, zero)
            p = xp.where(active[..., None], z + beta[..., None] * p, xp.zeros_like(p))
            Ap = apply(p)
            iterations += 1
            curvature, length = dot(p, Ap), dot(p, p)
            usable = xp.isfinite(curvature)
            nonfinite = nonfinite | (active & ~usable)
            quotient = curvature / xp.where(active, length, one)
            smallest = xp.where(active & (quotient < smallest), quotient, smallest)
            largest = xp.where(active & (quotient > largest), quotient, largest)
            positive = quotient > eps * largest
            negative = negative | (active & usable & ~positive)
            active = active & usable & positive
            alpha = xp.where(active, new / xp.where(active, curvature, one), zero)
            add_scaled(x, alpha, p, scratch)
            add_scaled(r, -alpha, Ap, scratch)
            old = xp.where(active, new, one)
            steps = steps + xp.astype(active, xp.int64)
            if iterates is not None:
                iterates.append(x)
            active = active & (dot(r, r) > target)
    failed = {Status.NONFINITE: nonfinite, Status.STAGNATED: crooked, Status.INDEFINITE: negative}
    return Run(x, steps, iterations, failed, smallest, largest)
