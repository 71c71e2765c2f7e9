"""Broken inner solvers, each with one fault, of published code or one slip away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution
from implicit_grad.status import Status

Solve = Callable[..., Solution[Any]]


def flattering(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """Ten steps of gradient descent that report a tenth of their residual."""
    solution = GradientDescent(None, 10)(problem, theta, start=start)
    return replace(solution, residual_norm=solution.residual_norm / 10)


def content(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """Two Newton steps called converged to 1e-12."""
    solution = Newton(max_steps=2)(problem, theta, start=start)
    return replace(solution, status=np.asarray(Status.CONVERGED)[()], solver=Newton())


def undamped_newton(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """Newton without a line search."""
    phi, eye = theta.copy(), np.eye(theta.size)
    for _ in range(100):
        H = problem.inner.linearize(phi).hvp(eye)
        phi = phi - np.linalg.solve(H + problem.lam * eye, problem.stationarity(phi, theta))
    residual = np.linalg.norm(problem.stationarity(phi, theta))
    return Solution(phi, residual, np.asarray(100), Status.CONVERGED, None)


def one_step_for_none(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """An off-by-one loop."""
    return replace(GradientDescent(None, 1)(problem, theta, start=start), steps=np.asarray(0))


def double_price(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """K = 0 that still takes a gradient first."""
    problem.inner.gradient(theta)
    return GradientDescent(1.0, 0)(problem, theta, start=start)


def too_long_steps(step_size: float | None, steps: int, record: bool = False) -> Solve:
    """Forgets the curvature of L in the step size."""
    return lambda problem, theta: GradientDescent(float(1 / problem.lam), steps, record=record)(problem, theta)


def unregularised(step_size: float | None, steps: int, record: bool = False) -> GradientDescent:
    """An inner loop without the proximal term."""
    return GradientDescent(step_size, steps, record=record, proximal=False)


def unregularised_residual(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """An inner loop without the proximal term that reports ‖∇L‖."""
    solution = GradientDescent(None, 300, proximal=False)(problem, theta, start=start)
    return replace(solution, residual_norm=np.linalg.norm(problem.inner.gradient(solution.value)))


def with_lam(change: Callable[[Any], Any]) -> Solve:
    """Newton under another λ."""

    def solve(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
        return Newton(rtol=1e-13)(problem.with_lam(change(problem.lam)), theta, start=start)

    return solve


def pushed_away(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """The proximal term with the wrong sign (ridge only): a stationary point of L − λ/2‖φ − θ‖²."""
    loss: Any = problem.inner
    X, y = loss.X, loss.y
    A = X.T @ X / len(y) - problem.lam * np.eye(theta.size)
    phi = np.linalg.solve(A, X.T @ y / len(y) - problem.lam * theta)
    return Solution(phi, np.asarray(0.0), np.asarray(1), Status.CONVERGED, None)


def pulled_to_zero(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """Weight decay instead of a proximal term."""
    return Newton(rtol=1e-13)(problem, np.zeros_like(theta), start=theta)


def one_gradient_step(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """A gradient step where Newton's was asked for."""
    return GradientDescent(None, 1)(problem, theta, start=start)


def restarting(problem: BilevelProblem, theta: Any, *, start: Any = None) -> Solution[Any]:
    """Ignores where it is told to start."""
    return GradientDescent(None, 2)(problem, theta)
