"""Limited-memory BFGS, for all problems of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, namespace, norm
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner._search import search
from implicit_grad.inner.stopping import Distance, checked_distance
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution


@dataclass(frozen=True)
class LBFGS:
    r"""L-BFGS on G(·; θ): the inverse curvature from the last few steps and gradient changes.

    .. math:: \varphi_{k+1} = \varphi_k - t\,B_k\nabla_\varphi G(\varphi_k;\theta), \qquad
              B_k\,(\nabla G_k - \nabla G_{k-1}) = \varphi_k - \varphi_{k-1}

    by the two-loop recursion, with the line search of `Newton`.

    Parameters
    ----------
    steps : int
        Largest number of steps; without a tolerance their number.
    history : int
        Pairs of steps and gradient changes kept.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)), or is down to what rounding leaves.
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Notes
    -----
    Not SciPy's, which is `ScipyMinimize("L-BFGS-B")`: that one goes problem by problem on the host and stops at the
    rounding of G, near √eps in φ; this one takes a batch, keeps its path, runs on any backend, and lets the gradient
    decide where G cannot. One linearisation for each length tried, and no products where the loss knows its curvature
    bound and can size its rounding (else one to begin with, and one a step). B₀ is 1/M̄, or without a bound the
    inverse of the curvature along ∇G; afterwards sᵀy/yᵀy of the last pair. A pair with sᵀy ≤ eps ‖s‖‖y‖, which no
    convex loss makes, is left out. Where no length is better than standing still the pairs are dropped and steepest
    descent is tried; if that fails, too, the problem stops, as `STAGNATED`.

    References
    ----------
    Liu, Nocedal, On the limited memory BFGS method for large scale optimization, 1989.
    """

    steps: int
    history: int = 10
    rtol: float = field(default=0.0, kw_only=True)
    distance: Distance | float | None = field(default=None, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "1 or more gradients a step",
        "2m vectors for m pairs",
        "superlinear on small problems, else linear",
        "G is far from convex: pairs are left out",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        border.count("steps", self.steps)
        border.count("history", self.history, minimum=1)
        object.__setattr__(self, "rtol", border.tolerance("rtol", self.rtol))
        object.__setattr__(self, "distance", checked_distance(self.distance))
        object.__setattr__(self, "record", checked_record(self.record, self.steps))

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[LBFGS]:
        """Minimise G(·; θ) from `start` (default θ)."""
        theta = problem.parameters(theta)
        return search(self, problem, theta, start, _Pairs(problem, theta, self.history))


class _Pairs:
    """The last steps s and gradient changes y, and the direction they give."""

    def __init__(self, problem: BilevelProblem, theta: Array, history: int) -> None:
        bound = getattr(problem.inner, "curvature_bound", None)
        self.history = history
        self.scale: Array = None
        if bound is not None:
            self.scale = 1 / (bound() + problem.lam_like(theta) + namespace(theta).zeros_like(theta[..., 0]))
        self.pairs: list[tuple[Array, Array, Array]] = []
        self.before: tuple[Array, Array] | None = None

    def __call__(self, here: Iterate, active: Array) -> tuple[Array, Cost]:
        xp, cost = namespace(here.phi), Cost()
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scale is None:
                self.scale, cost = _length_along_gradient(here), Cost(hvps=1)
            self._learn(here)
            self.before = here.phi, here.gradient
            direction = self._two_loops(-here.gradient)
            good = active & (dot(direction, here.gradient) < 0)
            steepest = -self.scale[..., None] * here.gradient
        direction = xp.where(good[..., None], direction, steepest)
        return xp.where(active[..., None], direction, xp.zeros_like(direction)), cost

    def restart(self, failed: Array) -> Array:
        """Drop the pairs of problems that found no step along the direction they gave."""
        xp = namespace(failed)
        held, kept = xp.zeros_like(failed), []
        for s, y, rho in self.pairs:
            held = held | (rho != 0)
            kept.append((s, y, xp.where(failed, xp.zeros_like(rho), rho)))
        self.pairs = kept
        return failed & held

    def _learn(self, here: Iterate) -> None:
        if self.before is None:
            return
        xp, s, y = namespace(here.phi), here.phi - self.before[0], here.gradient - self.before[1]
        curvature = dot(s, y)
        keep = curvature > epsilon(s) * norm(s) * norm(y)
        one, rows = xp.ones_like(curvature), keep[..., None]
        rho = xp.where(keep, 1 / xp.where(keep, curvature, one), xp.zeros_like(curvature))
        # A pair left out is zero, and passes through both loops without a trace.
        s, y = (xp.where(rows, each, xp.zeros_like(each)) for each in (s, y))
        self.pairs = [*self.pairs, (s, y, rho)][-self.history :]
        self.scale = xp.where(keep, curvature / xp.where(keep, dot(y, y), one), self.scale)

    def _two_loops(self, q: Array) -> Array:
        weights = []
        for s, y, rho in reversed(self.pairs):
            weights.append(rho * dot(s, q))
            q = q - weights[-1][..., None] * y
        r = self.scale[..., None] * q
        for (s, y, rho), weight in zip(self.pairs, reversed(weights), strict=True):
            r = r + (weight - rho * dot(y, r))[..., None] * s
        return r


def _length_along_gradient(here: Iterate) -> Array:
    """∇Gᵀ∇G/|∇GᵀA∇G|: how far a quadratic is downhill, in units of the gradient; 1/λ where that is no number."""
    xp = namespace(here.phi)
    unit = here.gradient / xp.where(here.residual > 0, here.residual, xp.ones_like(here.residual))[..., None]
    curvature = abs(dot(unit, here.operator(unit)))
    lam = here.problem.lam_like(here.phi) + xp.zeros_like(curvature)
    return 1 / xp.where(xp.isfinite(curvature) & (curvature > epsilon(unit) * lam), curvature, lam)
