"""Good data, made afresh for each case, and small problems: what the tests of bad input spoil."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import EXACT, Autodiff, BilevelProblem, LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy

N, D, C = 6, 3, 3


@dataclass(eq=False)
class Data:
    """Good data, made afresh for each case."""

    X: Any
    y: Any
    labels: Any
    theta: Any

    def ridge(self, X: Any = None, y: Any = None) -> LeastSquares:
        return LeastSquares(self.X if X is None else X, self.y if y is None else y)

    def softmax(self, X: Any = None, labels: Any = None, n_classes: Any = C) -> SoftmaxCrossEntropy:
        return SoftmaxCrossEntropy(self.X if X is None else X, self.labels if labels is None else labels, n_classes)

    def network(self, **changes: Any) -> MultilayerPerceptron:
        return MultilayerPerceptron(**{"X": self.X, "y": self.y, "hidden": (2,), **changes})

    def problem(self, lam: Any = 0.7) -> BilevelProblem:
        return BilevelProblem(self.ridge(), self.ridge(), lam)

    def exact(self, theta: Any, lam: Any = 0.7) -> Any:
        return EXACT(self.problem(lam), theta)


def good_data() -> Data:
    rng = np.random.default_rng(20190910)
    X, y = rng.standard_normal((N, D)), rng.standard_normal(N)
    return Data(X, y, rng.integers(C, size=N), rng.standard_normal(D))


def autodiff(f: Any, lam: float = 0.7) -> BilevelProblem:
    return BilevelProblem(Autodiff(f), Autodiff(f), lam)
