"""An error bar for any meta-gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace, norm, to_numpy
from implicit_grad.certificates._bounds import Bound, Bounds, Premises
from implicit_grad.certificates._constants import (
    Constants,
    Kind,
    closed_form_constants,
    sampled_constants,
    weakest,
)
from implicit_grad.certificates._curvature import CurvatureBound, CurvatureStrategy, SeenSpectrum
from implicit_grad.certificates._point import Point
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner import LBFGS, InnerSolver, Newton
from implicit_grad.linear import Cholesky
from implicit_grad.problem import BilevelProblem, expect_problem
from implicit_grad.results import Cost, Estimate

_GRADIENT_STEPS = 6
"""Steps on from φ where nobody says otherwise: what residuals at φ lack most is where they point."""


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
        The better gradient that a two-sided enclosure computes on its way; ĝ itself otherwise.
    cost : Cost
        Of the certificate alone, Newton steps and curvature bound included.
    origin : str
        Where m, the lower bound of λ_min(H + λI), comes from.
    failure : float
        Probability, per problem, that m is wrong; 0 unless the kind is `PROBABILISTIC` (or worse).
    smallest_seen : (...) array
        Smallest curvature of A at φ that anything met, for free: the estimate's own linear solve, and the products of
        the certificate with ĝ and ∇G. An upper bound of λ_min(A): a positive one proves nothing, but where it is not
        positive φ is no minimum, and there is no bound. Conjugate gradients see that as early as their Ritz values
        could: their tridiagonal matrix is LDLᵀ with the pivots pᵀAp/rᵀr, definite as long as all are positive.
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
    origin: str = ""
    failure: float = 0.0
    smallest_seen: Any = None


def certify(
    problem: BilevelProblem,
    theta: Array,
    estimate: Estimate | Array,
    phi: Array | None = None,
    *,
    constants: Constants | None = None,
    curvature_bound: CurvatureStrategy | None = None,
    gradient_steps: int | None = None,
    newton_steps: int = 0,
    two_sided: bool = True,
) -> Certificate:
    r"""Bound the error of a meta-gradient, whatever made it.

    With :math:`r_{\mathrm{in}} = \nabla_\varphi G(\hat\varphi)`,
    :math:`r_{\mathrm{lin}} = \nabla L_{\mathrm{test}}(\hat\varphi) - (I + H(\hat\varphi)/\lambda)\hat g` and
    :math:`\delta = \lVert r_{\mathrm{in}}\rVert/m`,

    .. math:: \lVert \hat g - \nabla F(\theta)\rVert \le \frac{\lambda}{m}
              \Bigl(\lVert r_{\mathrm{lin}}\rVert + \beta\delta + \frac{\rho}{\lambda}\delta\lVert\hat g\rVert\Bigr).

    This is the simplest of three bounds of which the smallest is taken, problem by problem; the others use that
    softmax losses are self-concordant, and that G⁻¹ is a contraction (derivations in `certificates/_bounds.py`).
    Residuals are recomputed here, with an allowance of 8(N + n)·eps times the terms that cancel in them.

    The bound may be evaluated at any point with the same ĝ, and a residual at φ does not say in which directions φ
    is wrong. So it is evaluated a second time, `gradient_steps` of L-BFGS on: what the inner solve lacked becomes
    part of a linear residual, which is computed and not bounded, for gradients only. The smaller of the two is taken.
    With `newton_steps` that point is φ_N, k damped Newton steps on. `two_sided` also solves for
    :math:`e = G(\varphi_N)^{-1} r_{\mathrm{lin}}(\varphi_N)`; with c the bound for ĝ + e at φ_N the error lies in
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
    curvature_bound : callable, optional
        Lower bound of λ_min(H + λI) at the point: `Convexity()`, `Eigenvalues()`, `ShiftedCholesky()`,
        `RandomLanczos()`. Away from the point it falls with ρ (Newton and Kantorovich) or, for self-concordant
        losses, by e^{−Rδ}; the larger of it and the constants' m is used.
    gradient_steps : int, optional
        k steps of L-BFGS on, each one gradient of the train loss. Default: 6 for losses with constants of their own
        (least squares, softmax), else 0. 0 stays at φ, where a second product sharpens ‖φ − φ*‖ if the loss is
        self-concordant. Either way a certificate makes at most two Hessian-vector products, beside what the
        constants and the curvature bound cost: `Certificate.cost`.
    newton_steps : int
        k > 0 takes k Newton steps with Cholesky instead, and makes one more product; `two_sided` adds a solve and
        another.
    two_sided : bool
        Whether Newton steps lead to an enclosure, or to an upper bound only.

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
    expect_problem(problem)
    theta = problem.parameters(theta)
    seen = _smallest_seen(estimate, phi)
    gradient, phi = _operands(problem, theta, estimate, phi)
    border.flag("two_sided", two_sided)
    if curvature_bound is not None:
        border.strategy("curvature_bound", curvature_bound, "ShiftedCholesky()")
    check_constants(constants, theta.shape[:-1])
    mover = _mover(problem, gradient_steps, newton_steps)
    point = Point(problem, theta, phi)
    premises, kind, curvature, cost = _premises(point, constants, curvature_bound, gradient)
    at_phi = Bounds(point, premises, sharpen=mover is None)
    found = there = at_phi.of(gradient)
    better, bound, lower = gradient, found.total, 0 * found.total
    cost += point.cost
    if mover is not None:
        moved = mover(problem, theta, start=phi)
        point = Point(problem, theta, moved.value)
        premises, kind, curvature, spent = _premises(point, constants, curvature_bound, gradient)
        bounds = Bounds(point, premises, sharpen=newton_steps > 0)
        if newton_steps and two_sided:
            correction, solve = _correction(point, gradient)
            better, spent = gradient + correction, spent + solve
            there, size = bounds.of(better), norm(correction)
            bound, lower = size + there.total, np.maximum(size - there.total, 0)
        else:
            there = bounds.of(gradient)
            bound = there.total
        # Where only the curvature at the point is known, the two bounds may be about two minima.
        bound = np.where(premises.m > 0, np.fmin(bound, found.total), bound)
        cost += moved.cost + spent + point.cost
    shares = _split(bound, found, there)
    seen = at_phi.seen if seen is None else np.fmin(at_phi.seen, to_numpy(seen))
    saddle = seen <= 0
    bound = np.where(np.isnan(bound) | saddle, np.inf, bound)
    lower = np.where(np.isnan(lower) | saddle, 0.0, lower)
    inner, linear, rounding = (np.where(np.isnan(part) | saddle, np.inf, part) for part in shares)
    if not np.isfinite(bound).any():
        kind = Kind.NONE
    informative = bound < norm(gradient)
    return Certificate(
        bound,
        lower,
        inner,
        linear,
        rounding,
        kind,
        informative,
        better,
        cost,
        curvature.origin,
        curvature.failure,
        seen,
    )


def check_constants(constants: Any, shape: tuple[int, ...]) -> None:
    """Refuse what are no constants, and constants of another batch.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        Naming the one that does not fit.
    """
    if constants is None:
        return
    if not isinstance(constants, Constants):
        raise ArgumentTypeError(f"constants: expected Constants(m, beta, rho), got {constants!r}")
    for name in ("m", "beta", "rho", "concordance"):
        own = np.shape(getattr(constants, name))
        try:
            fits = np.broadcast_shapes(own, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ArgumentError(f"constants: {name} of shape {own} does not fit a batch of shape {shape}")


def _mover(problem: BilevelProblem, gradient_steps: int | None, newton_steps: int) -> InnerSolver | None:
    """What leads from φ to the point of the second bound; None if there is none."""
    border.count("newton_steps", newton_steps)
    if gradient_steps is not None:
        border.count("gradient_steps", gradient_steps)
    if newton_steps:
        return Newton(rtol=0.0, max_steps=newton_steps)
    if gradient_steps is None:
        # For these L-BFGS needs no product, and there is one minimum for both bounds to be about.
        known = ("strong_convexity", "curvature_bound", "gradient_terms")
        gradient_steps = _GRADIENT_STEPS if all(hasattr(problem.inner, name) for name in known) else 0
    return LBFGS(gradient_steps) if gradient_steps else None


def _premises(
    point: Point, constants: Constants | None, strategy: CurvatureStrategy | None, gradient: Array
) -> tuple[Premises, Kind, CurvatureBound, Cost]:
    """Gather what is known of the losses, and how well."""
    shape, spent = point.phi.shape[:-1], Cost()
    if constants is None:
        constants = closed_form_constants(point.problem)
    if constants is None:
        constants, spent = sampled_constants(point.problem, point.phi, ways=(point.way,), gradient=gradient)
        strategy = SeenSpectrum() if strategy is None else strategy
    m = np.full(shape, -np.inf) if constants.m is None else np.broadcast_to(constants.m, shape)
    here, kind = np.full(shape, -np.inf), constants.kind
    curvature = CurvatureBound(m, True, kind, constants.origin)
    if strategy is not None:
        curvature = strategy(point)
        if curvature.everywhere:
            m = np.fmax(m, curvature.value)
        else:
            here = np.broadcast_to(curvature.value, shape)
        kind, spent = weakest(kind, curvature.kind), spent + curvature.cost
    elif constants.m is None:
        raise ArgumentError("constants: m is None; pass curvature_bound=ShiftedCholesky() or another strategy")
    beta, rho = (np.broadcast_to(x, shape) for x in (constants.beta, constants.rho))
    R = None if constants.concordance is None else np.broadcast_to(constants.concordance, shape)
    return Premises(m, here, beta, rho, R), kind, curvature, spent


def _smallest_seen(estimate: Any, phi: Any) -> Any:
    """Smallest curvature that the estimate's linear solve met at its own φ; None where it met none."""
    linear = estimate.linear if isinstance(estimate, Estimate) and phi is None else None
    return None if linear is None else linear.smallest_eigenvalue


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


def _correction(point: Point, g: Array) -> tuple[Array, Cost]:
    """Solve (I + H/λ) e = r_lin: e is minus the whole error of ĝ if φ is φ*."""
    A = point.problem.operator(point.linearization, point.phi)
    solve = Cholesky(refinements=2)(A, point.linear(g, point.product(g)).vector)
    return point.lam[..., None] * solve.value, solve.cost


def _split(bound: Array, found: Bound, there: Bound) -> list[Array]:
    """Split the bound as the one at φ, where it can be told what the inner and the linear solve lacked."""
    known = np.isfinite(found.total)
    with np.errstate(invalid="ignore", divide="ignore"):
        total: Array = np.where(known, found.total, there.total)
        ratio = np.where(total > 0, bound / total, 0.0)
        names = ("inner", "linear", "rounding")
        return [np.where(known, getattr(found, name), getattr(there, name)) * ratio for name in names]
