"""Broken inner solvers and Hessian-vector products, each with one fault, of published code or one slip away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, GradientDescent, Newton, SoftmaxCrossEntropy, Solution, Status

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
    X, y = problem.inner.X, problem.inner.y
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


def scaled_rows(loss: Any, x: Any) -> Any:
    """A diagonal weight on one side of the Hessian only."""
    hvp = loss.linearize(x).hvp
    return lambda v: hvp(v) * np.linspace(1, 2, x.size)


def in_place(loss: Any, x: Any) -> Any:
    """Uses v as scratch space."""
    hvp = loss.linearize(x).hvp

    def product(v: Any) -> Any:
        result = hvp(v)
        v *= 0.5
        return result

    return product


def long_difference(loss: Any, x: Any) -> Any:
    """Forward differences with a fixed step."""
    return lambda v: (loss.gradient(x + 1e-2 * v) - loss.gradient(x)) / 1e-2


def always_double(loss: Any, x: Any) -> Any:
    """Returns float64 whatever came in."""
    hvp = loss.linearize(x).hvp
    return lambda v: hvp(v).astype(np.float64)


def gauss_newton(loss: Any, x: Any) -> Any:
    """Drops the curvature of the network: JᵀJv/n for one regression output."""

    def outputs(z: Any) -> Any:
        return loss.outputs(z)[..., 0]

    columns = [outputs(x + 1e-30j * e).imag / 1e-30 for e in np.eye(x.size)]
    J = np.array(columns).T
    return lambda v: J.T @ (J @ v) / len(J)


def without_coupling(loss: Any, x: Any) -> Any:
    """Softmax curvature without the −p pᵀ."""
    W = x.reshape(loss.X.shape[1], loss.n_classes)
    z = loss.X @ W
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)

    def product(v: Any) -> Any:
        moved = loss.X @ v.reshape(*v.shape[:-1], *W.shape)
        return (loss.X.T @ (p * moved) / len(p)).reshape(v.shape)

    return product


def negated(loss: Any, x: Any) -> Any:
    """−H."""
    hvp = loss.linearize(x).hvp
    return lambda v: -hvp(v)


def summed(loss: Any, x: Any) -> Any:
    """The curvature of a sum over samples."""
    hvp = loss.linearize(x).hvp
    return lambda v: len(loss.X) * hvp(v)


def no_graph(loss: Any, x: Any) -> Any:
    """The gradient was detached: no second derivative at all."""
    return np.zeros_like


def doubled_lam(problem: BilevelProblem, x: Any) -> Any:
    """H + 2λI."""
    A = problem.curvature(x)
    return lambda v: A(v) + float(problem.lam) * v


class NaiveSoftmax(SoftmaxCrossEntropy):
    """exp of the bare logits."""

    def value(self, x: Any) -> Any:
        z = self.X @ x.reshape(self.X.shape[1], self.n_classes)
        with np.errstate(over="ignore", invalid="ignore"):
            e = np.exp(z)
            return -np.mean(np.log((e / e.sum(axis=1, keepdims=True))[np.arange(len(z)), self.labels]))

    def linearize(self, x: Any) -> Any:
        return replace(super().linearize(x), value=self.value(x))


def padded_ritz(operator: Any, steps: int) -> Any:
    """Ritz values widened by a safety factor, which then bound nothing."""
    from implicit_grad import extreme_eigenvalues

    smallest, largest = extreme_eigenvalues(operator, steps)
    return smallest / 1.1, largest * 1.1
