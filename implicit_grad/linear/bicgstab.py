"""SciPy's stabilised biconjugate gradient."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.linear._scipy import Stop, Watch, solution_of
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class BiCGSTAB:
    r"""`scipy.sparse.linalg.bicgstab`, made for nonsymmetric A and here for comparison.

    .. math:: r_k = Q_k(A)\,P_k(A)\,b, \qquad Q_k(A) = \prod_{j \le k} (I - \omega_j A)

    with P_k the residual polynomial of BiCG (for symmetric A, of CG) and ω_j the local minimisers of ‖r‖. Two
    products a step for what CG does with one; the residuals jump, and the recurrence may break down where it
    divides by an inner product that is zero: the status is then `STAGNATED`, with what was reached.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        Stop at ‖b − A x‖ ≤ rtol ‖b‖; where the recomputed residual disagrees, the iteration restarts from it.

    Notes
    -----
    2k products, then min(k, d) Lanczos steps that look for negative curvature (the recurrence hides it: a
    saddle's formal solution is found without a sign of trouble), and one product for the residual. A Python loop
    over problems, NumPy only. `Solution.smallest_eigenvalue` is the smallest Rayleigh quotient or Ritz value met,
    an upper bound of λ_min(A).

    References
    ----------
    van der Vorst, Bi-CGSTAB, SIAM J. Sci. Stat. Comput. 13, 1992.

    Examples
    --------
    >>> import numpy as np
    >>> BiCGSTAB(10, rtol=1e-12)(np.diag([1.0, 4.0]), np.array([1.0, 1.0])).value.round(12)
    array([1.  , 0.25])
    """

    max_steps: int
    rtol: float = 0.0
    card: ClassVar[Card] = Card(
        "3k + 1 HVPs",
        "k·d",
        "no bound",
        "breakdown of the recurrence",
        saddle="refused once min(k, d) Lanczos steps meet it",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"BiCGSTAB-{self.max_steps}" if self.rtol == 0 else f"BiCGSTAB({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[BiCGSTAB]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        return solution_of(self, A, b, _run)


def _run(watch: Watch, b: Array, limit: int, rtol: float) -> tuple[Array, int]:
    from scipy.sparse.linalg import LinearOperator, bicgstab

    A = LinearOperator((b.size, b.size), matvec=watch.product, dtype=b.dtype)
    x = None
    with contextlib.suppress(Stop):
        x, _ = bicgstab(A, b, rtol=rtol, atol=0.0, maxiter=limit, callback=watch.keep)
    last = watch.iterates[-1] if watch.iterates else np.zeros_like(b)
    if x is not None and np.isfinite(x).all() and not np.array_equal(x, last):
        watch.keep(x)  # half a step was enough, and SciPy tells nobody
    return (watch.iterates[-1] if watch.iterates else last), len(watch.iterates)
