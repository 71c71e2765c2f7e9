"""The implicit gradient with a Hessian so simple that its inverse costs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.estimators._verdict import indefinite
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution

_CHUNK = 2**22


@dataclass(frozen=True)
class DiagonalGradient:
    r"""iMAML's formula with the diagonal of the Hessian in its place.

    .. math:: g_j = \frac{\lambda}{\lambda + H_{jj}(\varphi)}\,
              \frac{\partial L_{\mathrm{test}}}{\partial \varphi_j}(\varphi)

    Exact where the Hessian is diagonal, and nowhere else: coupling between entries is left out, and so the result
    depends on the coordinates.

    Notes
    -----
    d Hessian-vector products for the diagonal, in chunks of 2²² numbers: as many products as exact inversion takes,
    but neither d² numbers nor d³ operations. Where λ + H_jj ≤ 0 for some j, H + λI is not positive definite: the
    value is NaN, and the status `INDEFINITE`. All entries positive proves nothing.
    """

    card: ClassVar[Card] = Card(
        "d HVPs + 2 gradients",
        "O(d)",
        "‖H − diag H‖‖g‖/λ at most: does not vanish",
        "parameters are coupled, as weights are",
        saddle="NaN if an entry of λ + diag H is ≤ 0; else unseen",
    )

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "diagonal"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate at `inner.value`."""
        expect_solution(inner)
        phi = inner.value
        d, xp = int(phi.shape[-1]), namespace(phi)
        hessian = problem.operator(problem.inner.linearize(phi), phi, proximal=False)
        diagonal = xp.zeros_like(phi)
        chunk = max(1, _CHUNK // max(1, d * int(np.prod(phi.shape[:-1]))))
        ones, eye = (1,) * (phi.ndim - 1), xp.eye(d, dtype=phi.dtype)
        for begin in range(0, d, chunk):
            basis = xp.reshape(eye[begin : min(begin + chunk, d), :], (-1, *ones, d))
            diagonal = diagonal + xp.sum(hessian(basis) * basis, axis=0)
        cost = inner.cost + Cost(gradients=2, hvps=d)
        return _estimate(problem, inner, diagonal, cost)


@dataclass(frozen=True)
class IdentityGradient:
    r"""iMAML's formula with cI in the place of the Hessian: the first-order gradient, shortened.

    .. math:: g = \frac{\lambda}{\lambda + c}\,\nabla L_{\mathrm{test}}(\varphi)

    The direction is first-order MAML's, whatever c is; c decides the length. c → 0 gives `FirstOrderGradient`. The
    curvature is not looked at, so a saddle goes unnoticed.

    Parameters
    ----------
    curvature : float
        c > 0.

    References
    ----------
    Choe et al., Making scalable meta learning practical (SAMA), 2023, arXiv:2310.05674, which adapts c to the
    optimizer; Luketina et al. 2016, arXiv:1511.06727 (T1–T2).
    """

    curvature: float
    card: ClassVar[Card] = Card(
        "1 gradient",
        "O(d)",
        "max |μ − c|/(λ + μ)‖∇L_test‖ over the spectrum of H",
        "the spectrum of H is spread out",
        saddle="does not look",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "curvature", border.positive_float("curvature", self.curvature))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"identity, {self.curvature:g}"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate at `inner.value`."""
        expect_solution(inner)
        diagonal = namespace(inner.value).full_like(inner.value, self.curvature)
        return _estimate(problem, inner, diagonal, inner.cost + Cost(gradients=1))


def _estimate(problem: BilevelProblem, inner: Solution[Any], diagonal: Array, cost: Cost) -> Estimate:
    """Return λ b/(λ + diagonal), refused where that is no positive definite matrix."""
    phi = inner.value
    xp, lam = namespace(phi), problem.lam_like(phi)[..., None] + 0 * phi
    whole = lam + diagonal
    saddle = xp.any(whole <= 0, axis=-1)
    safe = xp.where(saddle[..., None], xp.ones_like(whole), whole)
    # λ/(λ + h) first: λ times a gradient may overflow where their quotient does not.
    g = lam / safe * problem.outer.gradient(phi)
    g = xp.where(saddle[..., None], xp.full_like(g, float("nan")), g)
    return Estimate(g, inner, None, cost, indefinite(inner, saddle))
