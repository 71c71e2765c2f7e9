"""Preconditioners for conjugate gradient: r ↦ M⁻¹ r with M near A and easy to invert."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.linear._sketch import sketch
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Cost


@dataclass(frozen=True, eq=False)
class Prepared:
    """A preconditioner for one operator.

    Attributes
    ----------
    apply : callable
        r ↦ M⁻¹ r, `(..., d) → (..., d)`, symmetric and positive definite.
    cost : Cost
        What it took to prepare.
    smallest : (...) array or None
        Smallest curvature of A met on the way, an upper bound of λ_min(A); where it is not positive A is no
        minimum's curvature.
    """

    apply: Callable[[Array], Array]
    cost: Cost
    smallest: Array | None = None


@runtime_checkable
class Preconditioner(Protocol):
    """A recipe for M, made anew for each operator."""

    def prepare(self, A: Operator) -> Prepared:
        """Look at A and return M⁻¹."""
        ...


@dataclass(frozen=True)
class Jacobi:
    """M = diag(A).

    Notes
    -----
    Pays where the scales of the parameters differ, and costs what the dense matrix costs: d products (one assembled
    Hessian where the loss has it). Among diagonal M it is within a factor d of the best κ (van der Sluis 1969).
    """

    def prepare(self, A: Operator) -> Prepared:
        """Take the diagonal of A."""
        matrix = A.dense()
        xp = namespace(matrix)
        zero = xp.zeros_like(matrix)
        diagonal = xp.sum(xp.where(xp.eye(A.size, dtype=matrix.dtype) > 0, matrix, zero), axis=-1)
        safe = xp.where(xp.isfinite(diagonal) & (diagonal > 0), diagonal, xp.ones_like(diagonal))
        # eᵢᵀAeᵢ is a Rayleigh quotient: one that is not positive proves a saddle.
        return Prepared(lambda r: r / safe, A.dense_cost, xp.min(diagonal, axis=-1))


@dataclass(frozen=True)
class NystromPreconditioner:
    r"""Invert a Nyström sketch of H on its space and leave the rest to conjugate gradient.

    .. math:: M^{-1} = (\hat\lambda_r + \lambda)\, U(\hat\Lambda + \lambda I)^{-1}U^\top + (I - UU^\top), \qquad
              \kappa(M^{-1/2} A M^{-1/2}) \le \frac{\hat\lambda_r + \lambda + \lVert H - \hat H\rVert}{\lambda}

    for A = H + λI with H ⪰ 0. Where A does not know its shift, A itself is sketched with λ = 0.

    Parameters
    ----------
    rank : int
        Number of sketched directions, 1 ≤ rank ≤ d.
    seed : int
        Of the sketch.

    Notes
    -----
    `rank` products at once; rank·d numbers a problem.

    References
    ----------
    Frangella, Tropp & Udell, Randomized Nyström preconditioning, SIAM J. Matrix Anal. Appl. 44, 2023.
    """

    rank: int
    seed: int = 2019

    def __post_init__(self) -> None:
        border.count("rank", self.rank, minimum=1)
        border.count("seed", self.seed)

    def prepare(self, A: Operator) -> Prepared:
        """Sketch H.

        Raises
        ------
        ArgumentError
            If the rank exceeds d.
        """
        model = sketch(A, self.rank, self.seed)
        xp = namespace(model.values)
        curvature = model.values + model.shift[..., None]
        # The last eigenvalue kept sets the scale of what is left alone; where there is none, M = I.
        usable = curvature > 0
        floor = xp.min(xp.where(usable, curvature, xp.full_like(curvature, float("inf"))), axis=-1)[..., None]
        ratio = xp.where(
            usable, floor / xp.where(usable, curvature, xp.ones_like(curvature)), xp.ones_like(curvature)
        )

        def apply(r: Array) -> Array:
            inside, outside = model.shrink(r, ratio)
            return inside + outside

        smallest = xp.where(model.finite, model.smallest, xp.full_like(model.smallest, float("inf")))
        return Prepared(apply, Cost(hvps=self.rank), smallest)


def prepare_preconditioner(preconditioner: Any, A: Operator) -> Prepared:
    """Prepare a recipe, or take a callable r ↦ M⁻¹ r as it is."""
    if isinstance(preconditioner, Preconditioner):
        return preconditioner.prepare(A)

    def apply(r: Array) -> Array:
        return border.real_array("preconditioner", preconditioner(r))

    return Prepared(apply, Cost())
