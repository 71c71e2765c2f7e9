"""What every inner solver promises, and how its end is judged."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, epsilon, namespace, norm
from implicit_grad.errors import ArgumentError
from implicit_grad.objectives import Linearization
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution


class InnerSolver(Protocol):
    """Minimise G(·; θ) for every problem of a batch."""

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Any]:
        """Return φ with ‖∇_φ G(φ; θ)‖ recomputed; `start` defaults to θ."""
        ...


def gradient_scale(problem: BilevelProblem, phi: Array, theta: Array, loss_gradient: Array) -> Array:
    """Size of the terms that cancel in ∇_φ G: ‖∇L(φ)‖ + λ(‖φ‖ + ‖θ‖), per problem.

    A residual is small or large against this, never absolutely.
    """
    lam = problem.lam_like(phi)
    return norm(loss_gradient) + lam * (norm(phi) + norm(theta))


def attainable(
    problem: BilevelProblem, phi: Array, theta: Array, linearization: Linearization | None = None
) -> Array:
    """Residual that rounding alone can leave: 10·√d·eps times all the terms that cancel.

    ∇L itself is a sum that cancels where H ≫ λ, so near φ* its norm says nothing about its rounding error. A loss
    that can size its terms does; for any other ‖∇L‖ + 2‖H φ‖ stands in, which covers every quadratic.
    """
    terms = getattr(problem.inner, "gradient_terms", None)
    if terms is not None:
        size = terms(phi)
    else:
        at = problem.inner.linearize(phi) if linearization is None else linearization
        size = norm(at.gradient) + 2 * norm(at.hvp(phi))
    root = float(phi.shape[-1]) ** 0.5
    return 10 * root * epsilon(phi) * (size + problem.lam_like(phi) * (norm(phi) + norm(theta)))


def start_point(problem: BilevelProblem, theta: Array, start: Array | None) -> Array:
    """Return the first iterate with every batch axis.

    Raises
    ------
    ArgumentError
        If `start` has batch axes that θ and the problem do not have.
    """
    if start is None:
        return namespace(theta).asarray(theta, copy=True)
    first = problem.parameters(start, "start") + namespace(theta).zeros_like(theta)
    if first.shape != theta.shape:
        raise ArgumentError(
            f"start: shape {np.shape(start)} has batch axes that θ and the problem, {tuple(theta.shape)}, do not; "
            f"give θ the same axes to start each problem from several points"
        )
    return first
