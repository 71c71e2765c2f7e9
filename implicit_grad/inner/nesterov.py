"""Nesterov's accelerated gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from implicit_grad.backend import Array
from implicit_grad.inner._momentum import accelerate, check_settings
from implicit_grad.inner.stopping import Distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class Nesterov:
    r"""Accelerated gradient descent on G(·; θ) with constant momentum.

    .. math:: y_k = \varphi_k + \beta(\varphi_k - \varphi_{k-1}), \qquad
              \varphi_{k+1} = y_k - \alpha\nabla_\varphi G(y_k;\theta), \qquad
              \beta = \frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}

    For a convex train loss and the defaults, G(φ_k) − G* ≤ (1 − 1/√κ)ᵏ (G(φ₀) − G* + λ/2 ‖φ₀ − φ*‖²).

    Parameters
    ----------
    step_size : float or None
        α > 0. None takes 1/M̄ per problem, as `GradientDescent` does.
    steps : int
        Largest number K of steps; without a tolerance the number of steps.
    momentum : float or None
        0 ≤ β < 1. None takes the β above per problem with κ = M̄/λ.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)) where its gradient is taken, and that point is its
        solution.
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Notes
    -----
    K + 1 gradients (the last for the residual), one more for each recorded step, and one linearisation with up to
    20 products where the curvature needs a Lanczos estimate. G may rise on the way: the method is no descent method.
    For losses that are not convex λ is no lower bound of the curvature, and the default momentum a guess.

    References
    ----------
    Nesterov, Introductory lectures on convex optimization, 2004, section 2.2.1.
    """

    step_size: float | None
    steps: int
    momentum: float | None = field(default=None, kw_only=True)
    rtol: float = field(default=0.0, kw_only=True)
    distance: Distance | float | None = field(default=None, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "1 gradient a step",
        "O(d)",
        "(1 − 1/√κ)ᴷ in G",
        "λ is far below the true curvature: β too close to 1",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Nesterov]:
        """Run from `start` (default θ)."""
        return accelerate(self, problem, theta, start, _tuned, ahead=True)


def _tuned(lam: Array, root: Array) -> tuple[Array, Array]:
    """α = 1/M̄ and β = (√κ − 1)/(√κ + 1)."""
    return 1 / (lam * root**2), (root - 1) / (root + 1)
