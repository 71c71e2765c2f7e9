"""Exact inversion from the samples' side: d may be huge if the samples are few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad._deferred import replaced
from implicit_grad.backend import Array, epsilon, namespace, norm, transpose
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._dense import factors_of
from implicit_grad.linear._system import prepare, verdict
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status, marked, statuses


@dataclass(frozen=True)
class Woodbury:
    r"""Solve (FᵀF + σI) x = b through the small matrix FFᵀ + σI.

    .. math:: x = \frac1\sigma\Bigl(b - F^\top (F F^\top + \sigma I)^{-1} F b\Bigr)

    For losses linear in their parameters F has one row a sample (least squares) or C rows a sample (softmax), so
    exact inversion works for d in the hundreds of thousands when samples are few. FᵀF is never formed.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement with residuals from the operator itself: for small σ the difference in the
        formula cancels, and refinement restores what it lost.

    Raises
    ------
    ArgumentTypeError
        When applied to an operator without a known factor: use `Cholesky` or `CG`.

    Notes
    -----
    r·d numbers are touched a product; r² are kept and r³/3 operations factor them, for r rows of F. FᵀF + σI is
    positive definite by construction: there is no saddle to detect. What can be lost is σ: where FFᵀ + σI has no
    factor in this precision, or its answer leaves a residual and (‖FFᵀ‖ + σ)/σ > 1/√eps, the status is
    `ILL_CONDITIONED`. With more rows than parameters that is no fault of A's: `Cholesky` does better there.

    References
    ----------
    Woodbury, Inverting modified matrices, 1950.
    """

    refinements: int = 2
    card: ClassVar[Card] = Card(
        "3 HVPs, 6 products with F or Fᵀ, r³/3",
        "r²",
        "exact",
        "r rows of F are in the thousands; σ is lost beside ‖FFᵀ‖",
        saddle="impossible: A = FᵀF + σI",
    )

    def __post_init__(self) -> None:
        border.count("refinements", self.refinements)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "exact, dual form"

    def __call__(self, A: Any, b: Array) -> Solution[Woodbury]:
        """Solve A x = b."""
        system = prepare(A, b)
        factor, shift = system.A.factor, system.A.shift
        if factor is None or shift is None:
            raise ArgumentTypeError(
                "A: Woodbury needs a Hessian with a known factor (LeastSquares, SoftmaxCrossEntropy); "
                "use Cholesky or CG for this one"
            )
        xp = namespace(system.b)
        with np.errstate(over="ignore", invalid="ignore"):
            gram = factor.gram()
            small = gram + shift[..., None, None] * xp.eye(factor.rank, dtype=gram.dtype)
            usable = xp.all(xp.isfinite(small), axis=(-2, -1))
            small = xp.where(usable[..., None, None], small, xp.eye(factor.rank, dtype=gram.dtype))
            # FFᵀ + σI is positive definite by construction: a missing factor is rounding's.
            factors, found = factors_of(small)
            inverse_root = xp.linalg.inv(factors)

            def solve(rhs: Array) -> Array:
                inner = (inverse_root @ factor.apply(rhs)[..., None])[..., 0]
                inner = (transpose(inverse_root) @ inner[..., None])[..., 0]
                return (rhs - factor.adjoint(inner)) / shift[..., None]

            x = solve(system.b)
            for _ in range(self.refinements):
                x = x + solve(system.b - system.A(x))
        size = norm(system.b)
        largest = xp.linalg.norm(gram, axis=(-2, -1)) if xp is np else xp.max(xp.sum(xp.abs(gram), axis=-1), axis=-1)
        condition = (largest + shift) / shift + 0 * size
        lost = ~found & (size == size)
        x = xp.where(lost[..., None], xp.full_like(x, float("nan")), x)
        solution = verdict(
            system,
            x,
            solver=self,
            rtol=float(xp.finfo(x.dtype).eps),
            steps=np.full(system.shape, 1),
            budget=None,
            operator_norm=largest + shift + 0 * size,
            failed={Status.NONFINITE: ~usable & (size == size)},
            cost=Cost(hvps=self.refinements + 1),
            condition=condition,
        )
        poor = (solution.codes == Status.STAGNATED.code) & (condition > epsilon(x) ** -0.5)
        codes = marked(solution.codes, poor | (lost & system.finite), Status.ILL_CONDITIONED)
        return replaced(solution, status=statuses(codes))
