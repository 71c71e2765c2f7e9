"""The derivative of the outer loss by the strength of the regulariser."""

from __future__ import annotations

from typing import Any

from implicit_grad.backend import Array, dot, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.objectives.autodiff import flatten, is_tree
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.results import Estimate


def lambda_gradient(problem: BilevelProblem | RegularizedProblem, theta: Any, estimate: Estimate) -> Array:
    r"""Return dF/dλ from an estimate of ∇F(θ), without another product.

    .. math:: \frac{\mathrm dF}{\mathrm d\lambda} = -(\varphi^*-\theta)^\top A^{-1}\,\nabla L_{\mathrm{test}}
              = -\frac1\lambda\,(\varphi^*-\theta)^\top g, \qquad
              \frac{\partial F}{\partial\Lambda_j} = -(\varphi^*-\theta)_j\,\bigl[(H+\Lambda)^{-1}
              \nabla L_{\mathrm{test}}\bigr]_j

    since φ and g hold all there is to know. For any regulariser it is −(∂²R/∂φ∂λ)ᵀ q, with q of the estimate's linear
    solve.

    Parameters
    ----------
    problem : BilevelProblem or RegularizedProblem
    theta : (..., d) array, or a parameter tree for a `BilevelProblem`
    estimate : Estimate
        Of that problem at that θ: of any `MetaGradient` for a `BilevelProblem`, whose error in g becomes an error of
        ‖φ − θ‖/λ times that size; of `ImplicitFunction(problem).gradient` for a `RegularizedProblem`. Its status is
        the status of this number, too.

    Returns
    -------
    (...) array
        One number a problem; `(..., d)` where each parameter has a weight of its own (`DiagonalQuadratic`).

    Raises
    ------
    ArgumentError, ArgumentTypeError
        If the estimate is another problem's, or has no linear solve where one is needed.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad import EXACT, BilevelProblem, LeastSquares
    >>> train, test = LeastSquares(np.eye(1), np.array([1.0])), LeastSquares(np.eye(1), np.array([0.0]))
    >>> problem = BilevelProblem(train, test, lam=3.0)               # φ* = 1/(1 + λ), F = ½φ*²
    >>> float(lambda_gradient(problem, np.zeros(1), EXACT(problem, np.zeros(1))))     # −1/(1 + λ)³
    -0.015625
    """
    g, phi = estimate.gradient, estimate.inner.value
    if is_tree(theta):
        theta, g = flatten(theta)[0], flatten(g)[0]
    if isinstance(problem, BilevelProblem):
        theta = problem.parameters(theta)
        _check(theta, phi)
        return -dot(phi - theta, g / problem.lam_like(phi)[..., None])
    if not isinstance(problem, RegularizedProblem):
        raise ArgumentTypeError(f"problem: expected a bilevel problem, got {type(problem).__name__}")
    if estimate.linear is None:
        raise ArgumentTypeError("estimate: holds no linear solve; take it from ImplicitFunction(problem).gradient")
    xp = namespace(phi)
    theta = xp.zeros_like(phi) + xp.asarray(theta, dtype=phi.dtype)
    _check(theta, phi)
    # Where the estimate was refused, at a saddle, so is this.
    q = xp.where(xp.isnan(g), g, estimate.linear.value)
    return -problem.regularizer.by_strength(phi, theta, q)


def _check(theta: Array, phi: Array) -> None:
    if theta.shape != phi.shape:
        raise ArgumentError(f"theta: shape {tuple(theta.shape)} is not the estimate's {tuple(phi.shape)}")
