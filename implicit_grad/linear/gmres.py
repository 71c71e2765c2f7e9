"""SciPy's generalized minimal residual method, unrestarted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.linear._scipy import Basis, Stop, Watch, solution_of
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class GMRES:
    r"""`scipy.sparse.linalg.gmres` without restarts: MINRES's residuals from a basis kept orthogonal.

    .. math:: x_k = \arg\min_{x \in K_k(A, b)} \lVert b - A x\rVert, \qquad x_k = V_k y_k, \quad
              V_k^\top V_k = I

    For symmetric A it finds what MINRES finds; all vectors are kept and orthogonalised, so rounding slows it down
    less, at the price of k vectors (SciPy's and a copy, which the Ritz values come from).

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps (at most d).
    rtol : float
        Stop at ‖b − A x‖ ≤ rtol ‖b‖; where the recomputed residual disagrees, the iteration restarts from it.

    Notes
    -----
    Each step costs one product; SciPy's own check and the recomputed residual cost one each. A Python loop over
    problems, NumPy only. Status, scaling and Ritz values are as in `MINRES`: a saddle is `INDEFINITE`, with the
    formal value.

    References
    ----------
    Saad & Schultz, GMRES, SIAM J. Sci. Stat. Comput. 7, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> GMRES(10, rtol=1e-12)(np.diag([1.0, 4.0]), np.array([1.0, 1.0])).value.round(12)
    array([1.  , 0.25])
    """

    max_steps: int
    rtol: float = 0.0
    card: ClassVar[Card] = Card(
        "k + 2 HVPs + k²d",
        "k·d",
        "2((√κ−1)/(√κ+1))ᵏ of the residual",
        "k vectors do not fit",
        saddle="as MINRES",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"GMRES-{self.max_steps}" if self.rtol == 0 else f"GMRES({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[GMRES]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        return solution_of(self, A, b, _run, space=Basis)


def _run(watch: Watch, b: Array, limit: int, rtol: float) -> tuple[Array, int]:
    from scipy.sparse.linalg import LinearOperator, gmres

    steps: list[float] = []
    A = LinearOperator((b.size, b.size), matvec=watch.product, dtype=b.dtype)
    try:
        x, _ = gmres(
            A,
            b,
            rtol=rtol,
            atol=0.0,
            restart=min(limit, b.size),
            maxiter=1,
            callback=steps.append,
            callback_type="pr_norm",
        )
    except Stop:
        x, steps = b * 0, []
    # The last product is SciPy's own residual, not one of a basis vector.
    watch.basis = len(steps)
    return x, len(steps)
