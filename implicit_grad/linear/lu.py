"""The LU factorisation, which takes any nonsingular matrix and says what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.linear._dense import Factored, solve_dense
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class LU:
    r"""Solve A x = b by the pivoted LU factors of the whole dense matrix, definite or not.

    .. math:: P A = L U, \quad x = U^{-1} L^{-1} P b, \quad
              x \leftarrow x + A^{-1}(b - A x) \ \text{(refinement)}

    LU never fails at a saddle: it returns the formal A⁻¹b, which is no meta-gradient there. The eigenvalues are
    computed beside it, and the status is `INDEFINITE` unless λ_min(A) > d·eps·‖A‖: the value is then the formal
    one. It is NaN where |λ|_min ≤ d·eps·‖A‖ and A is singular in this precision. Where A is positive definite
    with κ(A) > 1/√eps the status is `ILL_CONDITIONED`: more than half of the digits of x may be wrong.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement, with residuals from the operator itself.

    Notes
    -----
    Needs d products (or one assembled Hessian), d² numbers a problem, ⅔d³ operations for the factors and ⁴⁄₃d³
    for the eigenvalues. `Solution.smallest_eigenvalue` is λ_min(A), exact to rounding. On a device, whose library
    does not hand out the factors of a batch, each refinement factors anew.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th ed., sections 3.4 and 3.5.

    Examples
    --------
    >>> import numpy as np
    >>> saddle = LU()(np.diag([1.0, -2.0]), np.array([1.0, 1.0]))
    >>> saddle.value, saddle.status, float(saddle.smallest_eigenvalue)
    (array([ 1. , -0.5]), Status.INDEFINITE, -2.0)
    """

    refinements: int = 1
    card: ClassVar[Card] = Card(
        "d + 2 HVPs (2 and an assembled H) + 2d³",
        "d²",
        "exact",
        "κ > 1/√eps (said so); d in the thousands",
        saddle="refused, by all eigenvalues",
    )

    def __post_init__(self) -> None:
        border.count("refinements", self.refinements)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "LU"

    def __call__(self, A: Any, b: Array) -> Solution[LU]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that live neither on the host nor on a registered device.
        """
        return solve_dense(self, A, b, _factorise, self.refinements, _on_device)


def _factorise(matrix: Array) -> Factored:
    from scipy.linalg import get_lapack_funcs

    eigenvalues = np.linalg.eigvalsh(matrix)
    sizes = np.abs(eigenvalues)
    # LAPACK itself: SciPy's wrapper turns an exactly singular matrix into a warning.
    getrf, getrs = get_lapack_funcs(("getrf", "getrs"), (matrix,))
    factors, pivots, info = getrf(matrix)
    solve = None if info else lambda rhs: getrs(factors, pivots, rhs)[0]
    return Factored(solve, float(eigenvalues[0]), float(sizes.min()), float(sizes.max()))


def _on_device(matrices: Array, shape: tuple[int, ...]) -> tuple[Callable[[Array], Array], Array]:
    xp = namespace(matrices)
    # CuPy wants equal batch axes.
    whole = xp.broadcast_to(matrices, (*shape, *matrices.shape[-2:]))
    return lambda rhs: xp.linalg.solve(whole, rhs[..., None])[..., 0], xp.linalg.eigvalsh(matrices)
