"""The constants that an error bound rests on, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, namespace, norm
from implicit_grad.errors import ArgumentError
from implicit_grad.linear import spectrum_ends
from implicit_grad.problem import BilevelProblem


class Kind(Enum):
    """What a certificate's bound is worth; the value is the help text."""

    RIGOROUS = "proven, from constants in closed form and a rounding allowance"
    CONDITIONAL = "proven, if the constants supplied by the user hold"
    ESTIMATE = "not proven: constants were sampled near the solution"
    NONE = "no bound: the curvature is not positive, or nothing is known of the losses"


@dataclass(frozen=True, eq=False)
class Constants:
    """Bounds of the losses, over all φ.

    Attributes
    ----------
    m : (...) array
        Strong convexity of G: λ_min(∇²L_train) + λ ≥ m everywhere (or on the segment from φ to φ*).
    beta : (...) array
        Lipschitz constant of ∇L_test.
    rho : (...) array
        Lipschitz constant of ∇²L_train.
    kind : Kind
    """

    m: Any
    beta: Any
    rho: Any
    kind: Kind = Kind.CONDITIONAL

    def __post_init__(self) -> None:
        border.positive("m", self.m)
        for name in ("beta", "rho"):
            value = np.asarray(border.real_array(name, getattr(self, name)))
            if not (np.isfinite(value) & (value >= 0)).all():
                raise ArgumentError(f"{name}: must be finite and >= 0, got {getattr(self, name)}")


def closed_form_constants(problem: BilevelProblem) -> Constants | None:
    """Return the constants of losses that know theirs (least squares, softmax), or None."""
    inner: Any = problem.inner
    outer: Any = problem.outer
    if not all(hasattr(inner, name) for name in ("strong_convexity", "hessian_lipschitz")):
        return None
    if not hasattr(outer, "curvature_bound"):
        return None
    xp, lam = namespace(problem.lam), problem.lam
    # Eigenvalues are computed to within their backward error; the bounds are moved to the safe side of it.
    safe = 1 + 100 * sum_length(problem) * float(np.finfo(np.float64).eps)
    return Constants(
        m=xp.asarray(lam + inner.strong_convexity()),
        beta=safe * outer.curvature_bound(),
        rho=safe * inner.hessian_lipschitz(),
        kind=Kind.RIGOROUS,
    )


def sampled_constants(problem: BilevelProblem, theta: Array, phi: Array, *, draws: int = 4, seed: int = 77) -> Any:
    r"""Estimate m, β and ρ near φ, for losses that know nothing of themselves.

    .. math:: \hat\rho = \max \frac{\lVert (H(\varphi + \epsilon u) - H(\varphi)) w\rVert}{\epsilon}, \qquad
              \hat\beta = \max \lVert H_{\mathrm{test}}(\varphi) w \rVert, \qquad
              \hat m = \lambda + \mu_{\min}(H(\varphi))

    over random unit directions. By Newton and Kantorovich, h = ρ‖∇G‖/m̂² < ½ means that there is one stationary point
    within δ = (m̂ − √(m̂² − 2ρ‖∇G‖))/ρ, and m = m̂ − ρδ holds on the way to it.

    Returns
    -------
    m, beta, rho : (...) arrays
        m is NaN where the condition fails: nothing can be said there.
    """
    rng = np.random.default_rng(seed)
    here, there = problem.inner.linearize(phi), problem.outer.linearize(phi)
    residual = norm(here.gradient + problem.lam_like(phi)[..., None] * (phi - theta))
    m = spectrum_ends(problem.operator(here, phi))[0]
    beta, rho = np.zeros_like(residual), np.zeros_like(residual)
    step = epsilon(phi) ** (1 / 3) * (1 + norm(phi))
    for _ in range(draws):
        u, w = (_unit(rng.standard_normal(phi.shape)) for _ in range(2))
        moved = problem.inner.linearize(phi + step[..., None] * u)
        rho = np.maximum(rho, norm(moved.hvp(w) - here.hvp(w)) / step)
        beta = np.maximum(beta, norm(there.hvp(w)))
    beta = np.maximum(beta, np.abs(spectrum_ends(problem.with_lam(1.0).operator(there, phi, proximal=False))[1]))
    with np.errstate(invalid="ignore", divide="ignore"):
        inside = m**2 - 2 * rho * residual
        delta = np.where(rho > 0, (m - np.sqrt(np.maximum(inside, 0))) / rho, residual / m)
        usable = (m > 0) & (inside > 0)
    return np.where(usable, m - rho * delta, np.nan), beta, rho


def _unit(x: Array) -> Array:
    return x / norm(x)[..., None]


def sum_length(problem: BilevelProblem) -> int:
    """Length of the longest sums: parameters plus samples."""
    samples = [getattr(loss, "n_samples", 0) for loss in (problem.inner, problem.outer)]
    return int((getattr(problem.inner, "size", None) or 0) + max(samples))
