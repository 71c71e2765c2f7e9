"""How long a step may be: the curvature of the train loss, known or estimated."""

from __future__ import annotations

import numpy as np

from implicit_grad.backend import Array, namespace
from implicit_grad.linear.lanczos import extreme_eigenvalues
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost

_LANCZOS_STEPS = 20


def loss_curvature(problem: BilevelProblem, theta: Array) -> tuple[Array, Cost]:
    """Largest eigenvalue M of ∇²L_train per problem `(...)`, and what finding it cost.

    The loss's own global bound where it knows one; else 1.1 times a Lanczos estimate at θ, which is no bound.
    """
    xp, cost = namespace(theta), Cost()
    bound = getattr(problem.inner, "curvature_bound", None)
    if bound is not None:
        curvature = bound()
    else:
        hessian = problem.operator(problem.inner.linearize(theta), theta, proximal=False)
        largest = extreme_eigenvalues(hessian, steps=_LANCZOS_STEPS)[1]
        cost = Cost(gradients=1, hvps=min(_LANCZOS_STEPS, int(theta.shape[-1])))
        # An indefinite or flat loss has no curvature to divide by; λ alone bounds the step then.
        curvature = xp.asarray(np.maximum(1.1 * largest, 0.0), dtype=theta.dtype)
    return xp.zeros_like(theta[..., 0]) + curvature, cost


def safe_step_size(problem: BilevelProblem, theta: Array) -> Array | None:
    """1/M̄ per problem `(...)` where the loss knows a bound of its curvature, so that it costs no product."""
    return step_sizes(problem, theta, None)[0] if hasattr(problem.inner, "curvature_bound") else None


def step_sizes(problem: BilevelProblem, theta: Array, step_size: float | None) -> tuple[Array, Cost]:
    """α per problem `(...)`: the one given, or 1/M̄ with M̄ = λ + M."""
    if step_size is not None:
        return namespace(theta).full_like(theta[..., 0], step_size), Cost()
    curvature, cost = loss_curvature(problem, theta)
    return 1 / (curvature + problem.lam_like(theta)), cost
