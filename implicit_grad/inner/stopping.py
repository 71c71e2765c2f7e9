"""When an inner solver may stop: by steps, by the gradient of G, or by a proven distance from φ*."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, namespace
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner._protocol import attainable
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost


@dataclass(frozen=True)
class Distance:
    r"""Stop where φ is proven to lie within `tolerance` of φ*.

    .. math:: \lVert\varphi - \varphi^*\rVert \le \frac{\lVert\nabla_\varphi G(\varphi;\theta)\rVert}{m}
              \le \mathrm{tolerance}, \qquad m = \lambda + \mu, \qquad \nabla^2 L_{\mathrm{train}} \succeq \mu I

    Rounding is allowed for: what it can leave of ∇G is added to the residual before the comparison.

    Parameters
    ----------
    tolerance : float
        > 0, in the units of φ.
    convexity : float or None
        μ, a lower bound of the eigenvalues of ∇²L_train at every φ; 0 says that the loss is convex, a negative number
        that it is not. None takes the loss's own `strong_convexity()`. The proof is as good as this number.

    Examples
    --------
    >>> import numpy as np
    >>> from implicit_grad import BilevelProblem, GradientDescent, LeastSquares
    >>> train = LeastSquares(np.diag([1.0, 3.0]), np.array([1.0, 2.0]))
    >>> solver = GradientDescent(None, 1000, distance=Distance(1e-6))
    >>> found = solver(BilevelProblem(train, train, 0.5), np.zeros(2))
    >>> found.status, int(found.steps), bool(np.linalg.norm(found.value - [0.5, 0.6]) <= 1e-6)
    (Status.CONVERGED, 62, True)
    """

    tolerance: float
    convexity: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance", border.positive_float("tolerance", self.tolerance))
        if self.convexity is None:
            return
        if isinstance(self.convexity, bool | np.bool_ | str):
            raise ArgumentTypeError(f"convexity: expected a real number or None, got {self.convexity!r}")
        mu = border.real_array("convexity", self.convexity)
        if mu.ndim or not np.isfinite(float(mu)):
            raise ArgumentError(f"convexity: expected one finite number, got {self.convexity!r}")
        object.__setattr__(self, "convexity", float(mu))

    def largest_residual(self, problem: BilevelProblem, theta: Array) -> Array:
        """Return m · tolerance per problem `(...)`.

        Raises
        ------
        ArgumentError
            If nothing is known of the loss's convexity, or λ + μ is not positive for every problem.
        """
        mu: Any = self.convexity
        if mu is None:
            known = getattr(problem.inner, "strong_convexity", None)
            if known is None:
                raise ArgumentError(
                    f"distance: {type(problem.inner).__name__} knows no lower bound of its Hessian's eigenvalues; "
                    f"pass Distance(..., convexity=μ), which is 0.0 for a convex loss, or stop by rtol"
                )
            mu = known()
        xp = namespace(theta)
        m = problem.lam_like(theta) + mu + xp.zeros_like(theta[..., 0])
        if not bool(xp.all(m > 0)):
            raise ArgumentError(
                f"distance: G is not known to be strongly convex: m = λ + μ = {float(xp.min(m)):.6g}; raise λ, pass "
                f"a larger convexity if the loss has it, or stop by rtol"
            )
        # λ + μ and the product below are rounded: the bound is moved to the safe side of that.
        return (1 - 4 * epsilon(theta)) * (m * self.tolerance)


def checked_distance(value: Any) -> Distance | None:
    """Return a solver's `distance`; a plain number is a tolerance.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For anything else.
    """
    if value is None or isinstance(value, Distance):
        return value
    return Distance(border.positive_float("distance", value))


class Stop:
    """The tolerances of one run: both are met where both are asked for."""

    def __init__(self, problem: BilevelProblem, theta: Array, rtol: float, distance: Distance | float | None) -> None:
        self.problem, self.theta, self.rtol = problem, theta, rtol
        within = checked_distance(distance)
        self.asked = rtol > 0 or within is not None
        self.largest = None if within is None else within.largest_residual(problem, theta)
        self.sized = hasattr(problem.inner, "gradient_terms")

    @property
    def verdict_cost(self) -> Cost:
        """What sizing the rounding floor of one first-order iterate takes."""
        return Cost() if self.sized or self.largest is None else Cost(gradients=1, hvps=1)

    def reached(self, residual: Array, scale: Array) -> Array:
        """Whether a first-order run may stop, from what it has at hand.

        Half the residual that the distance allows leaves the other half to rounding, which is sized only at the end.
        """
        if self.largest is None:
            return residual <= self.rtol * scale
        near = residual <= 0.5 * self.largest
        return near & (residual <= self.rtol * scale) if self.rtol > 0 else near

    def floor(self, phi: Array) -> Array | None:
        """Residual that rounding can leave at φ, where a verdict needs it."""
        if self.largest is None and not (self.rtol > 0 and self.sized):
            return None
        return attainable(self.problem, phi, self.theta)

    def met(self, residual: Array, scale: Array, floor: Array | None) -> Array:
        """Whether every tolerance asked for is met; without any, whether rounding lets nothing be gained."""
        xp, tolerance = namespace(residual), self.rtol * scale
        if floor is not None:
            tolerance = xp.where(floor > tolerance, floor, tolerance)
        within = residual <= tolerance
        if self.largest is None:
            return within
        near = residual + floor <= self.largest
        return near & within if self.rtol > 0 else near
