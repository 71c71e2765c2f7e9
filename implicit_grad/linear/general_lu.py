"""LU factors of any square matrix, symmetric or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, device_of, epsilon, namespace, power_of_two_scale, transpose
from implicit_grad.linear._general import prepare_general
from implicit_grad.linear._system import System, verdict
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class GeneralLU:
    r"""Solve J x = b by pivoted LU factors of the whole dense matrix, which need not be symmetric.

    .. math:: P J = L U, \quad x = U^{-1} L^{-1} P b, \quad
              x \leftarrow x + J^{-1}(b - J x) \ \text{(refinement)}

    The other dense solvers are for curvatures: they use ½(A + Aᵀ) and speak of minima and saddles. This one takes
    the matrix as it is and judges it by its singular values. Where σ_min ≤ d·eps·σ_max the matrix is singular in
    this precision, the value is NaN and the status `NONFINITE`. Of the curvature of a problem
    (`Operator.curvature`) the eigenvalues are asked, as `LU` does: the status is `INDEFINITE` unless
    λ_min > d·eps·‖J‖. Where κ = σ_max/σ_min > 1/√eps the status is
    `ILL_CONDITIONED`: more than half of the digits may be wrong.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement, with residuals from the operator itself.

    Notes
    -----
    Needs d products, d² numbers a problem, ⅔d³ operations for the factors and ⁴⁄₃d³ for the singular values. Each
    refinement, and the recomputed residual, is one more product. On a device each refinement factors anew.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th ed., sections 3.4 and 3.5.

    Examples
    --------
    >>> GeneralLU()(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([4.0, 3.0])).value
    array([3., 2.])
    """

    refinements: int = 1
    card: ClassVar[Card] = Card(
        "d + 2 products + 2d³",
        "d²",
        "exact",
        "κ > 1/√eps (said so); d in the thousands",
        saddle="of a problem's curvature refused, by all eigenvalues; of another J there is none",
    )

    def __post_init__(self) -> None:
        border.count("refinements", self.refinements)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "LU, nonsymmetric"

    def __call__(self, A: Any, b: Array) -> Solution[GeneralLU]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that live neither on the host nor on a registered device.
        """
        from scipy.linalg import get_lapack_funcs

        system = prepare_general(A, b, "GeneralLU", on_device=True)
        if device_of(system.b) is not None:
            return self._on_device(system)
        shape, eps, d = system.shape, epsilon(system.b), system.A.size
        x, norms, smallest = np.full_like(system.b, np.nan), np.ones(shape), np.full(shape, np.nan)
        condition, poor, negative = np.full(shape, np.nan), np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
        # LAPACK itself: SciPy's wrapper turns an exactly singular matrix into a warning.
        getrf, getrs = get_lapack_funcs(("getrf", "getrs"), (system.b,))
        refined = 0
        for index, operator, rhs in system.problems():
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = np.ascontiguousarray(operator.columns())
            if not np.isfinite(matrix).all():
                continue
            scale = power_of_two_scale(matrix.reshape(-1))
            if operator.curvature:
                eigenvalues = np.linalg.eigvalsh(0.5 * (matrix + matrix.T) / scale)
                singular = np.sort(np.abs(eigenvalues))[::-1]
                smallest[index] = eigenvalues[0] * scale
                negative[index] = eigenvalues[0] <= d * eps * singular[0]
            else:
                singular = np.linalg.svd(matrix / scale, compute_uv=False)
            poor[index] = singular[-1] <= eps**0.5 * singular[0]
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                condition[index] = np.divide(singular[0], singular[-1])
                norms[index] = singular[0] * scale
                if singular[-1] > d * eps * singular[0]:
                    factors, pivots, _ = getrf(matrix / scale)
                    x[index] = getrs(factors, pivots, rhs)[0] / scale
                    for _ in range(self.refinements):
                        x[index] += getrs(factors, pivots, rhs - operator(x[index]))[0] / scale
                    refined = self.refinements
        return verdict(
            system,
            x,
            solver=self,
            rtol=eps,
            steps=np.full(shape, 1),
            budget=None,
            operator_norm=norms,
            # A product may lose the NaN of a missing solution, and with it the residual's.
            failed={
                Status.ILL_CONDITIONED: poor,
                Status.NONFINITE: ~np.isfinite(x).all(axis=-1),
                Status.INDEFINITE: negative,
            },
            cost=system.selection + Cost(hvps=d + refined + 1),
            smallest_eigenvalue=smallest if system.A.curvature else None,
            condition=condition,
        )

    def _on_device(self, system: System) -> Solution[GeneralLU]:
        """Solve for the whole batch at once, without asking the device for anything."""
        xp, shape, eps, d = namespace(system.b), system.shape, epsilon(system.b), system.A.size
        nan = xp.full_like(system.b[..., 0], float("nan"))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            matrices = xp.broadcast_to(system.A.columns(), (*shape, d, d))
            finite = xp.all(xp.isfinite(matrices), axis=(-2, -1)) & system.finite
            matrices = xp.where(finite[..., None, None], matrices, xp.eye(d, dtype=matrices.dtype))
            scale = power_of_two_scale(xp.reshape(matrices, (*shape, d * d)))
            matrices = matrices / scale[..., None, None]
            smallest, negative = None, xp.zeros_like(finite)
            if system.A.curvature:
                eigenvalues = xp.linalg.eigvalsh(0.5 * (matrices + transpose(matrices)))
                singular, lowest = xp.abs(eigenvalues), xp.min(eigenvalues, axis=-1)
                smallest = xp.where(finite, lowest * scale, nan)
                negative = finite & (lowest <= d * eps * xp.max(singular, axis=-1))
            else:
                singular = xp.linalg.svd(matrices, compute_uv=False)
            least, most = xp.min(singular, axis=-1), xp.max(singular, axis=-1)

            def solve(rhs: Array) -> Array:
                return xp.linalg.solve(matrices, rhs[..., None])[..., 0] / scale[..., None]

            x = solve(system.b)
            for _ in range(self.refinements):
                x = x + solve(system.b - system.A(x))
            usable = finite & (least > d * eps * most)
            x = xp.where(usable[..., None], x, nan[..., None])
            return verdict(
                system,
                x,
                solver=self,
                rtol=eps,
                steps=xp.ones(shape, dtype=xp.int64),
                budget=None,
                operator_norm=most * scale,
                failed={
                    Status.ILL_CONDITIONED: finite & (least <= eps**0.5 * most),
                    Status.NONFINITE: ~xp.all(xp.isfinite(x), axis=-1),
                    Status.INDEFINITE: negative,
                },
                cost=Cost(hvps=d + self.refinements + 1),
                smallest_eigenvalue=smallest,
                condition=xp.where(finite, most / least, nan),
            )
