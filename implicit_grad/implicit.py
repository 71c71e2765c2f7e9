"""The implicit function theorem for any stationarity map F(φ, θ) = 0, not only iMAML's.

The penalty of a logistic regression, by a map that is no iMAML problem: φ are the weights, θ is log α, and

    F(φ, θ) = ∇L_train(φ) + e^θ φ,        dE/dθ = −(∂_θF)ᵀ (∂_φF)⁻ᵀ ∇E(φ*)

>>> import autograd.numpy as anp
>>> import numpy as np
>>> from implicit_grad import Autodiff, AutodiffMap, Cholesky, ImplicitFunction, NewtonRoot
>>> rng = np.random.default_rng(5)
>>> X, signs = rng.normal(size=(40, 3)), rng.choice([-1.0, 1.0], size=40)
>>> def loss(rows):
...     return lambda w: anp.mean(anp.logaddexp(0.0, -signs[rows] * anp.dot(X[rows], w)))
>>> train, validation = Autodiff(loss(slice(0, 30))), Autodiff(loss(slice(30, 40)))
>>> def F(w, log_alpha):
...     margins = signs[:30] * anp.dot(X[:30], w)
...     return -anp.dot(signs[:30] / (1 + anp.exp(margins)), X[:30]) / 30 + anp.exp(log_alpha) * w
>>> stationarity, theta = AutodiffMap(F), np.array([-3.0])
>>> phi = NewtonRoot()(stationarity, theta, np.zeros(3))
>>> estimate = ImplicitFunction(stationarity, Cholesky()).gradient(phi, theta, validation)
>>> estimate.status
Status.CONVERGED

Refitting on both sides says the same:

>>> refit = lambda t: validation.value(NewtonRoot()(stationarity, np.array([t]), np.zeros(3)).value)
>>> quotient = (refit(-3 + 1e-4) - refit(-3 - 1e-4)) / 2e-4
>>> bool(abs(estimate.gradient[0] - quotient) < 1e-7 * abs(quotient))
True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad._deferred import Deferrable
from implicit_grad.backend import Array, concatenate, expand, namespace, norm
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.linear import LinearSolver
from implicit_grad.linear.general_lu import GeneralLU
from implicit_grad.newton_root import operator, point, tolerance
from implicit_grad.objectives import Autodiff, SmoothFunction
from implicit_grad.objectives.stationarity import LinearizedMap, StationarityMap, check_map
from implicit_grad.results import Cost, Estimate, Solution
from implicit_grad.status import Judged, Status, all_codes, marked, statuses, worst_status

_GIVEN = "the given phi"


@dataclass(frozen=True, eq=False)
class Derivative(Judged):
    """A product with dφ*/dθ or its transpose, and what it came from.

    Attributes
    ----------
    value : (..., d) or (..., p) array
    root : Solution
        φ, with ‖F(φ, θ)‖ recomputed.
    linear : Solution
        The solve with ∂_φF, or with its transpose.
    cost : Cost
    status : Status or (...) object array of Status
        The first stage that failed, else the last stage's success.
    """

    value: Array
    root: Solution[Any]
    linear: Solution[Any]
    cost: Cost
    status: Any = Deferrable()

    def unwrap(self) -> Array:
        """Return `value` if every stage succeeded for every problem.

        Raises
        ------
        IndefiniteError, ConvergenceError
            Of the first stage that failed.
        """
        self.root.unwrap()
        self.linear.unwrap()
        return self.value


@dataclass(frozen=True, eq=False)
class ImplicitFunction:
    r"""φ*(θ), defined by F(φ*, θ) = 0, and its derivatives.

    .. math:: \frac{\mathrm d\varphi^*}{\mathrm d\theta} = -(\partial_\varphi F)^{-1}\,\partial_\theta F, \qquad
              \nabla E(\theta) = \partial_\theta E - (\partial_\theta F)^\top (\partial_\varphi F)^{-\top}\,
              \partial_\varphi E

    With :math:`F = \nabla L_{\mathrm{train}}(\varphi) + \lambda(\varphi - \theta)` this is iMAML; hyper-parameters,
    sample weights and fixed points are other F. It does not matter how φ was found.

    Parameters
    ----------
    F : StationarityMap
        `AutodiffMap(f)`, `FixedPoint(AutodiffMap(update))`, `RegularizedProblem(...)`, or any object with `value` and
        `linearize`.
    linear_solver : LinearSolver
        `GeneralLU()` or `GeneralGMRES(k)` for any F. Where F is the gradient of what φ minimises, ∂_φF is symmetric
        and every solver for curvatures will do: `Cholesky()`, `CG(k)`. They, too, get the transposed products for a
        vjp, so one that relies on a symmetry that is not there leaves a residual, and says so.
    rtol : float
        φ counts as a root if ‖F‖ ≤ rtol · (‖∂_φF φ‖ + ‖∂_θF θ‖). A `Solution` brings its own verdict.
    require_minimum : bool
        Where the linear solver finds ∂_φF not positive definite although F is the gradient of what φ minimises, φ is
        no strict minimum and the derivative is NaN. With False it is kept: the stationary point moves with θ whatever
        its kind. The status says `INDEFINITE` either way.

    Notes
    -----
    `Cost` counts in units of F: a linearisation is a gradient, a product with a partial Jacobian or its transpose is
    an HVP. Beside the linear solve a derivative takes one linearisation and three products, two of them for the
    verdict on φ.

    Solvers for curvatures look for negative curvature in any F. General ones do in maps that say that they are
    gradients of something to be minimised (`LinearizedMap.curvature`), as `RegularizedProblem` does; of an
    `AutodiffMap` they cannot know.

    References
    ----------
    Krantz, Parks, The implicit function theorem, 2013. Bengio, Gradient-based optimization of hyperparameters, 2000.
    Blondel et al., Efficient and modular implicit differentiation, 2022, arXiv:2105.15183.
    """

    F: StationarityMap
    linear_solver: LinearSolver = field(default_factory=GeneralLU)
    rtol: float = 1e-6
    require_minimum: bool = True

    def __post_init__(self) -> None:
        check_map("F", self.F)
        border.strategy("linear_solver", self.linear_solver, "GeneralLU()")
        border.tolerance("rtol", self.rtol)
        border.flag("require_minimum", self.require_minimum)

    def judge(self, phi: Any, theta: Array) -> Solution[Any]:
        """Return φ as a solution with ‖F(φ, θ)‖ recomputed, and the verdict whether it is a root."""
        return self._at(phi, theta).root

    def vjp(self, phi: Any, theta: Array, v: Array) -> Derivative:
        r"""Return (dφ*/dθ)ᵀ v = −(∂_θF)ᵀ (∂_φF)⁻ᵀ v: `(..., d) → (..., p)`.

        Parameters
        ----------
        phi : (..., d) array or Solution
            The root.
        theta : (..., p) array
        v : (..., d) array

        Raises
        ------
        ArgumentError, ArgumentTypeError
            For arrays that are not finite or do not fit.
        """
        at = self._at(phi, theta)
        return self._vjp(at, at.direction("v", v, at.phi))

    def jvp(self, phi: Any, theta: Array, w: Array) -> Derivative:
        r"""Return (dφ*/dθ) w = −(∂_φF)⁻¹ ∂_θF w: `(..., p) → (..., d)`.

        Parameters
        ----------
        phi : (..., d) array or Solution
            The root.
        theta : (..., p) array
        w : (..., p) array

        Raises
        ------
        ArgumentError, ArgumentTypeError
            For arrays that are not finite or do not fit.
        """
        at = self._at(phi, theta)
        b = -at.linearized.theta_product(at.direction("w", w, at.theta))
        linear = self.linear_solver(operator(at.linearized, at.phi), b)
        return self._derivative(at, linear, linear.value)

    def gradient(self, phi: Any, theta: Array, outer: SmoothFunction | Callable[[Any, Any], Any]) -> Estimate:
        r"""Return the hyper-gradient of θ ↦ E(φ*(θ), θ).

        Parameters
        ----------
        phi : (..., d) array or Solution
            The root.
        theta : (..., p) array
        outer : SmoothFunction or callable
            E(φ) with closed-form derivatives, or E(φ, θ) of one problem, written with `autograd.numpy`.

        Returns
        -------
        Estimate
            `linear.value` is q with (∂_φF)ᵀ q = ∂_φE.

        Raises
        ------
        ArgumentError, ArgumentTypeError, LossError
            For arrays that are not finite or do not fit, and for an E that is not one number per problem.
        """
        at = self._at(phi, theta)
        if isinstance(outer, SmoothFunction):
            v, direct = outer.gradient(at.phi), 0.0
        elif callable(outer):
            v, direct = _partial_gradients(outer, at.phi, at.theta)
        else:
            raise ArgumentTypeError(f"outer: expected a loss E(phi) or E(phi, theta), got {type(outer).__name__}")
        back = self._vjp(at, v)
        return Estimate(
            back.value + direct, at.root, back.linear, back.cost + Cost(gradients=1), statuses(back.codes)
        )

    def _at(self, phi: Any, theta: Array) -> _Point:
        given = phi if isinstance(phi, Solution) else None
        phi, theta = point(self.F, phi if given is None else given.value, theta)
        xp = namespace(phi)
        with np.errstate(over="ignore", invalid="ignore"):
            linearized = self.F.linearize(phi, theta)
            residual, allowed = norm(linearized.value), tolerance(linearized, phi, theta, self.rtol)
        if given is None:
            codes = marked(all_codes(residual, Status.MAX_STEPS), residual <= allowed, Status.CONVERGED)
            given = Solution(phi, residual, xp.zeros(residual.shape, dtype=xp.int64), None, _GIVEN)
        else:
            codes = expand(xp.asarray(given.codes), residual.shape)
        codes = marked(codes, ~xp.isfinite(residual), Status.NONFINITE)
        cost = given.cost + Cost(gradients=1, hvps=2)
        root = replace(given, value=phi, residual_norm=residual, status=statuses(codes), cost=cost)
        return _Point(phi, theta, linearized, root)

    def _vjp(self, at: _Point, v: Array) -> Derivative:
        linear = self.linear_solver(operator(at.linearized, at.phi, transposed=True), v)
        return self._derivative(at, linear, -at.linearized.theta_adjoint(linear.value))

    def _derivative(self, at: _Point, linear: Solution[Any], value: Array) -> Derivative:
        if self.require_minimum:
            xp, saddle = namespace(value), linear.codes == Status.INDEFINITE.code
            value = xp.where(saddle[..., None], xp.full_like(value, float("nan")), value)
        status = worst_status(at.root, linear)
        return Derivative(value, at.root, linear, at.root.cost + linear.cost + Cost(hvps=1), status)


@dataclass(frozen=True, eq=False)
class _Point:
    """F linearised at a point, with the verdict on it."""

    phi: Array
    theta: Array
    linearized: LinearizedMap
    root: Solution[Any]

    def direction(self, name: str, v: Any, like: Array) -> Array:
        v = border.vector(name, v)
        xp = namespace(like, v)
        if v.shape[-1] != like.shape[-1] or v.dtype != like.dtype:
            raise ArgumentError(
                f"{name}: expected shape (..., {like.shape[-1]}) and dtype {like.dtype}, got {tuple(v.shape)} and "
                f"{v.dtype}"
            )
        try:
            return xp.broadcast_to(v, like.shape)
        except ValueError:
            raise ArgumentError(
                f"{name}: shape {tuple(v.shape)} does not broadcast to the batch {tuple(like.shape[:-1])}"
            ) from None


def _partial_gradients(outer: Callable[[Any, Any], Any], phi: Array, theta: Array) -> tuple[Array, Array]:
    """∂_φE and ∂_θE of a traced E(φ, θ)."""
    d = phi.shape[-1]
    both = Autodiff(lambda z: outer(z[:d], z[d:])).gradient(concatenate([phi, theta]))
    return both[..., :d], both[..., d:]
