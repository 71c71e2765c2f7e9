"""The right gradient at one θ: which oracle gives it, what that can tell, and what rounding is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from implicit_grad.agreement import Agreement, agree
from implicit_grad.backend import Array, norm
from implicit_grad.certificates import certify
from implicit_grad.certificates._point import sum_length
from implicit_grad.errors import ImplicitGradError
from implicit_grad.estimators import ImplicitGradient
from implicit_grad.inner import LBFGS, GradientDescent, InnerSolver, Newton
from implicit_grad.linear import Cholesky
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.results import Solution
from implicit_grad.verify._scene import Scene

_BLUNT = 0.1
"""An oracle that may be off by more than this share of ‖∇F‖ is no judge."""


@dataclass(frozen=True, eq=False)
class RightAnswer:
    """∇F(θ) as well as it is known.

    Attributes
    ----------
    scene : Scene
    gradient : (d,) array
    oracle : str
        Who says so; "" where nobody can.
    resolution : float
        How far it may be from ∇F.
    expected, worst : float
        What double precision leaves of a sound method's result, usually and at worst: the certificate's allowance
        8(d + n)·eps times all terms that cancel, amplified by λ/m; the usual one is √(d + n) times smaller.
    agreement : Agreement or None
        Of all oracles that were asked.
    reason : str
        Why there is no answer.
    """

    scene: Scene
    gradient: Array
    oracle: str
    resolution: float
    expected: float
    worst: float
    agreement: Agreement | None = None
    reason: str = ""

    @property
    def known(self) -> bool:
        """Whether there is an answer to compare with."""
        return not self.reason

    @property
    def size(self) -> float:
        """‖∇F‖."""
        return float(norm(self.gradient))


@dataclass(frozen=True, eq=False)
class _Anchored:
    """A solver that starts where the minimum was found: all oracles stand on one branch."""

    solver: InnerSolver
    phi: Array

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Any]:
        return self.solver(problem, theta, start=self.phi if start is None else start)


def right_answer(scene: Scene, solver: InnerSolver | None = None, without: tuple[str, ...] = ()) -> RightAnswer:
    """Ask all oracles, and take the sharpest of those that agree."""
    solver = LBFGS(2000, rtol=1e-14) if solver is None else solver
    problem, theta = scene.problem, scene.scale * scene.theta
    try:
        phi = _minimum(problem, theta, solver)
    except ImplicitGradError as error:
        return _unknown(scene, str(error))
    scene = replace(scene, start=phi / scene.scale)
    found = agree(problem, theta, solver=_Anchored(solver, phi), without=without)
    usable = found.resolved
    if usable.sum() < 2:
        reason = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        return _unknown(scene, f"fewer than two oracles can tell anything here. {reason}".strip(), found)
    if not bool(found.agrees):
        names = [name for name, out in zip(found.oracles, found.dissenters, strict=True) if out]
        return _unknown(scene, f"the oracles disagree; outside the consensus: {', '.join(names)}", found)
    sharpest = int(np.argmin(np.where(usable, found.floors, np.inf)))
    return _answer(
        scene, phi, found.gradients[sharpest], float(found.floors[sharpest]), found.oracles[sharpest], found
    )


def quick_answer(scene: Scene) -> RightAnswer:
    """Ask one oracle only: dense products and Cholesky, with its certificate."""
    problem, theta = scene.problem, scene.scale * scene.theta
    try:
        phi = _minimum(problem, theta, LBFGS(2000, rtol=1e-14))
        g = ImplicitGradient(Cholesky(refinements=2))(
            problem, theta, Newton(1e-13)(problem, theta, start=phi)
        ).unwrap()
        bound = float(certify(problem, theta, g, phi).bound)
    except ImplicitGradError as error:
        return _unknown(scene, str(error))
    if not bound <= _BLUNT * float(norm(g)):
        return _unknown(scene, "the one oracle asked cannot tell")
    return _answer(replace(scene, start=phi / scene.scale), phi, g, bound, "exact", None)


def other_minima(right: RightAnswer) -> Iterator[RightAnswer]:
    """∇F at further minima of the inner problem, as other solvers find them from θ."""
    scene, seen = right.scene, [right.scene.phi]
    for solver in (GradientDescent(None, 300 if scene.loops else 3000), Newton(1e-13)):
        start = solver(scene.problem, scene.scale * scene.theta).value / scene.scale
        if not np.isfinite(start).all():
            continue
        found = quick_answer(replace(scene, start=start))
        if found.known and all(norm(found.scene.phi - phi) > 1e-6 * (norm(phi) + norm(scene.theta)) for phi in seen):
            seen.append(found.scene.phi)
            yield found


def _minimum(problem: BilevelProblem, theta: Array, solver: InnerSolver) -> Array:
    first = solver(problem, theta)
    polished = Newton(1e-13)(problem, theta, start=first.value)
    return polished.value if polished.ok else first.unwrap()


def _answer(
    scene: Scene, phi: Array, g: Array, floor: float, oracle: str, agreement: Agreement | None
) -> RightAnswer:
    problem, stretch = scene.problem, float(np.max(scene.scale))
    rounding = float(certify(problem, scene.scale * scene.theta, g, phi).rounding_share) * stretch
    grain = float(np.finfo(float).eps) * float(norm(scene.scale * g))
    length = sum_length(problem) + scene.size
    return RightAnswer(
        scene,
        scene.scale * g,
        oracle,
        floor * stretch,
        rounding / length**0.5 + 4 * grain,
        rounding + 4 * grain,
        agreement,
    )


def _unknown(scene: Scene, reason: str, agreement: Agreement | None = None) -> RightAnswer:
    nothing = np.full(scene.size, np.nan)
    return RightAnswer(scene, nothing, "", np.inf, np.inf, np.inf, agreement, reason)


def in_double(problem: Any) -> Any:
    """Return the problem with data of lower precision taken as the exact numbers they are, in float64."""
    inner, outer = _double_loss(problem.inner), _double_loss(problem.outer)
    if inner is problem.inner and outer is problem.outer:
        return problem
    if isinstance(problem, RegularizedProblem):
        return RegularizedProblem(inner, outer, problem.regularizer)
    return BilevelProblem(inner, outer, np.asarray(problem.lam, dtype=np.float64))


def _double_loss(loss: Any) -> Any:
    if not is_dataclass(loss) or isinstance(loss, type) or getattr(loss, "dtype", None) != np.float32:
        return loss
    arrays = {f.name: getattr(loss, f.name) for f in fields(loss) if f.init}
    return replace(
        loss,
        **{k: v.astype(np.float64) for k, v in arrays.items() if isinstance(v, np.ndarray) and v.dtype == np.float32},
    )
