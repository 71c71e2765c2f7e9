"""The bound itself: residuals with their rounding, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.backend import Array, epsilon, norm
from implicit_grad.certificates._constants import sum_length
from implicit_grad.problem import BilevelProblem


@dataclass(frozen=True, eq=False)
class Residuals:
    """What is recomputed at a point φ for a gradient ĝ, with the rounding it may hide."""

    inner: Array
    linear: Array
    inner_rounding: Array
    linear_rounding: Array


def residuals(problem: BilevelProblem, theta: Array, phi: Array, g: Array) -> Residuals:
    """Recompute r_in and r_lin, each with an allowance of 8(N + n)·eps times the terms that cancel in it."""
    lam = problem.lam_like(phi)
    inner, outer = problem.inner.linearize(phi), problem.outer.gradient(phi)
    with np.errstate(over="ignore", invalid="ignore"):
        r_in = inner.gradient + lam[..., None] * (phi - theta)
        Hg = inner.hvp(g)
        r_lin = outer - g - Hg / lam[..., None]
        unit = 8 * (sum_length(problem) + phi.shape[-1]) * epsilon(phi)
        in_terms = _sizes(problem.inner, phi, inner.gradient) + lam * (norm(phi) + norm(theta))
        curvature = getattr(problem.inner, "curvature_bound", None)
        # |X|ᵀ|X| has norm at most trace(XᵀX) ≤ min(N, n)·λ_max: what may cancel in H g.
        rank = min(phi.shape[-1], getattr(problem.inner, "n_samples", phi.shape[-1]))
        product = norm(Hg) if curvature is None else 2 * rank * curvature() * norm(g)
        lin_terms = _sizes(problem.outer, phi, outer) + norm(g) + product / lam
    return Residuals(norm(r_in), norm(r_lin), unit * in_terms, unit * lin_terms)


def _sizes(loss: Any, phi: Array, gradient: Array) -> Array:
    """Size of the terms that cancel in a gradient, where the loss can tell."""
    terms = getattr(loss, "gradient_terms", None)
    return norm(gradient) if terms is None else terms(phi)


def error_bound(
    problem: BilevelProblem, at: Residuals, g: Array, m: Array, beta: Array, rho: Array
) -> tuple[Array, list[Array]]:
    """Return the bound and its shares: inner, linear, rounding."""
    lam = problem.lam_like(g)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        factor = lam / m
        worth = factor * (beta + rho * norm(g) / lam) / m  # error in g for each unit of inner residual
        inner, linear = worth * at.inner, factor * at.linear
        rounding = worth * at.inner_rounding + factor * at.linear_rounding
        return inner + linear + rounding, [inner, linear, rounding]
