"""One length along a direction: judged by the value of G, or by its gradient where rounding hides the value."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from implicit_grad.backend import Array, any_of, dot, epsilon, namespace, norm
from implicit_grad.inner._protocol import attainable, gradient_scale
from implicit_grad.inner.stopping import Stop
from implicit_grad.linear import Operator
from implicit_grad.problem import BilevelProblem

_ARMIJO = 1e-4
_SHORTEST, _LONGEST = 0.1, 0.5


@dataclass(frozen=True, eq=False)
class Iterate:
    """Where every problem stands, with everything known about it.

    Attributes
    ----------
    problem : BilevelProblem
    theta, phi, gradient : (..., d) arrays
        θ, φ and ∇G(φ; θ).
    value, residual, scale, floor : (...) arrays
        G, ‖∇G‖, the size of the terms that cancel in ∇G, and what rounding can leave of it.
    operator : Operator
        A where the last step led: that of φ for problems that moved there, and of no use for the others.
    """

    problem: BilevelProblem
    theta: Array
    phi: Array
    gradient: Array
    value: Array
    residual: Array
    scale: Array
    floor: Array
    operator: Operator

    def verdict(self, stop: Stop) -> tuple[Array, Array]:
        """Whether there is nothing left to do, and whether every tolerance is met (or, without one, that as well)."""
        with np.errstate(over="ignore", invalid="ignore"):
            met = stop.met(self.residual, self.scale, self.floor)
            return met | (self.residual <= self.floor), met

    def attempt(self, step: Array, slope: Array, searching: Array, whole: Array) -> tuple[Array, Iterate, Array]:
        """Try φ + step for those that are `searching`.

        Parameters
        ----------
        step : (..., d) array
        slope : (...) array
            ∇Gᵀstep.
        searching : (...) bool array
        whole : (...) bool array
            Where a step is wanted as a whole, the gradient decides.

        Returns
        -------
        moved : (...) bool array
            Where the step is good enough.
        iterate : Iterate
            Where everybody is then.
        shorter : (...) array
            What part of the step to try next: to the minimum of the parabola that has both values and the slope, but
            not under a tenth or over half.
        """
        xp, eps = namespace(step), epsilon(step)
        tried = iterate_at(self.problem, self.theta, self.phi + step)
        # A change of G below its own rounding says nothing. How large that is depends on the terms that
        # cancel in G, which only the loss knows: below √eps relative the gradient may decide, too.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # G may be infinite at both ends
            size, drop = xp.abs(self.value) + xp.abs(tried.value), self.value - tried.value
            enough = (drop >= -_ARMIJO * slope) & (drop > 8 * eps * size) & ~whole
            blind = (xp.abs(drop) <= eps**0.5 * size) | whole
            moved = searching & (enough | (blind & (tried.residual < self.residual)))
            shorter = 0.5 * slope / (slope + drop)
            # NaN, too: there is no G at the end.
            shorter = xp.where(shorter > _SHORTEST, shorter, xp.full_like(shorter, _SHORTEST))
            shorter = xp.where(shorter < _LONGEST, shorter, xp.full_like(shorter, _LONGEST))
        if not any_of(~moved):
            return moved, tried, shorter
        rows = dict.fromkeys(("phi", "gradient"), moved[..., None])
        rows |= dict.fromkeys(("value", "residual", "scale", "floor"), moved)
        kept = {name: xp.where(mask, getattr(tried, name), getattr(self, name)) for name, mask in rows.items()}
        return moved, replace(tried, **kept), shorter


def iterate_at(problem: BilevelProblem, theta: Array, phi: Array) -> Iterate:
    """Linearise at φ."""
    with np.errstate(over="ignore", invalid="ignore"):
        at = problem.inner.linearize(phi)
        lam = problem.lam_like(phi)
        step = phi - theta
        gradient = at.gradient + lam[..., None] * step
        return Iterate(
            problem,
            theta,
            phi,
            gradient,
            value=at.value + 0.5 * lam * dot(step, step),
            residual=norm(gradient),
            scale=gradient_scale(problem, phi, theta, at.gradient),
            floor=attainable(problem, phi, theta, at),
            operator=problem.operator(at, phi),
        )
