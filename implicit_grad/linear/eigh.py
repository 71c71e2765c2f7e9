"""Exact inversion in the eigenbasis, with the whole spectrum at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, transpose
from implicit_grad.linear._dense import Factored, solve_dense
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class Eigh:
    r"""Solve A x = b in the eigenbasis of the whole dense matrix, definite or not.

    .. math:: A = Q \Lambda Q^\top, \qquad x = Q \Lambda^{-1} Q^\top b, \quad
              x \leftarrow x + A^{-1}(b - A x) \ \text{(refinement)}

    The status is `INDEFINITE` unless λ_min(A) > d·eps·‖A‖; the value is then the formal A⁻¹b, which is no
    meta-gradient. It is NaN where |λ|_min ≤ d·eps·‖A‖ and A is singular in this precision. Where A is positive
    definite with κ(A) > 1/√eps the status is `ILL_CONDITIONED`: more than half of the digits of x may be wrong.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement, with residuals from the operator itself.

    Notes
    -----
    Needs d products (or one assembled Hessian), d² numbers a problem and about 9d³ operations: the dearest of the
    exact solvers, and the one that tells most. `Solution.smallest_eigenvalue` is λ_min(A), exact to rounding.

    References
    ----------
    Golub & Van Loan, Matrix Computations, 4th ed., section 8.3.

    Examples
    --------
    >>> import numpy as np
    >>> solution = Eigh()(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([3.0, 3.0]))
    >>> solution.value.round(12), round(float(solution.smallest_eigenvalue), 12)
    (array([1., 1.]), 1.0)
    """

    refinements: int = 1
    card: ClassVar[Card] = Card(
        "d + 2 HVPs (2 and an assembled H) + 9d³",
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
        return "eigendecomposition"

    def __call__(self, A: Any, b: Array) -> Solution[Eigh]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that live neither on the host nor on a registered device.
        """
        return solve_dense(self, A, b, _factorise, self.refinements, _on_device)


def _factorise(matrix: Array) -> Factored:
    eigenvalues, Q = np.linalg.eigh(matrix)
    sizes = np.abs(eigenvalues)
    solve = None if not eigenvalues.all() else lambda rhs: Q @ ((Q.T @ rhs) / eigenvalues)
    return Factored(solve, float(eigenvalues[0]), float(sizes.min()), float(sizes.max()))


def _on_device(matrices: Array, shape: tuple[int, ...]) -> tuple[Callable[[Array], Array], Array]:
    eigenvalues, Q = namespace(matrices).linalg.eigh(matrices)

    def solve(rhs: Array) -> Array:
        return (Q @ ((transpose(Q) @ rhs[..., None]) / eigenvalues[..., None]))[..., 0]

    return solve, eigenvalues
