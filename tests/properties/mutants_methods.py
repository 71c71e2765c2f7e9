"""Broken contrastive, corrected, one-step and differenced estimators, each with one fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from laws_estimators import at

from implicit_grad import (
    BilevelProblem,
    ContrastiveGradient,
    Cost,
    Estimate,
    FiniteDifferenceGradient,
    GradientDescent,
    GradientStep,
    ImplicitGradient,
    Nesterov,
    Newton,
    OneStepGradient,
    ReptileDirection,
    RichardsonGradient,
    Status,
    SuperEfficientGradient,
)
from implicit_grad.linear import Cholesky

FLOOR = Newton(rtol=1e-15)
Estimator = Callable[..., Estimate]


def changed(estimator: Estimator, change: Callable[[Any, BilevelProblem], Any]) -> Estimator:
    """Another gradient out of a sound estimate."""

    def call(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
        estimated = estimator(problem, theta, inner)
        return replace(estimated, gradient=change(estimated.gradient, problem))

    return call


def contrastive(s: float, two_sided: bool) -> Estimator:
    """The sound control."""
    return ContrastiveGradient(s, FLOOR, two_sided)


def one_sided_for_two(s: float, two_sided: bool) -> Estimator:
    """Only one nudge, whatever was asked."""
    return ContrastiveGradient(s, FLOOR, False)


def half_span(s: float, two_sided: bool) -> Estimator:
    """The distance of two nudges divided by one s."""
    return changed(contrastive(s, two_sided), lambda g, _: 2 * g if two_sided else g)


def pushed(s: float, two_sided: bool) -> Estimator:
    """The sign of s mixed up where it matters: φ(0) − φ(−s)."""

    def call(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
        outer = _Negative(problem.outer)
        estimated = contrastive(s, False)(replace(problem, outer=outer), theta, inner)
        return replace(estimated, gradient=-estimated.gradient)

    return call


def unscaled(s: float, two_sided: bool) -> Estimator:
    """Without λ."""
    return changed(contrastive(s, two_sided), lambda g, problem: g / problem.lam)


def fixed_strength(s: float, two_sided: bool) -> Estimator:
    """A strength of its own: whatever the units."""
    return contrastive(1e-2, two_sided)


class _Negative:
    """−f."""

    def __init__(self, f: Any) -> None:
        self.f = f

    def value(self, x: Any) -> Any:
        return -self.f.value(x)

    def gradient(self, x: Any) -> Any:
        return -self.f.gradient(x)

    def linearize(self, x: Any) -> Any:
        from implicit_grad import Linearization

        line = self.f.linearize(x)
        return Linearization(-line.value, -line.gradient, lambda v: -line.hvp(v))


uncorrected: Estimator = ImplicitGradient(Cholesky())
"""No Newton step at all."""


def half_corrected(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
    """The right-hand side at the corrected φ, the Hessian not."""
    corrected = SuperEfficientGradient()(problem, theta, inner).inner
    A = problem.curvature(inner.value).dense()
    g = problem.lam * np.linalg.solve(A, problem.outer.gradient(corrected.value))
    return Estimate(g, corrected, None, Cost(), Status.CONVERGED)


def backwards(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
    """A Newton step uphill."""
    there = SuperEfficientGradient()(problem, theta, inner).inner.value
    return uncorrected(problem, theta, at(2 * inner.value - there))


def old_residual(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
    """The residual of the φ before the correction."""
    estimated = SuperEfficientGradient()(problem, theta, inner)
    before = np.linalg.norm(problem.stationarity(inner.value, theta))
    return replace(estimated, inner=replace(estimated.inner, residual_norm=before))


def no_lam(alpha: float) -> Estimator:
    """α∇T for αλ∇T."""
    return changed(OneStepGradient(GradientStep(alpha)), lambda g, problem: g / problem.lam)


def before_the_step(alpha: float) -> Estimator:
    """The test loss at φ, not at φ⁺."""

    def call(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
        g = alpha * problem.lam * problem.outer.gradient(inner.value)
        return Estimate(g, inner, None, Cost(), inner.status)

    return call


def forward_differences(h: float) -> Estimator:
    """(F(θ + h) − F(θ))/h."""

    def call(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
        def F(t: Any) -> Any:
            return problem.outer.value(FLOOR(problem, t).value)

        g = np.array([F(theta + h * e) - F(theta) for e in np.eye(theta.size)]) / h
        return Estimate(g, inner, None, Cost(), Status.CONVERGED)

    return call


def never_refusing(h: float | None) -> Estimator:
    """Every difference is a success."""

    def call(problem: BilevelProblem, theta: Any, inner: Any) -> Estimate:
        estimated = FiniteDifferenceGradient(FLOOR, h)(problem, theta, inner)
        return replace(estimated, status=Status.CONVERGED)

    return call


def without_momentum(step_size: float | None, steps: int, **settings: Any) -> GradientDescent:
    """Plain gradient descent, called accelerated."""
    return GradientDescent(step_size, steps, record=settings["record"])


def without_pull(step_size: float | None, steps: int, **settings: Any) -> Any:
    """Nearly no λ."""

    def call(problem: BilevelProblem, theta: Any) -> Any:
        return Nesterov(step_size, steps, **settings)(problem.with_lam(1e-4 * problem.lam), theta)

    return call


def content(solver: Any) -> Any:
    """Whatever happened, it converged, and to nothing less than zero."""

    def call(problem: BilevelProblem, theta: Any) -> Any:
        solution = solver(problem, theta)
        return replace(solution, status=Status.CONVERGED, residual_norm=0 * solution.residual_norm)

    return call


def tolerant(rtol: float) -> Nesterov:
    """The sound control."""
    return Nesterov(None, 3, rtol=rtol)


def always_converged(rtol: float) -> Any:
    """CONVERGED without looking."""

    def call(problem: BilevelProblem, theta: Any) -> Any:
        return replace(tolerant(rtol)(problem, theta), status=Status.CONVERGED)

    return call


def wrong_way(scale: float) -> Estimator:
    """φ − θ."""
    return changed(ReptileDirection(scale), lambda g, _: -g)


def unscaled_direction(scale: float) -> Estimator:
    """Whatever the scale."""
    return ReptileDirection(1.0)


whole_hessian: Estimator = ImplicitGradient(Cholesky(2), require_minimum=False)
"""The Hessian, where its Gauss–Newton part was asked for."""


def extrapolated(s: float) -> RichardsonGradient:
    """The sound control."""
    return RichardsonGradient(contrastive(s, True), contrastive(s / 2, True), order=2)


def wrong_order(s: float) -> RichardsonGradient:
    """A symmetric rule taken for one of first order."""
    return RichardsonGradient(contrastive(s, True), contrastive(s / 2, True), order=1)


def not_extrapolated(s: float) -> Estimator:
    """The fine estimate alone."""
    return contrastive(s / 2, True)
