"""The constants that an error bound rests on, and how far they can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, norm
from implicit_grad.certificates._point import sum_length
from implicit_grad.errors import ArgumentError
from implicit_grad.linear import spectrum_ends
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Cost


class Kind(Enum):
    """What a certificate's bound is worth, best first; the value is the help text."""

    RIGOROUS = "proven, from constants in closed form and a rounding allowance"
    PROBABILISTIC = "proven, except with the stated probability over the random start of a Lanczos process"
    CONDITIONAL = "proven, if the constants supplied by the user hold"
    ESTIMATE = "not proven: constants were sampled near the solution"
    NONE = "no bound: the curvature is not positive, or nothing is known of the losses"


def weakest(*kinds: Kind) -> Kind:
    """Return the least trustworthy of some kinds: a proof is as good as its weakest premise."""
    order = list(Kind)
    return max(kinds, key=order.index)


@dataclass(frozen=True, eq=False)
class Constants:
    """Bounds of the losses, over all φ.

    Attributes
    ----------
    m : (...) array or None
        Strong convexity of G: λ_min(∇²L_train) + λ ≥ m everywhere (or on the segment from φ to φ*). None where it is
        not known, and `certify` is given a `curvature_bound` instead.
    beta : (...) array
        Lipschitz constant of ∇L_test.
    rho : (...) array
        Lipschitz constant of ∇²L_train.
    kind : Kind
    concordance : (...) array or None
        R of a convex train loss with |D³L[u, u, v]| ≤ R‖v‖ D²L[u, u]; None where none is known. 0 for quadratics.
    origin : str
        Where m comes from.
    """

    m: Any
    beta: Any
    rho: Any
    kind: Kind = Kind.CONDITIONAL
    concordance: Any = field(default=None, kw_only=True)
    origin: str = field(default="supplied by the user", kw_only=True)

    def __post_init__(self) -> None:
        if self.m is not None:
            border.positive("m", self.m)
        for name in ("beta", "rho", "concordance"):
            value = getattr(self, name)
            if value is None and name == "concordance":
                continue
            array = np.asarray(border.real_array(name, value))
            if not (np.isfinite(array) & (array >= 0)).all():
                raise ArgumentError(f"{name}: must be finite and >= 0, got {value}")


def closed_form_constants(problem: BilevelProblem) -> Constants | None:
    """Return the constants of losses that know theirs (least squares, softmax), or None."""
    inner: Any = problem.inner
    outer: Any = problem.outer
    if not all(hasattr(inner, name) for name in ("strong_convexity", "hessian_lipschitz")):
        return None
    if not hasattr(outer, "curvature_bound"):
        return None
    # Eigenvalues are computed to within their backward error; the bounds are moved to the safe side of it.
    safe = 1 + 100 * sum_length(problem) * float(np.finfo(np.float64).eps)
    concordance = getattr(inner, "self_concordance", None)
    return Constants(
        m=np.asarray(problem.lam + inner.strong_convexity()),
        beta=safe * outer.curvature_bound(),
        rho=safe * inner.hessian_lipschitz(),
        kind=Kind.RIGOROUS,
        concordance=None if concordance is None else safe * concordance(),
        origin="λ + the train loss's own strong convexity",
    )


SAFETY = 2.0
"""What sampled maxima are multiplied with: they are lower bounds of what they estimate. No factor makes a proof."""


def sampled_constants(
    problem: BilevelProblem,
    phi: Array,
    *,
    ways: tuple[Array, ...] = (),
    gradient: Array | None = None,
    draws: int = 4,
    rng: np.random.Generator | None = None,
) -> tuple[Constants, Cost]:
    r"""Estimate β and ρ near φ, for losses that know nothing of themselves; m is left open.

    .. math:: \hat\rho = 2 \max \frac{\lVert (H(\varphi + s u) - H(\varphi)) w\rVert}{s}, \qquad
              \hat\beta = 2 \max\bigl(\lVert H_{\mathrm{test}}(\varphi) w \rVert, \lvert\mu_{\max}\rvert\bigr)

    over unit directions u and w and small steps s.

    Parameters
    ----------
    problem : BilevelProblem
    phi : (..., d) array
    ways : tuple of (..., d) arrays
        Where φ* may lie from φ: φ + way is looked at as well, at the whole distance, with w along `gradient`. Random
        directions in many dimensions rarely meet the ones in which a network bends.
    gradient : (..., d) array, optional
        The meta-gradient, on which H acts in the bound.
    draws : int
        Random pairs (u, w).
    rng : Generator, optional
        Of the random pairs. A caller that samples again and again passes one and the same, which goes on; default: a
        new one with a fixed seed, so that a single certificate is deterministic.
    """
    rng = np.random.default_rng(77) if rng is None else rng
    here, there = problem.inner.linearize(phi), problem.outer.linearize(phi)
    beta, rho = np.zeros(phi.shape[:-1]), np.zeros(phi.shape[:-1])
    step = epsilon(phi) ** (1 / 3) * (1 + norm(phi))
    pairs = [tuple(_unit(rng.standard_normal(phi.shape)) for _ in range(2)) for _ in range(draws)]
    moves = [(step[..., None] * u, w) for u, w in pairs]
    if gradient is not None:
        moves += [(way, _unit(gradient)) for way in ways]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        for move, w in moves:
            bend = norm(problem.inner.linearize(phi + move).hvp(w) - here.hvp(w)) / norm(move)
            rho = np.fmax(rho, bend)
    for _, w in pairs:
        beta = np.maximum(beta, norm(there.hvp(w)))
    ends = spectrum_ends(problem.with_lam(1.0).operator(there, phi, proximal=False))
    beta = np.maximum(beta, np.maximum(*(np.abs(end) for end in ends)))
    finite = np.isfinite(beta) & np.isfinite(rho)
    beta, rho = (np.where(finite, SAFETY * x, 0.0) for x in (beta, rho))  # the residuals there are not finite, either
    ends_cost = phi.shape[-1] if phi.shape[-1] <= 512 else 60
    hvps = 2 * len(moves) + len(pairs) + ends_cost
    origin = f"sampled near φ, times {SAFETY:g}"
    return Constants(None, beta, rho, Kind.ESTIMATE, origin=origin), Cost(gradients=2 + len(moves), hvps=hvps)


def _unit(x: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(norm(x)[..., None] > 0, x / norm(x)[..., None], 0.0)
