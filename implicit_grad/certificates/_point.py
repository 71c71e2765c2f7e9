"""A point φ at which a bound is evaluated: both losses linearised once, residuals with the rounding they may hide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.backend import Array, epsilon, norm
from implicit_grad.objectives import Linearization
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost


@dataclass(frozen=True, eq=False)
class Residual:
    """A recomputed vector, its norm, and a bound of what rounding may have done to it."""

    vector: Array
    norm: Array
    rounding: Array


class Point:
    """φ with ∇G, H and ∇L_test there: one gradient of each loss, whatever is asked of it afterwards.

    Rounding is allowed for by a model of norms, 8(N + n)·eps times the terms that cancel, with N parameters and n
    samples: generous for sums of that length, and no interval arithmetic.

    Attributes
    ----------
    hvps : int
        Hessian-vector products made here so far.
    """

    def __init__(self, problem: BilevelProblem, theta: Array, phi: Array) -> None:
        self.problem, self.phi, self.lam = problem, phi, problem.lam_like(phi)
        self.hvps = 0
        self.unit = 8 * (sum_length(problem) + phi.shape[-1]) * epsilon(phi)
        with np.errstate(over="ignore", invalid="ignore"):
            self.linearization: Linearization = problem.inner.linearize(phi)
            gradient, outer = self.linearization.gradient, problem.outer.gradient(phi)
            r = gradient + self.lam[..., None] * (phi - theta)
            terms = _sizes(problem.inner, phi, gradient) + self.lam * (norm(phi) + norm(theta))
            self.inner = Residual(r, norm(r), self.unit * terms)
            self.outer = Residual(outer, norm(outer), self.unit * _sizes(problem.outer, phi, outer))

    @property
    def way(self) -> Array:
        """−∇G/λ: about where φ* lies from here, and how far, if the regulariser bends G most."""
        return -self.inner.vector / self.lam[..., None]

    @property
    def cost(self) -> Cost:
        """What was spent here."""
        return Cost(gradients=2, hvps=self.hvps)

    def product(self, v: Array) -> Residual:
        """Return H v."""
        self.hvps += 1
        with np.errstate(over="ignore", invalid="ignore"):
            Hv = self.linearization.hvp(v)
            size, curvature = norm(Hv), getattr(self.problem.inner, "curvature_bound", None)
            # |X|ᵀ|X| has norm at most trace(XᵀX) ≤ min(N, n)·λ_max: what may cancel in H v.
            rank = min(v.shape[-1], getattr(self.problem.inner, "n_samples", v.shape[-1]))
            terms = size if curvature is None else 2 * rank * curvature() * norm(v)
        return Residual(Hv, size, self.unit * terms)

    def linear(self, g: Array, Hg: Residual) -> Residual:
        """Return r_lin = ∇L_test − (I + H/λ) g."""
        with np.errstate(over="ignore", invalid="ignore"):
            r = self.outer.vector - g - Hg.vector / self.lam[..., None]
            return Residual(r, norm(r), self.outer.rounding + self.unit * norm(g) + Hg.rounding / self.lam)


def _sizes(loss: Any, phi: Array, gradient: Array) -> Array:
    """Size of the terms that cancel in a gradient, where the loss can tell."""
    terms = getattr(loss, "gradient_terms", None)
    return norm(gradient) if terms is None else terms(phi)


def sum_length(problem: BilevelProblem) -> int:
    """Length of the longest sums: parameters plus samples."""
    samples = [getattr(loss, "n_samples", 0) for loss in (problem.inner, problem.outer)]
    return int((getattr(problem.inner, "size", None) or 0) + max(samples))
