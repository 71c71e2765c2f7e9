"""Hessian-free optimisation: a few conjugate gradient steps for a direction, and a line search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, dot, epsilon, namespace, power_of_two_scale
from implicit_grad.inner._line_search import Iterate
from implicit_grad.inner._recording import checked_record
from implicit_grad.inner._search import Search
from implicit_grad.inner.stopping import Distance, Stop, checked_distance
from implicit_grad.linear.cg import conjugate_gradient
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Solution


@dataclass(frozen=True)
class NewtonCG:
    r"""Newton's method with each system cut off after a few CG steps ("Hessian-free").

    .. math:: A(\varphi_k)\,s \approx -\nabla_\varphi G(\varphi_k;\theta) \ \text{by } m \text{ steps of CG}, \qquad
              \varphi_{k+1} = \varphi_k + t\,s

    with the line search of `Newton`. m steps of CG from zero give a direction downhill whatever m is; with m ≥ d (or
    the number of distinct eigenvalues) the method is Newton's. Where CG meets negative curvature its steps so far
    are the direction; if it is in the first step, −∇G divided by the size of that curvature.

    Parameters
    ----------
    steps : int
        Largest number of steps, each of them one length tried; without a tolerance their number.
    cg_steps : int
        m, for each direction. iMAML's Hessian-free variant takes 5.
    rtol : float
        A problem stops when ‖∇G‖ ≤ rtol · (‖∇L‖ + λ(‖φ‖ + ‖θ‖)), or is down to what rounding leaves.
    distance : Distance, float or None
        A problem stops when ‖φ − φ*‖ is proven to be at most this; a number is `Distance(number)`.
    record : bool or tuple of int
        Keep all iterates (True), or those at the given step counts, in `Solution.path`.

    Notes
    -----
    A step costs one linearisation, and m products unless every problem goes on with the direction it has (a device,
    which is not asked, always makes them). A problem stops at the rounding floor in any case, and as `STAGNATED`
    where no length is better than standing still.

    References
    ----------
    Martens, Deep learning via Hessian-free optimization, ICML 2010; Rajeswaran et al. 2019, arXiv:1909.04630, the
    variant "iMAML, HF".
    """

    steps: int
    cg_steps: int = 5
    rtol: float = field(default=0.0, kw_only=True)
    distance: Distance | float | None = field(default=None, kw_only=True)
    record: bool | tuple[int, ...] = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "m HVPs and 1 gradient a step",
        "O(d)",
        "a Newton step cut off: linear, the faster the larger m",
        "κ is large and m small; no guard against saddles but descent",
        saddle="stops at an exact one, and says nothing",
    )

    def __post_init__(self) -> None:
        border.count("steps", self.steps)
        border.count("cg_steps", self.cg_steps, minimum=1)
        object.__setattr__(self, "rtol", border.tolerance("rtol", self.rtol))
        object.__setattr__(self, "distance", checked_distance(self.distance))
        object.__setattr__(self, "record", checked_record(self.record, self.steps))

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[NewtonCG]:
        """Minimise G(·; θ) from `start` (default θ)."""
        theta = problem.parameters(theta)
        stop = Stop(problem, theta, self.rtol, self.distance)
        search = Search(problem, theta, start, stop, steps=self.steps, record=self.record)
        return search.run(self, _TruncatedSystems(self.cg_steps))


class _TruncatedSystems:
    """Directions from a few steps of CG on A s = −∇G."""

    def __init__(self, cg_steps: int) -> None:
        self.cg_steps = cg_steps

    def restart(self, failed: Array) -> Array:
        """Say that there is nothing to forget."""
        return namespace(failed).zeros_like(failed)

    def __call__(self, here: Iterate, fresh: Array) -> tuple[Array, Cost]:
        xp, lam = namespace(here.phi), here.problem.lam_like(here.phi)
        rhs = xp.where(fresh[..., None], -here.gradient, xp.zeros_like(here.gradient))
        # Not `CG`: its verdict on the solve, and the product that takes, are not asked for.
        scale = power_of_two_scale(rhs)[..., None]
        start, goal = xp.zeros_like(rhs), xp.zeros_like(rhs[..., 0])
        run = conjugate_gradient(here.operator, rhs / scale, self.cg_steps, goal, start, tolerance=False)
        # CG has made no step where it met negative curvature at once: the quotient of ∇G is all it saw.
        seen = xp.abs(run.smallest)
        usable = xp.isfinite(seen) & (seen > epsilon(rhs) * lam)
        steepest = rhs / xp.where(usable, seen, lam + xp.zeros_like(seen))[..., None]
        with np.errstate(invalid="ignore", over="ignore"):
            direction = run.x * scale
            downhill = dot(direction, rhs) > 0
        return xp.where(downhill[..., None], direction, steepest), Cost(hvps=run.iterations)
