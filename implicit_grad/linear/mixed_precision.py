"""Solve in float32, refine in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, any_of, epsilon, namespace, norm, power_of_two_scale
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import LinearSolver, System, prepare, verdict
from implicit_grad.linear.lanczos import extreme_eigenvalues
from implicit_grad.linear.operator import Operator, matrix_operator
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status

_PROBE_STEPS = 20
_PROGRESS = 0.99


@dataclass(frozen=True)
class MixedPrecision:
    r"""Iterative refinement: corrections from a solver in float32, residuals and sums in float64.

    .. math:: r_k = b - A x_k \ \text{(float64)}, \qquad A\, y_k \approx r_k \ \text{(float32)}, \qquad
              x_{k+1} = x_k + y_k \ \text{(float64)}

    Each step multiplies the error by about κ(A)·eps₃₂ plus what the inner solver leaves: below κ ~ 10⁷ the answer is
    as good as float64's own, above it the refinement stagnates, and says so.

    Parameters
    ----------
    linear_solver : LinearSolver
        Gets A and r in float32, each divided by a power of two that brings it near 1.
    max_steps : int
        Largest number of corrections; with `rtol=0` the number of corrections.
    rtol : float
        A problem stops when its residual satisfies ‖b − A x‖ ≤ rtol ‖b‖.
    dense : bool
        Form A once (d products) and hand the float32 matrix to the inner solver, so that solvers that factor do
        not multiply anew for each correction (they factor anew).

    Notes
    -----
    Costs what the inner solves cost, a product for each residual, and one (without `dense`) to find the scale of
    A. A problem whose residual does not fall by a hundredth keeps the better of both iterates and is `STAGNATED`.
    Where the inner solver finds A indefinite, up to 20 Lanczos steps in float64 decide: float32 takes
    λ_min < 10⁻⁷‖A‖ for zero.
    The inner solver's products are rounded to float32, but made by A in float64 unless `dense`.

    References
    ----------
    Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 12; Carson & Higham, Accelerating the
    solution of linear systems by iterative refinement in three precisions, SIAM J. Sci. Comput. 40, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad.linear import Cholesky
    >>> A, b = np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([3.0, 1.0])
    >>> solution = MixedPrecision(Cholesky(), dense=True)(A, b)
    >>> solution.status, np.abs(A @ solution.value - b).max() < 1e-12
    (Status.CONVERGED, np.True_)
    """

    linear_solver: LinearSolver
    max_steps: int = 10
    rtol: float = 1e-12
    dense: bool = False
    card: ClassVar[Card] = Card(
        "its float32 solves, 1 HVP each, 2 more",
        "the inner solver's",
        "(κ·eps₃₂)ᵏ",
        "κ·eps₃₂ ≥ 1",
        saddle="refused where the float32 solver does, and float64 Lanczos steps agree",
    )

    def __post_init__(self) -> None:
        border.strategy("linear_solver", self.linear_solver, "CG(50, 1e-5)")
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("dense", self.dense)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"{getattr(self.linear_solver, 'label', repr(self.linear_solver))}, refined"

    def __call__(self, A: Any, b: Array) -> Solution[MixedPrecision]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            If b is not float64.
        """
        system = prepare(A, b)
        xp = namespace(system.b)
        if system.b.dtype != xp.float64:
            raise ArgumentTypeError(f"b: MixedPrecision refines float64 by float32, got {system.b.dtype}")
        with np.errstate(over="ignore", invalid="ignore"):
            coarse, scale, size, cost = self._coarse(system)
            state = _Refinement(system, coarse, scale, size)
            goal = self.rtol * norm(system.b)
            active = state.size > goal
            while state.count < self.max_steps and any_of(active, ask=self.rtol > 0):
                spent = state.advance(self.linear_solver, active)
                cost = cost + Cost(hvps=1) + (Cost() if self.dense else spent)
                active = active & state.improving & (state.size > goal)
        negative, smallest = state.suspects, None
        if bool(xp.any(state.suspects)):
            probe = min(_PROBE_STEPS, system.A.size)
            negative, smallest = _probe(system, state.suspects, probe)
            cost = cost + Cost(hvps=probe)
        return verdict(
            system,
            state.x,
            solver=self,
            rtol=self.rtol,
            steps=state.steps,
            budget=self.max_steps,
            operator_norm=state.operator_norm,
            failed={
                Status.STAGNATED: state.suspects,
                Status.DIVERGED: state.diverged,
                Status.NONFINITE: state.nonfinite,
                Status.INDEFINITE: negative,
            },
            cost=cost + Cost(hvps=1),
            smallest_eigenvalue=smallest,
        )

    def _coarse(self, system: System) -> tuple[Operator, Array, Array, Cost]:
        """A in float32 divided by a power of two, the power, an estimate of ‖A‖, and what that cost."""
        A, b, xp = system.A, system.b, namespace(system.b)
        one = xp.ones_like(b[..., 0])
        if self.dense:
            matrix = A.dense()
            scale = power_of_two_scale(xp.reshape(matrix, (*matrix.shape[:-2], A.size**2)))
            size = xp.max(xp.sum(xp.abs(matrix), axis=-1), axis=-1)
            coarse = xp.astype(matrix / scale[..., None, None], xp.float32)
            return replace(matrix_operator(coarse), curvature=A.curvature), scale * one, size * one, A.dense_cost
        Ab, length = A(b), norm(b)
        scale = power_of_two_scale(Ab) / power_of_two_scale(b)
        size = norm(Ab) / xp.where(length > 0, length, one)
        return _float32(A.divided(scale)), scale, size, Cost(hvps=1)


def _float32(A: Operator) -> Operator:
    """A as seen by a float32 solver: vectors in and out are rounded, the product is not."""
    xp = namespace(A.like)

    def apply(v: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return xp.astype(A(xp.astype(v, xp.float64)), xp.float32)

    return Operator(
        apply,
        A.batch_shape,
        A.size,
        xp.zeros(A.size, dtype=xp.float32),
        A.stacks,
        (lambda index: _float32(A.select(index))) if A.batch_shape else None,
        A.selection,
        shift=None if A.shift is None else xp.astype(A.shift, xp.float32),
        curvature=A.curvature,
    )


class _Refinement:
    """The iterates of a batch with their float64 residuals."""

    def __init__(self, system: System, coarse: Operator, scale: Array, operator_norm: Array) -> None:
        xp = namespace(system.b)
        self.system, self.coarse, self.scale = system, coarse, scale
        self.x, self.r, self.size = xp.zeros_like(system.b), system.b, norm(system.b)
        self.improving = self.size > 0
        self.suspects, self.diverged, self.nonfinite = (xp.zeros_like(self.improving) for _ in range(3))
        self.operator_norm = operator_norm
        self.steps, self.count = xp.zeros(self.size.shape, dtype=xp.int64), 0

    def advance(self, solver: LinearSolver, active: Array) -> Cost:
        """Correct every active problem once; return what the inner solve cost."""
        xp = namespace(self.x)
        unit = power_of_two_scale(self.r)
        rhs = xp.where(active[..., None], self.r / unit[..., None], xp.zeros_like(self.r))
        inner = solver(self.coarse, xp.astype(rhs, xp.float32))
        codes = inner.codes
        self.suspects = self.suspects | (active & (codes == Status.INDEFINITE.code))
        self.diverged = self.diverged | (active & (codes == Status.DIVERGED.code))
        self.nonfinite = self.nonfinite | (active & (codes == Status.NONFINITE.code))
        failed = self.suspects | self.diverged | self.nonfinite
        y = xp.astype(inner.value, xp.float64) * unit[..., None] / self.scale[..., None]
        usable = active & ~failed & xp.all(xp.isfinite(y), axis=-1)
        x = self.x + xp.where(usable[..., None], y, xp.zeros_like(y))
        r = self.system.b - self.system.A(x)
        size = norm(r)
        self.nonfinite = self.nonfinite | (active & ~xp.isfinite(size))
        better = usable & (size < self.size)
        self.improving = usable & (size < _PROGRESS * self.size)
        self.x = xp.where(better[..., None], x, self.x)
        self.r = xp.where(better[..., None], r, self.r)
        self.size = xp.where(better, size, self.size)
        self.steps = self.steps + xp.astype(usable, xp.int64)
        self.count += 1
        return inner.cost


def _probe(system: System, suspects: Array, count: int) -> tuple[Array, Array]:
    """Which of the suspects are saddles in float64, and the smallest Ritz values."""
    xp, one = namespace(system.b), system.b[..., 0] * 0 + 1
    with np.errstate(over="ignore", invalid="ignore"):
        smallest, largest = (xp.asarray(end, dtype=one.dtype) * one for end in extreme_eigenvalues(system.A, count))
    found = suspects & (smallest <= count * epsilon(one) * xp.abs(largest))
    return found, xp.where(suspects, smallest, xp.full_like(smallest, float("inf")))
