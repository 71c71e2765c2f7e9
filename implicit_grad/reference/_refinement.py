"""Above a hundred parameters: float64 factors, and residuals in long doubles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.backend import norm
from implicit_grad.certificates import closed_form_constants, sampled_constants
from implicit_grad.linear import spectrum_ends
from implicit_grad.problem import BilevelProblem
from implicit_grad.reference._arithmetic import Array, Extended
from implicit_grad.reference._losses import ReferenceLoss

_STEPS = 30


@dataclass(frozen=True, eq=False)
class Refined:
    """φ and g as long doubles, and a bound of the error of g."""

    phi: Array
    gradient: Array
    radius: float


def refine(problem: BilevelProblem, theta: Array, start: Array) -> Refined:
    """Polish φ, then solve for g, both by corrections from one Cholesky factor in float64."""
    R = Extended()
    train, test = ReferenceLoss("inner", problem.inner, R), ReferenceLoss("outer", problem.outer, R)
    lam, base = R.exact(problem.lam)[()], R.exact(theta)
    solve = _factor(problem, start)
    phi = _corrected(R.exact(start), lambda x: -(train.gradient(x) + lam * (x - base)), solve)
    product, b = train.product(phi), test.gradient(phi)
    q = _corrected(R.exact(solve(b)), lambda x: b - product(x) - lam * x, solve)
    r_in, r_lin = norm(train.gradient(phi) + lam * (phi - base)), norm(b - product(q) - lam * q)
    return Refined(phi, lam * q, _radius(problem, theta, phi, lam * q, float(r_in), float(r_lin)))


def _factor(problem: BilevelProblem, phi: Array) -> Any:
    from scipy.linalg import cho_factor, cho_solve

    factor = cho_factor(problem.curvature(phi).dense(), lower=True)
    return lambda r: cho_solve(factor, np.asarray(r, dtype=np.float64))


def _corrected(x: Array, residual: Any, solve: Any) -> Array:
    """Add float64 solutions of the residual systems while these shrink."""
    r = residual(x)
    size = norm(r)
    for _ in range(_STEPS):
        trial = x + solve(r)
        again = residual(trial)
        if not norm(again) < size:
            break
        x, r, size = trial, again, norm(again)
    return x


def _radius(problem: BilevelProblem, theta: Array, phi: Array, g: Array, r_in: float, r_lin: float) -> float:
    """Bound of ‖g − ∇F‖ from both residuals and their rounding, as a certificate has it but in long doubles."""
    point = phi.astype(np.float64)
    known = closed_form_constants(problem) or sampled_constants(problem, point)[0]
    ends = spectrum_ends(problem.curvature(point))
    m = float(ends[0] if known.m is None else known.m)
    beta, rho = float(known.beta), float(known.rho)
    lam, size = float(problem.lam), float(norm(g))
    samples = max(problem.inner.n_samples, problem.outer.n_samples)  # type: ignore[attr-defined]
    unit = 8 * (len(g) + samples) * Extended.epsilon
    pull = lam * (float(norm(point)) + float(norm(theta)))
    r_in += unit * (float(problem.inner.gradient_terms(point)) + pull)  # type: ignore[attr-defined]
    curvature = 2 * min(len(g), samples) * float(ends[1])
    r_lin += unit * (float(problem.outer.gradient_terms(point)) + size + curvature * size / lam)  # type: ignore[attr-defined]
    return lam / m * (r_lin + (beta + rho * size / lam) * r_in / m) if m > 0 else np.inf
