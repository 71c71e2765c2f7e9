"""SciPy's LSMR: least squares by Golub-Kahan bidiagonalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.linear._scipy import Stop, Watch, solution_of
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class LSMR:
    r"""`scipy.sparse.linalg.lsmr`: the smallest ‖A r‖ in the Krylov space of A², without forming A².

    .. math:: x_k = \arg\min_{x \in K_k(A^2, Ab)} \lVert A\,(b - A x)\rVert

    MINRES on the normal equations. The condition number that counts is κ², the price of treating A as if it had
    no symmetry: for a well-posed meta-gradient it is a warning, not a method. For inconsistent singular systems
    it finds the least squares solution of smallest norm.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        Stop at ‖b − A x‖ ≤ rtol ‖b‖; where the recomputed residual disagrees, the iteration restarts from it.

    Notes
    -----
    2k + 1 products, then min(k, d) Lanczos steps that look for negative curvature (A² has none to show), and one
    product for the residual. A Python loop over problems, NumPy only. `Solution.smallest_eigenvalue` is the
    smallest Rayleigh quotient or Ritz value met, an upper bound of λ_min(A).

    References
    ----------
    Fong & Saunders, LSMR, SIAM J. Sci. Comput. 33, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> LSMR(10, rtol=1e-12)(np.diag([1.0, 4.0]), np.array([1.0, 1.0])).value.round(12)
    array([1.  , 0.25])
    """

    max_steps: int
    rtol: float = 0.0
    card: ClassVar[Card] = Card(
        "3k + 2 HVPs",
        "k·d",
        "2((κ−1)/(κ+1))ᵏ of ‖A r‖",
        "κ in the thousands: it works on A²",
        saddle="refused once min(k, d) Lanczos steps meet it",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"LSMR-{self.max_steps}" if self.rtol == 0 else f"LSMR({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[LSMR]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        return solution_of(self, A, b, _run)


def _run(watch: Watch, b: Array, limit: int, rtol: float) -> tuple[Array, int]:
    from scipy.sparse.linalg import LinearOperator, lsmr

    A = LinearOperator((b.size, b.size), matvec=watch.product, rmatvec=watch.product, dtype=b.dtype)
    try:
        # Its own estimates of ‖A‖ and κ are given no say: atol = 0 and conlim = 0.
        x, _, steps = lsmr(A, b, atol=0.0, btol=rtol, conlim=0.0, maxiter=limit)[:3]
    except Stop:
        return np.zeros_like(b), 0
    finite = bool(np.isfinite(x).all())
    return (x.astype(b.dtype) if finite else np.zeros_like(b)), steps if finite else 0
