"""Exact inversion: the dense matrix, its Cholesky factor, and refinement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, to_numpy
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import prepare, verdict
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Cost, Solution, Status


@dataclass(frozen=True)
class Cholesky:
    r"""Solve A x = b by the Cholesky factor of the whole dense matrix.

    .. math:: A = L L^\top, \quad L z = b, \quad L^\top x = z, \quad
              x \leftarrow x + A^{-1}(b - A x) \ \text{(refinement)}

    Every entry of A is used, off-diagonal blocks included. A matrix that is not positive definite is refused:
    its value is NaN, its status `INDEFINITE`, and `Solution.unwrap` names the smallest eigenvalue. Convergence
    of any solver proves nothing at a saddle.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement, with residuals from the operator itself (not from the dense copy).

    Notes
    -----
    Needs d Hessian-vector products, d² numbers a problem and d³/3 operations.

    Examples
    --------
    >>> import numpy as np
    >>> Cholesky()(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([3.0, 3.0])).value
    array([1., 1.])
    >>> Cholesky()(np.diag([1.0, -2.0]), np.array([1.0, 1.0])).status
    Status.INDEFINITE
    """

    refinements: int = 1

    card: ClassVar[Card] = Card(
        "d HVPs + d³/3", "d²", "rounding, eps·κ", "d is in the thousands; refuses an indefinite A"
    )

    def __post_init__(self) -> None:
        border.count("refinements", self.refinements)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "exact inversion"

    def __call__(self, A: Any, b: Array) -> Solution[Cholesky]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        system = prepare(A, b)
        if namespace(system.b) is not np:
            raise ArgumentTypeError("b: Cholesky factors NumPy arrays only; use CG on other backends")
        shape = system.shape
        x = np.full_like(system.b, np.nan)
        norms = np.ones(shape)
        smallest = np.full(shape, np.nan)
        negative = np.zeros(shape, dtype=bool)
        for index, operator, rhs in system.problems():
            matrix = to_numpy(operator.dense())
            if not np.isfinite(matrix).all():
                continue
            norms[index] = np.abs(matrix).sum(axis=-1).max()
            factor = _factor(matrix)
            if factor is None:
                negative[index], smallest[index] = True, _smallest_eigenvalue(matrix)
            else:
                x[index] = self._solve(factor, operator, rhs)
        # Where no factor exists there is nothing to refine.
        refined = self.refinements if bool(np.isfinite(x).any()) else 0
        found = bool(np.isfinite(smallest).any())
        return verdict(
            system,
            x,
            solver=self,
            # A backward stable solve always attains 10·d·eps·(‖A‖‖x‖ + ‖b‖): the tightest tolerance there is.
            rtol=float(np.finfo(x.dtype).eps),
            steps=np.full(shape, 1),
            budget=None,
            operator_norm=norms,
            failed={Status.INDEFINITE: negative},
            cost=system.selection + system.A.dense_cost + Cost(hvps=refined + 1),
            smallest_eigenvalue=smallest if found else None,
        )

    def _solve(self, factor: Any, operator: Operator, b: Array) -> Array:
        # SciPy's linear algebra takes a quarter of a second to import: only once it is needed.
        from scipy.linalg import cho_solve

        x = cho_solve(factor, b, check_finite=False)
        for _ in range(self.refinements):
            x = x + cho_solve(factor, b - operator(x), check_finite=False)
        return x


def _factor(matrix: Array) -> Any:
    """Cholesky factor, or None where there is none."""
    from scipy.linalg import cho_factor

    try:
        # The transpose of a symmetric C-ordered array is itself in LAPACK's order: no copy but the factor's own.
        return cho_factor(matrix.T, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None


def _smallest_eigenvalue(matrix: Array) -> float:
    from scipy.linalg import eigvalsh

    return float(eigvalsh(matrix, subset_by_index=[0, 0], check_finite=False)[0])
