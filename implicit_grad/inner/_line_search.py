"""Step lengths along a direction: by the value of G, or by its gradient where rounding hides the value."""

from __future__ import annotations

import numpy as np

from implicit_grad.backend import Array, dot, epsilon, namespace, norm
from implicit_grad.inner._protocol import attainable, gradient_scale
from implicit_grad.inner.stopping import Stop
from implicit_grad.linear import Operator
from implicit_grad.problem import BilevelProblem

_HALVINGS = 40
_ARMIJO = 1e-4


class Iterate:
    """Current iterates with everything known about them."""

    def __init__(self, problem: BilevelProblem, theta: Array, phi: Array, stop: Stop) -> None:
        self.problem, self.theta, self.stop = problem, theta, stop
        self.move_to(phi)

    def move_to(self, phi: Array) -> None:
        """Linearise at φ."""
        with np.errstate(over="ignore", invalid="ignore"):
            linearization = self.problem.inner.linearize(phi)
            lam = self.problem.lam_like(phi)
            step = phi - self.theta
            self.phi = phi
            self.value = linearization.value + 0.5 * lam * dot(step, step)
            self.gradient = linearization.gradient + lam[..., None] * step
            self.residual = norm(self.gradient)
            self.scale = gradient_scale(self.problem, phi, self.theta, linearization.gradient)
            self.linearization = linearization
            self.operator: Operator = self.problem.operator(linearization, phi)

    def verdict(self) -> tuple[Array, Array]:
        """Whether there is nothing left to do, and whether every tolerance is met (or, without one, that as well)."""
        with np.errstate(over="ignore", invalid="ignore"):
            floor = attainable(self.problem, self.phi, self.theta, self.linearization)
            met = self.stop.met(self.residual, self.scale, floor)
            return met | (self.residual <= floor), met

    def advance(self, direction: Array, active: Array, polishing: Array | None = None) -> tuple[Array, int]:
        """Take the longest acceptable step of every active problem; say which moved, and how many lengths were tried.

        A problem that is `polishing` takes the whole step or none, and its gradient decides. One mask is read for
        each length.
        """
        xp = namespace(direction)
        old = self.phi, self.value, self.residual
        with np.errstate(over="ignore", invalid="ignore"):
            slope = dot(self.gradient, direction)
        t = xp.where(active, xp.ones_like(slope), xp.zeros_like(slope))
        pending, accepted, trials, settled = active, ~active, 0, False
        whole = xp.zeros_like(active) if polishing is None else polishing
        for _ in range(_HALVINGS):
            self.move_to(old[0] + t[..., None] * direction)
            trials += 1
            # A change of G below its own rounding says nothing. How large that is depends on the terms that
            # cancel in G, which only the loss knows: below √eps relative the gradient may decide, too.
            eps = epsilon(direction)
            with np.errstate(over="ignore", invalid="ignore"):  # G may be infinite at both ends
                size, drop = xp.abs(old[1]) + xp.abs(self.value), old[1] - self.value
            enough = (drop >= -_ARMIJO * t * slope) & (drop > 8 * eps * size) & ~whole
            blind = (xp.abs(drop) <= eps**0.5 * size) | whole
            accepted = enough | (blind & (self.residual < old[2]))
            pending = pending & ~accepted & ~whole
            settled = not bool(xp.any(pending))
            if settled:
                break
            t = xp.where(pending, 0.5 * t, t)
        moved = active & accepted
        if not (settled and (polishing is None or bool(xp.all(moved | ~active)))):
            self.move_to(xp.where(moved[..., None], self.phi, old[0]))
            trials += 1
        return moved, trials
