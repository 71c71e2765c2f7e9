"""Broken meta-gradient estimators. Every fault has been seen in published code, or is one slip away from it.

`right` and `hand_unroll()` are sound controls, and each mutant is a control with one fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad.estimators import EXACT
from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost, Estimate, Solution
from implicit_grad.status import Status
from implicit_grad.testing.mutants.linear import diagonal_blocks
from implicit_grad.verify import wrong_formula


@dataclass(frozen=True, eq=False)
class Parts:
    """What a dense meta-gradient is made of."""

    problem: BilevelProblem
    theta: Any
    phi: Any
    lam: float

    @property
    def loss(self) -> Any:
        """L_train, with its data."""
        return self.problem.inner

    def hessian(self, x: Any) -> Any:
        """Return the Hessian."""
        return self.problem.inner.linearize(x).hvp(np.eye(x.size))

    @property
    def H(self) -> Any:
        """∇²L_train(φ)."""
        return self.hessian(self.phi)

    @property
    def eye(self) -> Any:
        """I."""
        return np.eye(self.phi.size)

    @property
    def b(self) -> Any:
        """∇L_test(φ)."""
        return self.problem.outer.gradient(self.phi)


def dense_at(formula: Callable[[Parts], Any]) -> Callable[..., Estimate]:
    """An estimator (problem, θ, inner) from a formula."""

    def call(problem: BilevelProblem, theta: Any, inner: Solution[Any]) -> Estimate:
        parts = Parts(problem, theta, inner.value, float(problem.lam))
        return Estimate(formula(parts), inner, None, Cost(), Status.CONVERGED)

    return call


def dense(
    formula: Callable[[Parts], Any], inner: Callable[..., Solution[Any]] | None = None
) -> Callable[..., Estimate]:
    """A meta-gradient (problem, θ) from a formula."""
    solve = Newton(rtol=1e-13) if inner is None else inner
    return lambda problem, theta: dense_at(formula)(problem, theta, solve(problem, theta))


def right(p: Parts) -> Any:
    """λ(H + λI)⁻¹∇L_test(φ): the sound control."""
    return p.lam * np.linalg.solve(p.H + p.lam * p.eye, p.b)


def damped_once(p: Parts) -> Any:
    """(2I + H/λ)⁻¹b: the Hessian of the regularised loss, and the identity on top."""
    return p.lam * np.linalg.solve(p.H + 2 * p.lam * p.eye, p.b)


def train_on_the_right(p: Parts) -> Any:
    """The train loss on the right-hand side."""
    return p.lam * np.linalg.solve(p.H + p.lam * p.eye, p.problem.inner.gradient(p.phi))


def split_in_halves(p: Parts) -> Any:
    """Drops what couples the first half of the parameters to the second, through the middle of a layer."""
    return p.lam * np.linalg.solve(diagonal_blocks(p.H) + p.lam * p.eye, p.b)


def first_samples(p: Parts) -> Any:
    """The Hessian of the first half of the samples."""
    loss = p.loss
    half = (len(loss.X) + 1) // 2
    targets = {"y": loss.y[:half]} if hasattr(loss, "y") else {"labels": loss.labels[:half]}
    fewer = replace(p.problem, inner=replace_loss(loss, X=loss.X[:half], **targets))
    return right(replace(p, problem=fewer))


def replace_loss(loss: Any, **parts: Any) -> Any:
    """Another loss of the same kind."""
    names = ("X", "labels", "n_classes") if hasattr(loss, "labels") else ("X", "y")
    return type(loss)(*(parts.get(name, getattr(loss, name)) for name in names))


def hand_unroll(
    *, second_order: bool = True, start_moves: bool = True, pull: float | None = None
) -> Callable[..., Callable[..., Estimate]]:
    """Reverse through K steps by hand; the defaults are the sound control."""

    def make(alpha: float | None, steps: int) -> Callable[..., Estimate]:
        def call(problem: BilevelProblem, theta: Any) -> Estimate:
            inner = GradientDescent(alpha, steps, record=True)(problem, theta)
            lam = float(problem.lam) if pull is None else pull
            path: Any = inner.path
            a, v, g = path.step_size, problem.outer.gradient(inner.value), np.zeros_like(theta)
            for k in reversed(range(steps)):
                Hv = problem.inner.linearize(path.points[k]).hvp(v) if second_order else 0 * v
                g = g + a * lam * v
                v = v - a * (Hv + lam * v)
            return Estimate(g + v if start_moves else g, inner, None, Cost(), inner.status)

        return call

    return make


def catalogued(name: str, **settings: Any) -> Callable[..., Estimate]:
    """A formula of the catalogue of wrong meta-gradients, as an estimate with its inner solution."""
    wrong = wrong_formula(name)

    def call(problem: BilevelProblem, theta: Any) -> Estimate:
        inner = Newton(rtol=1e-13)(problem, theta)
        return Estimate(wrong(problem, theta, **settings), inner, None, Cost(), Status.CONVERGED)

    return call


def average_lam(problem: BilevelProblem, theta: Any) -> Estimate:
    """One λ for all tasks."""
    return EXACT(problem.with_lam(np.full_like(problem.lam, np.mean(problem.lam))), theta)
