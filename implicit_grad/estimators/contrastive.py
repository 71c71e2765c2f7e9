"""Equilibrium propagation: the meta-gradient from two nudged minima, without any second derivative."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad._deferred import replaced
from implicit_grad.backend import Array, dot, epsilon, expand, namespace, norm
from implicit_grad.estimators._nudged import Nudged
from implicit_grad.estimators._verdict import Resolution, indefinite, refused
from implicit_grad.inner import InnerSolver
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Card, Cost, Estimate, Solution, expect_solution
from implicit_grad.status import statuses, worst_status

_LARGEST_SHARE = 0.1

_GRAIN = 64.0
"""Rounding in a value of G, in units of d·eps·|G|."""


@dataclass(frozen=True)
class ContrastiveGradient:
    r"""The contrastive rule: how the inner minimum moves when the test loss nudges it.

    .. math:: \varphi(s) = \arg\min_\varphi G(\varphi;\theta) + s\,L_{\mathrm{test}}(\varphi), \qquad
              g = \lambda\,\frac{\varphi(-s) - \varphi(s)}{2 s} + O(s^2)
              \quad\text{or}\quad \lambda\,\frac{\varphi(0) - \varphi(s)}{s} + O(s)

    since :math:`\mathrm d\varphi/\mathrm ds = -A^{-1}\nabla L_{\mathrm{test}}` at s = 0. Only the inner solver sees
    the nudged losses: a solver that asks for gradients only makes this an estimate without any second derivative,
    independent of every linear solver.

    Parameters
    ----------
    strength : float or None
        s > 0. None balances the error of the difference against that of the solves, per problem: s moves φ by at
        most the share h of ℓ = ‖φ‖ + ‖θ‖, s = h λ min(ℓ/‖∇L_test‖, 1/β_T), where h = η^⅓ (two-sided) or η^½, and
        η ℓ is the error ‖∇G‖/λ that the solver leaves without a nudge. (β_T: the test loss's curvature bound,
        where it knows one.)
    inner_solver : InnerSolver
        Minimises the nudged objectives, started from the inner solution.
    two_sided : bool
        With False the inner solution itself is φ(0): half the price, one order less, and its error divided by s
        is an error of g.

    Notes
    -----
    Two solves (one-sided: one), and one more without a nudge if `strength` is None; every gradient and product of
    a nudged objective counts twice, once for either loss. An error δ of φ(±s) becomes λδ/s in g. Where φ moved
    by less than rounding can tell the status is `STAGNATED`: raise s. If s β_T exceeds λ + λ_min(H) the objective
    at −s has no minimum, and the status is the solver's: lower s.

    Nothing here sees a Hessian, but at a saddle a nudge runs away downhill. Two nudges that part over a hill,
    G at the middle of φ(±s) above the mean of G at both, are refused as `INDEFINITE`; so is a single one with
    G(φ(s)) below the tangent at φ. That takes 3 values of G (one-sided: 2 and a gradient). Both nudges on one side
    go unnoticed: the number is then the meta-gradient of the minimum they ran into.
    So does an A that is singular at φ, with one nudge or two: higher terms of G hold φ(s) then, the solves converge,
    and the number grows without bound as s falls.

    References
    ----------
    Scellier, Bengio 2017, arXiv:1602.05179; Zucchet et al. 2022, arXiv:2104.01677 (meta-learning).
    """

    strength: float | None
    inner_solver: InnerSolver
    two_sided: bool = True
    card: ClassVar[Card] = Card(
        "2 inner solves from φ, of both losses, 1 gradient, 3 values (one-sided: 1, 2, 2)",
        "O(d)",
        "O(s²) + λδ/s for solves with error δ (one-sided: O(s))",
        "s is so small that the solver's error shows, or so large that G − s L_test loses its minimum; "
        "a saddle is refused only where the nudges part over it, and a singular A goes unseen",
        saddle="NaN where the nudges part; else that of the minimum they run into",
    )

    def __post_init__(self) -> None:
        if self.strength is not None:
            object.__setattr__(self, "strength", border.positive_float("strength", self.strength))
        border.strategy("inner_solver", self.inner_solver, "Newton()")
        border.flag("two_sided", self.two_sided)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "contrastive" if self.two_sided else "contrastive, one-sided"

    def __call__(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> Estimate:
        """Return the estimate; `inner.value` is the start of every solve, and φ(0) if one-sided."""
        expect_solution(inner)
        theta = expand(theta, tuple(inner.value.shape))
        s, free, size, cost = self._strengths(problem, theta, inner)
        return self._difference(problem, theta, inner, s, free, size, cost)[0]

    def resolved(self, problem: BilevelProblem, theta: Array, inner: Solution[Any]) -> tuple[Estimate, Resolution]:
        """Return the estimate, and what it can tell: its change from s to 2s, and λδ/s for the errors δ of φ(±s)."""
        expect_solution(inner)
        theta = expand(theta, tuple(inner.value.shape))
        s, free, size, cost = self._strengths(problem, theta, inner)
        fine, noise = self._difference(problem, theta, inner, s, free, size, cost)
        coarse, _ = self._difference(problem, theta, inner, 2 * s, free, size, inner.cost)
        both = fine.cost + coarse.cost + inner.cost.times(-1)  # the inner solve was paid once
        estimate = replaced(fine, cost=both, status=worst_status(coarse, fine))
        return estimate, Resolution(norm(coarse.gradient - fine.gradient), noise)

    def _strengths(
        self, problem: BilevelProblem, theta: Array, inner: Solution[Any]
    ) -> tuple[Array, Array, Array, Cost]:
        """Return s, φ(0), ‖∇L_test(φ)‖ and the cost so far."""
        phi = inner.value
        size, cost = norm(problem.outer.gradient(phi)), inner.cost + Cost(gradients=1)
        if self.strength is not None:
            return namespace(phi).full_like(phi[..., 0], self.strength), phi, size, cost
        rest = self.inner_solver(problem, theta, start=phi)
        s = self._balanced(problem, theta, phi, size, rest.residual_norm)
        return s, rest.value, size, cost + rest.cost

    def _difference(
        self,
        problem: BilevelProblem,
        theta: Array,
        inner: Solution[Any],
        s: Array,
        free: Array,
        size: Array,
        cost: Cost,
    ) -> tuple[Estimate, Array]:
        """Difference the minima nudged by ±s; return what noise may be left in it, too."""
        phi = inner.value
        xp = namespace(phi)
        sides = 2 if self.two_sided else 1
        signed = xp.stack([s, -s][:sides], axis=0)
        nudged = BilevelProblem(Nudged(problem.inner, problem.outer, signed), problem.outer, problem.lam)
        run = self.inner_solver(nudged, theta, start=phi)
        ahead, behind = run.value[0, ...], run.value[1, ...] if self.two_sided else free
        moved, span = behind - ahead, 2 * s if self.two_sided else s
        root = float(phi.shape[-1]) ** 0.5
        grain = root * epsilon(phi) * (norm(phi) + norm(theta))
        lost = norm(moved) <= 10 * grain
        lam = problem.lam_like(phi)
        gradient = (lam / span)[..., None] * moved
        saddle, spent = self._parted(problem, theta, phi, ahead, behind)
        status = refused(_first_failure(inner, run, sides), lost & (size > 0))
        estimate = Estimate(
            gradient=xp.where(saddle[..., None], xp.full_like(gradient, float("nan")), gradient),
            inner=inner,
            linear=None,
            # Each call of a nudged objective is one of the train and one of the test loss.
            cost=cost + run.cost.times(2 * sides) + spent,
            status=indefinite(status, saddle),
        )
        return estimate, (2 / span) * (xp.max(run.residual_norm, axis=0) + lam * grain)

    def _parted(
        self, problem: BilevelProblem, theta: Array, phi: Array, ahead: Array, behind: Array
    ) -> tuple[Array, Cost]:
        """Return whether G is seen to be concave between the points compared, beyond rounding, and what that cost."""
        xp = namespace(phi)
        with np.errstate(over="ignore", invalid="ignore"):
            if self.two_sided:
                points = xp.stack([0.5 * (ahead + behind), ahead, behind], axis=0)
                G = problem.value(points, theta)
                excess = G[0, ...] - 0.5 * (G[1, ...] + G[2, ...])
                cost = Cost(values=3)
            else:
                G = problem.value(xp.stack([phi, ahead], axis=0), theta)
                excess = G[0, ...] + dot(problem.stationarity(phi, theta), ahead - phi) - G[1, ...]
                cost = Cost(values=2, gradients=1)
            noise = _GRAIN * float(phi.shape[-1]) * epsilon(phi) * xp.max(abs(G), axis=0)
        return excess > noise, cost

    def _balanced(self, problem: BilevelProblem, theta: Array, phi: Array, size: Array, residual: Array) -> Array:
        """Return the s at which the two errors of the difference are alike."""
        xp, lam = namespace(phi), problem.lam_like(phi)
        length = norm(phi) + norm(theta)
        length = xp.where(length > 0, length, xp.ones_like(length))
        noise = residual / lam / length
        floor = float(phi.shape[-1]) ** 0.5 * epsilon(phi)
        share = xp.where(noise > floor, noise, xp.full_like(noise, floor)) ** (1 / 3 if self.two_sided else 1 / 2)
        share = xp.where(share < _LARGEST_SHARE, share, xp.full_like(share, _LARGEST_SHARE))
        reach = xp.where(size > 0, length / xp.where(size > 0, size, xp.ones_like(size)), xp.ones_like(size))
        bound = getattr(problem.outer, "curvature_bound", None)
        if bound is not None:
            beta = bound()
            reach = xp.where(reach * beta > 1, 1 / xp.where(beta > 0, beta, xp.ones_like(beta)), reach)
        return share * lam * reach


def _first_failure(inner: Solution[Any], run: Solution[Any], sides: int) -> Any:
    codes = namespace(run.codes).broadcast_to(run.codes, (sides, *run.codes.shape[1:]))
    return worst_status(inner, *(statuses(codes[side, ...]) for side in range(sides)))
