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
from implicit_grad.errors import ConvergenceError
from implicit_grad.estimators import ImplicitGradient
from implicit_grad.inner import LBFGS, GradientDescent, InnerSolver, Newton
from implicit_grad.linear import Cholesky, spectrum_ends
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.results import Solution
from implicit_grad.verify._scene import Scene

_BLUNT = 0.1
"""An oracle that may be off by more than this share of ‖∇F‖ is no judge."""


_FAR = 1e12
"""A minimum further from θ than this is none."""


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
    """A solver that starts where the minimum was found, so that all oracles stand on one branch."""

    solver: InnerSolver
    phi: Array

    def __call__(self, problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Any]:
        return self.solver(problem, theta, start=self.phi if start is None else start)


def newton_or_lbfgs(problem: BilevelProblem, theta: Array, *, start: Array | None = None) -> Solution[Any]:
    """Newton; where it does not arrive, L-BFGS, which asks for no Hessian.

    What an end point is worth is said by its gradient in either case, so that wrong products cannot pass for right.
    """
    found = Newton(1e-13)(problem, theta, start=start)
    return found if np.all(found.ok) else LBFGS(1000, rtol=1e-14)(problem, theta, start=start)


def right_answer(scene: Scene, solver: InnerSolver | None = None, without: tuple[str, ...] = ()) -> RightAnswer:
    """Ask all oracles, and take the sharpest of those that agree."""
    problem, theta = scene.problem, scene.scale * scene.theta
    try:
        phi = _minimum(problem, theta, solver)
        _check_minimum(problem, phi)
        again = _Anchored(newton_or_lbfgs if solver is None else solver, phi)
        found = agree(problem, theta, solver=again, without=without)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
        return _unknown(scene, str(error))
    scene = replace(scene, start=phi / scene.scale)
    usable = found.resolved if found.oracles else np.zeros(0, dtype=bool)
    if usable.sum() < 2:
        reason = "; ".join(f"{name}: {why}" for name, why in found.left_out.items())
        return _unknown(
            scene, f"fewer than two oracles can tell anything here. {reason}".strip(), found if usable.size else None
        )
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
        phi = _minimum(problem, theta)
        g = ImplicitGradient(Cholesky(refinements=2))(
            problem, theta, Newton(1e-13)(problem, theta, start=phi)
        ).unwrap()
        bound = float(certify(problem, theta, g, phi).bound)
    except (ArithmeticError, np.linalg.LinAlgError) as error:
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


def _minimum(problem: BilevelProblem, theta: Array, solver: InnerSolver | None = None) -> Array:
    """φ* of the basin that the solver finds from θ, by default L-BFGS; Newton goes to the bottom.

    Raises
    ------
    ConvergenceError
        If no minimum is found.
    """
    tries = (LBFGS(100, rtol=1e-6), LBFGS(1000, rtol=1e-12)) if solver is None else (solver,)
    with np.errstate(all="ignore"):
        for each in tries:
            first = each(problem, theta)
            if not norm(first.value) <= _FAR * (1 + norm(theta)):
                break  # G falls without end
            polished = Newton(1e-13)(problem, theta, start=first.value)
            if polished.ok:
                return polished.value
    return first.unwrap()


def _check_minimum(problem: BilevelProblem, phi: Array) -> None:
    """Refuse a saddle, before differences are taken around it.

    Raises
    ------
    ConvergenceError
    """
    lowest = float(spectrum_ends(problem.curvature(phi))[0])
    if not lowest > 0:
        at = Newton(1e-13, max_steps=1)(problem, phi, start=phi)
        raise ConvergenceError(f"φ is no minimum: H + λI has the eigenvalue {lowest:.3g} there; raise λ", at)


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
