"""Polyak's heavy ball."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from implicit_grad.backend import Array
from implicit_grad.inner._momentum import accelerate, check_settings
from implicit_grad.inner.stopping import Distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Solution


@dataclass(frozen=True)
class HeavyBall:
    r"""Gradient descent on G(·; θ) with Polyak's momentum.

    .. math:: \varphi_{k+1} = \varphi_k - \alpha\nabla_\varphi G(\varphi_k;\theta)
              + \beta(\varphi_k - \varphi_{k-1}), \qquad
              \alpha = \frac{4}{(\sqrt{\bar M} + \sqrt\lambda)^2}, \quad
              \beta = \Bigl(\frac{\sqrt\kappa-1}{\sqrt\kappa+1}\Bigr)^{\!2}

    On quadratics with the defaults the error falls like k·βᵏᐟ²: no first-order method with constant coefficients is
    faster there.

    Parameters
    ----------
    step_size : float or None
        α > 0. None takes the α above per problem, with M̄ as in `GradientDescent`.
    steps : int
        Largest number K of steps; without a tolerance the number of steps.
    momentum : float or None
        0 ≤ β < 1. None takes the β above per problem with κ = M̄/λ.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)).
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Notes
    -----
    K + 1 gradients (the last for the residual), and one linearisation with up to 20 products where the curvature
    needs a Lanczos estimate. Off quadratics there is no such rate: for a strongly convex loss with piecewise linear
    gradient and these very α and β the iterates run around a cycle for ever (Lessard, Recht, Packard 2016, section
    4.6). Its status is then that of a spent budget, and with `rtol` `MAX_STEPS`: look at the residual.

    References
    ----------
    Polyak, Some methods of speeding up the convergence of iteration methods, 1964.
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
        "K((√κ − 1)/(√κ + 1))ᴷ on quadratics",
        "the loss is no quadratic: it may cycle, or diverge",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[HeavyBall]:
        """Run from `start` (default θ)."""
        return accelerate(self, problem, theta, start, _tuned, ahead=False)


def _tuned(lam: Array, root: Array) -> tuple[Array, Array]:
    """α = 4/(√M̄ + √λ)² and β = ((√κ − 1)/(√κ + 1))²."""
    return 4 / (lam * (root + 1) ** 2), ((root - 1) / (root + 1)) ** 2
