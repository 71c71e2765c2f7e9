"""GMRES for any square matrix, symmetric or not, by products alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, norm
from implicit_grad.linear._general import prepare_general
from implicit_grad.linear._system import verdict
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class GeneralGMRES:
    r"""Generalized minimal residuals for J x = b, unrestarted; J need not be symmetric, and is never formed.

    .. math:: x_k = \arg\min_{x \in K_k(J, b)} \lVert b - J x\rVert, \qquad J V_k = V_{k+1} \bar H_k

    by Arnoldi's process with every vector orthogonalised twice. Of a nonsymmetric J it says nothing about
    definiteness: there is none to speak of. Of the curvature of a problem (`Operator.curvature`) H_k holds the Ritz
    values, and where the smallest is not positive by more than rounding the status is `INDEFINITE`.

    Parameters
    ----------
    max_steps : int
        Largest number of steps (d suffice).
    rtol : float
        Stop at ‖b − J x‖ ≤ rtol ‖b‖; with `rtol=0` take `max_steps` steps.

    Notes
    -----
    k products, one for the recomputed residual, and k vectors. A Python loop over problems, NumPy only. In exact
    arithmetic step d is exact, and no earlier step need make any progress: for a cyclic shift none does.

    References
    ----------
    Saad & Schultz, GMRES, SIAM J. Sci. Stat. Comput. 7, 1986.

    Examples
    --------
    >>> GeneralGMRES(5, rtol=1e-12)(np.array([[1.0, 2.0], [0.0, 4.0]]), np.array([5.0, 8.0])).value.round(12)
    array([1., 2.])
    """

    max_steps: int
    rtol: float = 0.0
    card: ClassVar[Card] = Card(
        "k + 1 products + k²d",
        "k·d",
        "least residual in K_k",
        "k vectors do not fit",
        saddle="of a problem's curvature as MINRES; of another J there is none",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"GMRES-{self.max_steps}, nonsymmetric" if self.rtol == 0 else f"GMRES({self.rtol:g}), nonsymmetric"

    def __call__(self, A: Any, b: Array) -> Solution[GeneralGMRES]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        system = prepare_general(A, b, "GeneralGMRES")
        x, norms = np.zeros_like(system.b), np.zeros(system.shape)
        steps = np.zeros(system.shape, dtype=np.int64)
        smallest, negative = np.full(system.shape, np.inf), np.zeros(system.shape, dtype=bool)
        for index, operator, rhs in system.problems():
            x[index], steps[index], norms[index], H = arnoldi(operator, rhs, self.max_steps, self.rtol)
            if operator.curvature and H.size:
                smallest[index] = np.linalg.eigvalsh(0.5 * (H + H.T))[0]
                negative[index] = smallest[index] <= system.A.size * epsilon(x) * norms[index]
        return verdict(
            system,
            x,
            solver=self,
            rtol=self.rtol,
            steps=steps,
            budget=self.max_steps,
            operator_norm=norms,
            failed={Status.INDEFINITE: negative},
            cost=system.selection + Cost(hvps=int(steps.max(initial=0)) + 1),
            smallest_eigenvalue=smallest if system.A.curvature else None,
        )


def arnoldi(operator: Operator, b: Array, max_steps: int, rtol: float) -> tuple[Array, int, float, Array]:
    """Return x, the steps taken, the largest ‖J v‖ of a unit v seen, and H_k = VᵀJV, for one problem."""
    size, limit = float(norm(b)), min(max_steps, b.size)
    x, seen = np.zeros_like(b), 0.0
    if size == 0 or limit == 0:
        return x, 0, seen, np.zeros((0, 0), dtype=b.dtype)
    V = np.zeros((limit + 1, b.size), dtype=b.dtype)
    H = np.zeros((limit + 1, limit), dtype=b.dtype)
    V[0] = b / size
    k = 0
    while k < limit:
        w = np.array(operator(V[k]))
        length = float(norm(w))
        seen = max(seen, length)
        k += 1
        if not np.isfinite(length):
            return np.full_like(b, np.nan), k, seen, H[: k - 1, : k - 1]
        for _ in range(2):  # one pass leaves what cancellation put back
            h = V[:k] @ w
            w -= h @ V[:k]
            H[:k, k - 1] += h
        H[k, k - 1] = norm(w)
        e1 = np.zeros(k + 1, dtype=b.dtype)
        e1[0] = size
        y = np.linalg.lstsq(H[: k + 1, :k], e1, rcond=None)[0]
        x = y @ V[:k]
        # A breakdown: the Krylov space is complete, and x is as good as it gets.
        if H[k, k - 1] <= k * epsilon(b) * length or norm(e1 - H[: k + 1, :k] @ y) <= rtol * size:
            break
        V[k] = w / H[k, k - 1]
    return x, k, seen, H[:k, :k]
