"""The problems: the same numbers for every library, and the same losses in the words of this one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.backend import Array
from implicit_grad.objectives import SmoothFunction

POINTS = 2
"""θ per case."""


@dataclass(frozen=True, eq=False)
class Case:
    """One bilevel problem.

    Attributes
    ----------
    family : str
        "ridge", "softmax" or "MLP".
    lam : float
    seed : int
    """

    family: str
    lam: float
    seed: int

    @property
    def name(self) -> str:
        """Name for tables."""
        return f"{self.family}, λ = {self.lam:g}"

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from input to output."""
        return {"ridge": (5, 1), "softmax": (4, 3), "MLP": (2, 5, 1)}[self.family]

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None for regression."""
        return 3 if self.family == "softmax" else None

    @cached_property
    def arrays(self) -> dict[str, Array]:
        """X, y for training and for testing; y are labels where there are classes."""
        rng = np.random.default_rng(self.seed)
        n_in, n_out = self.widths[0], self.widths[-1]
        teacher = rng.normal(size=(n_in, n_out))
        found = {}
        for side, n in (("", 20), ("_test", 15)):
            X = rng.normal(size=(n, n_in))
            signal = X @ teacher + 0.5 * rng.normal(size=(n, n_out))
            y = signal.argmax(axis=-1) if self.n_classes else np.tanh(signal[:, 0]) * 2
            found |= {f"X{side}": X, f"y{side}": y}
        return found

    @cached_property
    def thetas(self) -> Array:
        """`(POINTS, d)`."""
        rng = np.random.default_rng(self.seed + 1)
        size = sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.widths))
        return 0.5 * rng.normal(size=(POINTS, size))

    def tree(self, theta: Array) -> dict[str, Array]:
        """Weights and biases of each layer; sorted by name they are the flat vector again."""
        found, start = {}, 0
        for i, (n_in, n_out) in enumerate(pairwise(self.widths)):
            middle, end = start + n_in * n_out, start + (n_in + 1) * n_out
            found |= {f"{i}.W": theta[start:middle].reshape(n_in, n_out), f"{i}.b": theta[middle:end]}
            start = end
        return found

    @property
    def trees(self) -> list[dict[str, Array]]:
        """θ as parameter trees."""
        return [self.tree(theta) for theta in self.thetas]

    @cached_property
    def problem(self) -> BilevelProblem:
        """The problem in this library's closed forms."""
        return BilevelProblem(self._loss(""), self._loss("_test"), self.lam)

    def _loss(self, side: str) -> SmoothFunction:
        X, y = self.arrays[f"X{side}"], self.arrays[f"y{side}"]
        if self.family == "MLP":
            return MultilayerPerceptron(X, y, hidden=self.widths[1:-1])
        X = np.concatenate([X, np.ones((len(X), 1))], axis=1)
        return SoftmaxCrossEntropy(X, y, self.n_classes) if self.n_classes else LeastSquares(X, y)

    @cached_property
    def curvature(self) -> float:
        """A round number a little above λ_max(∇²L_train) at θ: what a user's step size comes from."""
        at = self.problem.inner.linearize(self.thetas[0])
        return float(np.ceil(1.3 * np.linalg.eigvalsh(at.hvp(np.eye(self.thetas.shape[-1])))[-1]))

    @property
    def step_size(self) -> float:
        """1/(curvature + λ)."""
        return 1 / (self.curvature + self.lam)


CASES = (
    Case("ridge", 0.3, 3101),
    Case("ridge", 5.0, 3103),
    Case("softmax", 0.05, 3107),
    Case("softmax", 2.0, 3109),
    Case("MLP", 0.4, 3119),
    Case("MLP", 3.0, 3121),
)


@dataclass(frozen=True, eq=False)
class Setup:
    """What a recipe gets: data as the library's arrays, and the numbers of the case.

    Attributes
    ----------
    X, y, X_test, y_test : arrays of the library
    lam, step_size : numbers
    n_classes : int or None
    strict : frozenset of str
        Names of the knobs that are strict.
    """

    X: Any
    y: Any
    X_test: Any
    y_test: Any
    lam: Any
    step_size: Any
    n_classes: int | None
    strict: frozenset[str]

    def pick(self, knob: str, loose: Any, strict: Any) -> Any:
        """Return the value of a knob."""
        return strict if knob in self.strict else loose
