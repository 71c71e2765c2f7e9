"""What several θ together show: entries that never move, numbers that fit into float32, samples for the fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from implicit_grad.errors import ConvergenceError
from implicit_grad.problem import BilevelProblem
from implicit_grad.verify._candidate import Answer, Candidate, Fault, Observation
from implicit_grad.verify._fit import Sample
from implicit_grad.verify._report import Point, Verdict
from implicit_grad.verify._right import RightAnswer, newton_or_lbfgs, quick_answer
from implicit_grad.verify._scene import Scene

_DOUBLE = float(np.finfo(np.float64).eps)
_SINGLE = float(np.finfo(np.float32).eps)

_SAMPLES = 4
"""θ that a diagnosis rests on, the last of them held out."""

_LAMS = (2.0, 0.6)
"""Factors of λ at further ones, for candidates that take the problem: only another λ tells λ + δ from cλ."""

_ROOM = 8.0
"""Computations of one vector differ by this many times the usual rounding, at most."""

_STILL = 60


def comparisons(
    candidate: Candidate, problem: Any, points: list[Point], answers: list[Answer]
) -> Iterator[Observation]:
    """Yield faults that only a comparison shows: with ∇F, or between several θ."""
    wrong = [i for i, p in enumerate(points) if p.verdict is Verdict.FAIL and answers[i].usable and p.right.known]
    for i in wrong:
        if not points[i].gradient.any() and points[i].right.gradient.any():
            yield Observation(Fault.ZERO, f"‖∇F‖ = {points[i].right.size:.3g}", i)
    if wrong and len(wrong) == len(points):
        rows = np.array([p.gradient for p in points])
        dead = (rows == 0).all(axis=0) & np.array([p.right.gradient != 0 for p in points]).any(axis=0)
        if dead.any() and not dead.all():
            shown = ", ".join(map(str, np.flatnonzero(dead)[:8]))
            yield Observation(Fault.PARTLY_ZERO, f"{int(dead.sum())} of {dead.size}: entries {shown}")
        if len(points) > 1 and rows.any() and (rows == rows[0]).all():
            yield Observation(Fault.CONSTANT, f"{len(points)} θ")
    if answers[0].usable:
        theta = points[0].theta.astype(_dtype_of(problem))
        other = (
            points[1].theta.astype(theta.dtype) if len(points) > 1 else 1.25 * theta + np.asarray(0.5, theta.dtype)
        )
        if candidate.shares_memory(problem, theta, other):
            yield Observation(Fault.SHARED, "an earlier result changed when it was called at another θ")
    for i, answer in enumerate(answers):
        if answer.usable and answer.epsilon > _DOUBLE and _dtype_of(problem) == np.float64:
            yield Observation(Fault.COARSE, f"eps = {answer.epsilon:.1e}", i)
            break


def _dtype_of(problem: Any) -> Any:
    return np.dtype(getattr(problem.inner, "dtype", None) or np.float64)


def samples(
    candidate: Candidate,
    given: Any,
    problem: Any,
    known: list[tuple[Point, Answer]],
    blocks: tuple[int, ...] | None,
    seed: int,
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Return what the candidate makes of some θ, and of some θ at another λ.

    Of those asked for, the wrong ones come first; the others lie beside them.
    """
    known = sorted(known, key=lambda pair: pair[0].verdict is not Verdict.FAIL)[: _SAMPLES - 1]
    found = [_sample(p.right, a) for p, a in known]
    centre = known[0][0]
    rng = np.random.default_rng(seed)
    theta, phi = centre.theta, centre.right.scene.phi
    length = (np.linalg.norm(theta) + np.linalg.norm(phi - theta)) / theta.size**0.5 or 1.0

    def more(factor: float) -> Iterator[Sample]:
        place = (theta + 0.7 * length * rng.standard_normal(theta.size)).astype(_dtype_of(given))
        theirs, ours = (each if factor == 1 else each.with_lam(factor * each.lam) for each in (given, problem))
        answer = candidate.ask(theirs, place, None, repeats=1)
        right = quick_answer(Scene.of(ours, place, blocks=blocks)) if answer.usable else None
        if right is not None and right.known:
            yield _sample(right, answer)

    for _ in range(_SAMPLES - len(found)):
        found += more(1.0)
    several = candidate.takes_problem and isinstance(problem, BilevelProblem)
    return tuple(found), tuple(each for factor in _LAMS if several for each in more(factor))


def _sample(right: RightAnswer, answer: Answer) -> Sample:
    g = answer.gradients[0]
    larger = max(1.0, float(np.linalg.norm(g)) / max(right.size, 5e-324))
    noise = _ROOM * right.expected * larger * answer.epsilon / _DOUBLE
    return Sample(right.scene, g, right.gradient, max(noise, 5e-324))


def single_precision(found: tuple[Sample, ...]) -> bool:
    """Whether doubles came back that are all single precision numbers, and wrong by no more than that explains."""
    numbers = np.concatenate([each.candidate for each in found])
    if numbers.size < 6 or not numbers.any():
        return False
    with np.errstate(over="ignore", under="ignore"):
        fits = np.array_equal(numbers.astype(np.float32).astype(np.float64), numbers)
    return bool(fits and all(each.error <= each.noise * _SINGLE / _DOUBLE for each in found))


def unconverged(candidate: Candidate, given: Any, sample: Sample) -> bool:
    """Whether the candidate is right at a θ with ∇L_train(θ) = 0, where every inner solve is done as it starts.

    There φ = θ for any solver and any number of steps, but for what a solver makes of rounding (Adam enlarges it): a
    hundredth of the error elsewhere. Such a θ is the end of proximal steps θ ← φ*(θ).
    """
    scene = sample.scene
    still = _still_point(scene)
    if still is None:
        return False
    theta = still.theta.astype(_dtype_of(given))
    answer = candidate.ask(given, theta, None, repeats=1)
    right = quick_answer(still)
    if not (answer.usable and right.known and answer.epsilon == _DOUBLE):
        return False
    away = float(np.linalg.norm(answer.gradients[0] - right.gradient))
    usual = sample.error / float(np.linalg.norm(sample.right))
    return away <= max(_ROOM * right.expected + right.resolution, 1e-2 * usual * right.size)


def _still_point(scene: Scene) -> Scene | None:
    """The scene at a θ that is stationary for the train loss; None where none was found."""
    problem = scene.problem.with_lam(1e-2 * scene.problem.lam)
    theta = scene.scale * scene.phi
    try:
        for _ in range(_STILL):
            phi = newton_or_lbfgs(problem, theta).unwrap()
            moved, theta = float(np.linalg.norm(phi - theta)), phi
            if moved <= 1e-13 * float(np.linalg.norm(phi)):
                return replace(scene, theta=theta / scene.scale, start=theta / scene.scale)
    except ConvergenceError:
        return None
    return None
