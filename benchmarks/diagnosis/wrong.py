"""Wrong gradients whose cause is known: every formula of the catalogue on several problems, and what was named."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from implicit_grad import (
    BilevelProblem,
    DiagonalQuadratic,
    LeastSquares,
    MultilayerPerceptron,
    RegularizedProblem,
    SoftmaxCrossEntropy,
    Verdict,
    verify,
)
from implicit_grad.verify import CATALOGUE, WrongFormula, wrong_formula
from implicit_grad.verify._scene import Scene

SLOW = ("unrolled limit",)

NAMED, AMONG, UNSURE, MISSED, WRONG, SOUND = (
    "named",
    "among several",
    "named, unsure",
    "not named",
    "another named with confidence",
    "right here",
)
OUTCOMES = (NAMED, UNSURE, AMONG, MISSED, WRONG, SOUND)


def _data(seed: int, n: int, d: int, decades: float = 0.0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((2 * n, d)) * np.geomspace(1, 10.0**-decades, d)
    return X, rng.standard_normal(2 * n), rng.integers(3, size=2 * n)


def ridge(seed: int, n: int, d: int, lam: float, decades: float = 0.0) -> BilevelProblem:
    """Least squares, features falling over some decades."""
    X, y, _ = _data(seed, n, d, decades)
    return BilevelProblem(LeastSquares(X[:n], y[:n]), LeastSquares(X[n:], y[n:]), lam)


def softmax(seed: int, n: int, d: int, lam: float) -> BilevelProblem:
    """Three classes."""
    X, _, labels = _data(seed, n, d)
    return BilevelProblem(SoftmaxCrossEntropy(X[:n], labels[:n], 3), SoftmaxCrossEntropy(X[n:], labels[n:], 3), lam)


def network(seed: int, n: int, d: int, lam: float) -> BilevelProblem:
    """One hidden layer of three."""
    X, y, _ = _data(seed, n, d)
    return BilevelProblem(MultilayerPerceptron(X[:n], y[:n], (3,)), MultilayerPerceptron(X[n:], y[n:], (3,)), lam)


def diagonal(seed: int, n: int, d: int) -> RegularizedProblem:
    """Least squares with one λ a parameter."""
    problem = ridge(seed, n, d, 1.5)
    weights = np.random.default_rng(seed).uniform(0.1, 2.0, size=d)
    return RegularizedProblem(problem.inner, problem.outer, DiagonalQuadratic(weights))


PROBLEMS: dict[str, Callable[[], Any]] = {
    "ridge, d = 6, λ = 0.3": partial(ridge, 5, 12, 6, 0.3),
    "ridge, d = 8 > n = 5, κ ~ 1e4, λ = 0.004": partial(ridge, 6, 5, 8, 0.004, 1.0),
    "softmax, d = 12, λ = 0.3": partial(softmax, 8, 12, 4, 0.3),
    "softmax, d = 9, λ = 2.5": partial(softmax, 9, 10, 3, 2.5),
    "network, d = 13, λ = 0.7": partial(network, 11, 9, 3, 0.7),
    "ridge, diagonal Λ, d = 6": partial(diagonal, 12, 10, 6),
}


@dataclass(frozen=True)
class Trial:
    """One wrong formula on one problem."""

    formula: str
    problem: str
    number: float | None
    count: int | None
    factor: float

    @property
    def candidate(self) -> Callable[[Any, Any], Any]:
        """The formula as `(problem, theta) -> gradient`."""
        wrong = wrong_formula(self.formula)
        return lambda problem, theta: wrong(problem, theta, number=self.number, count=self.count, factor=self.factor)


def trials(seed: int = 7) -> Iterator[Trial]:
    """Every formula on every problem, free numbers drawn from the middle of their range."""
    for name, make in PROBLEMS.items():
        problem = make()
        scene = Scene.of(problem, np.full(problem.inner.size, 0.5))
        for formula in CATALOGUE:
            rng = np.random.default_rng([seed, zlib.crc32(f"{name} {formula.name}".encode())])
            yield Trial(
                formula.name, name, _number(formula, scene, rng), _count(formula, scene, rng), _factor(formula, rng)
            )


def _number(formula: WrongFormula, scene: Scene, rng: np.random.Generator) -> float | None:
    if formula.number is None:
        return None
    if formula.number.symbol == "α":
        return float(rng.uniform(0.2, 1.2)) * formula.number.unit.of(scene)
    # At a factor of 1 the formula is right, so that draws keep away from it.
    return float(10.0 ** (rng.choice([-1, 1]) * rng.uniform(0.2, 1.2))) * formula.number.unit.of(scene)


def _count(formula: WrongFormula, scene: Scene, rng: np.random.Generator) -> int | None:
    if not formula.counts:
        return None
    rows = formula.table(scene, np.nan if formula.number is None else formula.number.unit.of(scene)).shape[1]
    return int(rng.choice([count for count in formula.counts[:rows] if count <= 20]))


def _factor(formula: WrongFormula, rng: np.random.Generator) -> float:
    return float(rng.choice([-1, 1]) * rng.uniform(1.5, 4.0)) if formula.scaled else 1.0


def applies(trial: Trial) -> bool:
    """Whether the formula has a meaning on the problem: finite numbers."""
    problem = PROBLEMS[trial.problem]()
    try:
        g = trial.candidate(problem, np.random.default_rng(77).standard_normal(problem.inner.size))
    except (AttributeError, TypeError, ValueError, ArithmeticError):
        return False
    return bool(np.isfinite(g).all())


def outcome(trial: Trial) -> tuple[Trial, str, tuple[str, ...], float]:
    """Verify one trial and say how the diagnosis did."""
    began = time.perf_counter()
    try:
        report = verify(trial.candidate, PROBLEMS[trial.problem](), without=SLOW)
    except (AttributeError, TypeError, ValueError) as error:
        raise RuntimeError(f"{trial}: {error}") from error
    return trial, judge(trial.formula, report), _names(report), time.perf_counter() - began


def judge(formula: str, report: Any) -> str:
    """What a diagnosis is worth where the true cause is known."""
    if report.verdict is not Verdict.FAIL:
        return SOUND if report.verdict is Verdict.PASS else MISSED
    names = _names(report)
    if report.diagnosis is not None and report.diagnosis.confident:
        return NAMED if names == (formula,) else WRONG
    if names == (formula,):
        return UNSURE
    return AMONG if formula in names else MISSED


def _names(report: Any) -> tuple[str, ...]:
    return () if report.diagnosis is None else report.diagnosis.names
