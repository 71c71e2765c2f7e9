"""What `verify` makes of a mutant: the verdict, and the cause it names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from implicit_grad.objectives import LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.regularizers import DiagonalQuadratic
from implicit_grad.testing.mutants.registry import Formula
from implicit_grad.verify import Fault, Report, Verdict, verify
from implicit_grad.verify._scene import Scene


def scenes() -> Iterator[tuple[str, Any]]:
    """Problems at λ ≠ 1, one after the other, for formulas that are right on those before."""
    rng = np.random.default_rng(17)
    X, y, labels = rng.standard_normal((20, 4)), rng.standard_normal(20), rng.integers(3, size=20)
    train, test = slice(0, 10), slice(10, 20)
    ridge = LeastSquares(X[train], y[train]), LeastSquares(X[test], y[test])
    yield "ridge", BilevelProblem(*ridge, 0.3)
    softmax = [SoftmaxCrossEntropy(X[part], labels[part], 3) for part in (train, test)]
    yield "softmax", BilevelProblem(softmax[0], softmax[1], 0.3)
    network = [MultilayerPerceptron(X[part, :2], y[part], (3,)) for part in (train, test)]
    yield "network", BilevelProblem(network[0], network[1], 1.7)
    yield "diagonal Λ", RegularizedProblem(*ridge, DiagonalQuadratic(np.array([0.2, 0.5, 1.3, 2.0])))


def diagnosis(function: Callable[[Any, Any], Any]) -> str:
    """Return what is said on the first of the problems on which the function does not pass."""
    for name, problem in scenes():
        candidate = settled(function, problem)
        report = verify(candidate, problem, without=("unrolled limit",))
        other_kind = isinstance(problem, RegularizedProblem) and Fault.RAISES in report
        if report.verdict is not Verdict.PASS and not other_kind:
            return f"{said(report)} ({name})"
    return "passes"


def settled(function: Callable[[Any, Any], Any], problem: Any) -> Callable[[Any, Any], Any]:
    """Return the function; a formula with a free number keeps the same one at every θ and λ."""
    if not isinstance(function, Formula) or function.formula.number is None:
        return lambda problem, theta: function(problem, theta)
    formula, free = function.formula, function.formula.number
    number = free.example * free.unit.of(Scene.of(problem, np.zeros(problem.inner.size)))
    return lambda problem, theta: formula(problem, theta, number=number, factor=3.0 if formula.scaled else 1.0)


def said(report: Report) -> str:
    """Return causes, then faults that were seen; else what is closest."""
    faults = sorted({each.fault.name for each in report.observations})
    why = report.diagnosis
    if why is not None and why.confident:
        return f"**{why.names[0]}**"
    if why is not None and why.causes:
        return " or ".join(why.names)
    if faults:
        return ", ".join(faults)
    if why is not None and why.closest:
        return f"no formula; closest: {why.closest[0].name}, which leaves {why.closest[0].residual:.0%}"
    return report.verdict.name
