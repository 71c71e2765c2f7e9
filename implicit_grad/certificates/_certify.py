"""An error bar for any meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, norm
from implicit_grad.certificates._bounds import error_bound, residuals
from implicit_grad.certificates._constants import Constants, Kind, closed_form_constants, sampled_constants
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner import Newton
from implicit_grad.linear import Cholesky
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Estimate


@dataclass(frozen=True, eq=False)
class Certificate:
    """Bounds of ‖ĝ − ∇F(θ)‖, one per problem.

    Attributes
    ----------
    bound : (...) array
        Upper bound; infinite where nothing is known.
    lower : (...) array
        Lower bound; 0 unless Newton steps were asked for.
    inner_share, linear_share, rounding_share : (...) arrays
        What of the bound comes from the inner solve, from the linear solve and from rounding: they add up to it, and
        say which of the two to improve.
    kind : Kind
    informative : (...) boolean array
        Whether the bound is smaller than ‖ĝ‖; otherwise even the direction is unknown.
    gradient : (..., d) array
        The better gradient that a two-sided enclosure computes on its way; ĝ itself without Newton steps.
    cost : Cost
    """

    bound: Array
    lower: Array
    inner_share: Array
    linear_share: Array
    rounding_share: Array
    kind: Kind
    informative: Array
    gradient: Array
    cost: Cost


def certify(
    problem: BilevelProblem,
    theta: Array,
    estimate: Estimate | Array,
    phi: Array | None = None,
    *,
    constants: Constants | None = None,
    newton_steps: int = 0,
) -> Certificate:
    r"""Bound the error of a meta-gradient, whatever made it.

    With :math:`r_{\mathrm{in}} = \nabla_\varphi G(\hat\varphi)`,
    :math:`r_{\mathrm{lin}} = \nabla L_{\mathrm{test}}(\hat\varphi) - (I + H(\hat\varphi)/\lambda)\hat g` and
    :math:`\delta = \lVert r_{\mathrm{in}}\rVert/m`,

    .. math:: \lVert \hat g - \nabla F(\theta)\rVert \le \frac{\lambda}{m}
              \Bigl(\lVert r_{\mathrm{lin}}\rVert + \beta\delta + \frac{\rho}{\lambda}\delta\lVert\hat g\rVert\Bigr).

    Both residuals are recomputed here, with an allowance of 8(N + n)·eps times the terms that cancel in them. With
    `newton_steps` the bound is evaluated where it is much smaller: k Newton steps lead to φ_N, one solve to
    :math:`e = G(\varphi_N)^{-1} r_{\mathrm{lin}}(\varphi_N)`, and with c the bound for ĝ + e at φ_N the error lies in
    :math:`[\lVert e\rVert - c, \lVert e\rVert + c]`.

    Parameters
    ----------
    problem : BilevelProblem
    theta : (..., d) array
    estimate : Estimate, or (..., d) array
        The meta-gradient, from this package or from anywhere.
    phi : (..., d) array, optional
        Inner solution; needed with a bare array, taken from the estimate otherwise.
    constants : Constants, optional
        m, β and ρ, where the losses do not know theirs; the kind is then `CONDITIONAL`.
    newton_steps : int
        0 costs one Hessian-vector product and two gradients. k > 0 costs k Newton steps and one solve by
        Cholesky.

    Returns
    -------
    Certificate
        Of kind `RIGOROUS` for least squares and softmax, `CONDITIONAL` with supplied constants, else `ESTIMATE`.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For gradients and points that do not fit the problem.

    Notes
    -----
    Proof. With A*, b* and H* at φ*, adding and subtracting gives

    .. math:: G^*(\hat g - g^*) = -r_{\mathrm{lin}} + (\hat b - b^*) + (H^* - \hat H)\,\hat g/\lambda,

    and m-strong convexity gives both :math:`\lVert\hat\varphi - \varphi^*\rVert \le \delta` and
    :math:`\lVert G^{*-1}\rVert \le \lambda/m`. The rounding allowance is a model of norms, not interval arithmetic.
    """
    theta = problem.parameters(theta)
    gradient, phi = _operands(problem, theta, estimate, phi)
    border.count("newton_steps", newton_steps)
    if constants is None:
        constants = closed_form_constants(problem)
    if constants is None:
        m, beta, rho = sampled_constants(problem, theta, phi)
        kind = Kind.ESTIMATE
    else:
        m, beta, rho = (np.broadcast_to(x, theta.shape[:-1]) for x in (constants.m, constants.beta, constants.rho))
        kind = constants.kind
    found = residuals(problem, theta, phi, gradient)
    bound, shares = error_bound(problem, found, gradient, m, beta, rho)
    lower, better, cost = 0 * bound, gradient, Cost(gradients=2, hvps=1)
    if newton_steps:
        start = Newton(rtol=0.0, max_steps=newton_steps)(problem, theta, start=phi)
        correction, spent = _correction(problem, start.value, gradient)
        better = gradient + correction
        at_newton = residuals(problem, theta, start.value, better)
        slack, _ = error_bound(problem, at_newton, better, m, beta, rho)
        size = norm(correction)
        closer = size + slack
        shares = [share * _ratio(closer, bound) for share in shares]
        lower, bound = np.maximum(size - slack, 0), closer
        cost = cost + start.cost + spent + Cost(gradients=2, hvps=1)
    bound = np.where(np.isnan(bound), np.inf, bound)
    lower = np.where(np.isnan(lower), 0.0, lower)
    if not np.isfinite(bound).any():
        kind = Kind.NONE
    inner, linear, rounding = (np.where(np.isnan(share), np.inf, share) for share in shares)
    return Certificate(bound, lower, inner, linear, rounding, kind, bound < norm(gradient), better, cost)


def _operands(problem: BilevelProblem, theta: Array, estimate: Any, phi: Any) -> tuple[Array, Array]:
    if isinstance(estimate, Estimate):
        phi = estimate.inner.value if phi is None else phi
        estimate = estimate.gradient
    if phi is None:
        raise ArgumentError("phi: needed with a bare gradient; pass the inner solution that it was taken at")
    gradient = border.real_array("estimate", estimate, min_ndim=1)
    if gradient.shape[-1] != theta.shape[-1]:
        raise ArgumentError(f"estimate: has {gradient.shape[-1]} entries, θ has {theta.shape[-1]}")
    if namespace(theta, gradient) is not np:
        raise ArgumentTypeError("estimate: certificates are computed on the host; move the arrays with to_numpy")
    return gradient + np.zeros_like(theta), problem.parameters(phi, "phi") + np.zeros_like(theta)


def _correction(problem: BilevelProblem, phi: Array, g: Array) -> tuple[Array, Cost]:
    """Solve (I + H/λ) e = r_lin: e is minus the whole error of ĝ if φ is φ*."""
    lam = problem.lam_like(phi)[..., None]
    A = problem.curvature(phi)
    residual = problem.outer.gradient(phi) - A(g) / lam
    solve = Cholesky(refinements=2)(A, residual)
    return lam * solve.value, solve.cost + Cost(gradients=2, hvps=1)


def _ratio(new: Array, old: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(old > 0, new / old, 0.0)
