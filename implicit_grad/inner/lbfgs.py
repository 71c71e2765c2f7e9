"""Limited-memory BFGS, for all problems of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, any_of, dot, epsilon, namespace, norm
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner._search import Search
from implicit_grad.inner.stopping import Distance, Stop, checked_distance
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
        Largest number of steps, each of them one length tried; without a tolerance their number.
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
    decide where G cannot. A step costs one linearisation, and no products where the loss knows its curvature
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
        "1 gradient a step",
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
        stop = Stop(problem, theta, self.rtol, self.distance)
        search = Search(problem, theta, start, stop, steps=self.steps, record=self.record)
        return search.run(self, _Pairs(problem, theta, self.history))


class _Pairs:
    """The last steps s and gradient changes y of every problem, and the direction they give.

    A problem with fewer pairs than others has zeros before its own; they pass through both loops without a trace.
    """

    def __init__(self, problem: BilevelProblem, theta: Array, history: int) -> None:
        bound = getattr(problem.inner, "curvature_bound", None)
        self.history = history
        self.scale: Array = None
        if bound is not None:
            self.scale = 1 / (bound() + problem.lam_like(theta) + namespace(theta).zeros_like(theta[..., 0]))
        self.pairs: list[_Pair] = []
        self.before: Iterate | None = None

    def __call__(self, here: Iterate, fresh: Array) -> tuple[Array, Cost]:
        xp, cost = namespace(here.phi), Cost()
        with np.errstate(over="ignore", invalid="ignore"):
            if self.scale is None:
                self.scale, cost = _length_along_gradient(here), Cost(hvps=1)
            self._learn(here, fresh)
            self.before = here
            direction = self._two_loops(-here.gradient)
            downhill = dot(direction, here.gradient) < 0
            steepest = -self.scale[..., None] * here.gradient
        return xp.where(downhill[..., None], direction, steepest), cost

    def restart(self, failed: Array) -> Array:
        """Drop the pairs of problems that found no step along the direction they gave."""
        xp = namespace(failed)
        held, kept = xp.zeros_like(failed), []
        for s, y, rho in self.pairs:
            held = held | (rho != 0)
            kept.append((s, y, xp.where(failed, xp.zeros_like(rho), rho)))
        self.pairs = kept
        return failed & held

    def _learn(self, here: Iterate, fresh: Array) -> None:
        """Add the step that led here, for problems that made one."""
        if self.before is None:
            return
        xp, s, y = namespace(here.phi), here.phi - self.before.phi, here.gradient - self.before.gradient
        curvature = dot(s, y)
        keep = curvature > epsilon(s) * norm(s) * norm(y)
        one, rows = xp.ones_like(curvature), keep[..., None]
        rho = xp.where(keep, 1 / xp.where(keep, curvature, one), xp.zeros_like(curvature))
        s, y = (xp.where(rows, each, xp.zeros_like(each)) for each in (s, y))
        self.scale = xp.where(keep, curvature / xp.where(keep, dot(y, y), one), self.scale)
        pairs = [*self.pairs, (s, y, rho)]
        if any_of(~fresh):
            # Who did not move has learned nothing, and must not lose a pair for it.
            nothing: _Pair = xp.zeros_like(s), xp.zeros_like(y), xp.zeros_like(rho)
            pairs = [_chosen(fresh, new, old) for new, old in zip(pairs, [nothing, *self.pairs], strict=True)]
        self.pairs = pairs[-self.history :]

    def _two_loops(self, q: Array) -> Array:
        weights = []
        for s, y, rho in reversed(self.pairs):
            weights.append(rho * dot(s, q))
            q = q - weights[-1][..., None] * y
        r = self.scale[..., None] * q
        for (s, y, rho), weight in zip(self.pairs, reversed(weights), strict=True):
            r = r + (weight - rho * dot(y, r))[..., None] * s
        return r


_Pair = tuple[Array, Array, Array]
"""s, y and 1/sᵀy, all of them zero where there is no pair."""


def _chosen(mask: Array, one: _Pair, other: _Pair) -> _Pair:
    where, rows = namespace(mask).where, mask[..., None]
    s, y = (where(rows, a, b) for a, b in zip(one[:2], other[:2], strict=True))
    return s, y, where(mask, one[2], other[2])


def _length_along_gradient(here: Iterate) -> Array:
    """∇Gᵀ∇G/|∇GᵀA∇G|: how far a quadratic is downhill, in units of the gradient; 1/λ where that is no number."""
    xp = namespace(here.phi)
    unit = here.gradient / xp.where(here.residual > 0, here.residual, xp.ones_like(here.residual))[..., None]
    curvature = abs(dot(unit, here.operator(unit)))
    lam = here.problem.lam_like(here.phi) + xp.zeros_like(curvature)
    return 1 / xp.where(xp.isfinite(curvature) & (curvature > epsilon(unit) * lam), curvature, lam)
