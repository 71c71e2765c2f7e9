"""The cases that are timed: models, sizes and data. NumPy and this library only.

The data are made once, in the process that starts the contenders, and sent to each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, GradientDescent, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.objectives import SmoothFunction
from implicit_grad.objectives.multilayer_perceptron import parameter_count
from implicit_grad.sweep import powers_of_two
from implicit_grad.tasks import Digits, Sinusoid, TaskSource

SEED = 20190910
"""Of all data; the day the paper on implicit meta-gradients was submitted."""

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Model:
    """A fully connected network with tanh, or softmax regression, as every contender writes it for itself.

    Attributes
    ----------
    widths : tuple of int
        From inputs to outputs.
    n_classes : int or None
        With it the loss is the mean cross-entropy, else ½·mean squared error of one output.
    bias : bool
        Without biases a last feature of ones stands for the only layer's.
    """

    widths: tuple[int, ...]
    n_classes: int | None = None
    bias: bool = True

    @property
    def size(self) -> int:
        """Number of parameters d; layer by layer W (in, out) row-major, then b."""
        return parameter_count(self.widths) if self.bias else self.widths[0] * self.widths[1]

    @property
    def label(self) -> str:
        """Short name for tables."""
        if self.bias:
            return "MLP " + "-".join(map(str, self.widths))
        return f"softmax {self.widths[0]}×{self.widths[1]}"

    def loss(self, X: Any, y: Any) -> SmoothFunction:
        """Return the library's loss."""
        if not self.bias:
            assert self.n_classes is not None
            return SoftmaxCrossEntropy(X, y, self.n_classes)
        return MultilayerPerceptron(X, y, self.widths[1:-1], n_classes=self.n_classes)


@dataclass(frozen=True)
class ProductCase:
    """Hessian-vector products and gradients at one point per task (job a)."""

    model: Model
    tasks: int
    shots: int

    @property
    def label(self) -> str:
        """Short name for tables."""
        return f"{self.model.label}, {_tasks(self.tasks)} × {self.shots} samples"

    def data(self) -> Data:
        """Point x, direction v, features X and targets y."""
        rng = np.random.default_rng(SEED)
        model, (n_in, *_) = self.model, self.model.widths
        X = (
            rng.uniform(-5, 5, (self.tasks, self.shots, n_in))
            if n_in == 1
            else rng.random((self.tasks, self.shots, n_in))
        )
        if not model.bias:
            X[..., -1] = 1
        y = np.sin(X[..., 0]) if model.n_classes is None else rng.integers(model.n_classes, size=X.shape[:2])
        scale = 1 / np.sqrt(max(model.widths))
        x, v = rng.standard_normal((2, self.tasks, model.size))
        return {"x": scale * x, "v": v, "X": X, "y": y}


@dataclass(frozen=True)
class MetaCase:
    """One meta-gradient per task by conjugate gradients at a given φ (job b)."""

    name: str
    source: TaskSource
    model: Model
    tasks: int
    lam: float
    cg_steps: int = 10
    inner_steps: int = 50

    @property
    def label(self) -> str:
        """Short name for tables."""
        return f"{self.name}, {_tasks(self.tasks)}, CG-{self.cg_steps}"

    def data(self) -> Data:
        """θ, λ, train and test samples, a step size and φ after `inner_steps` gradient steps with it."""
        arrays = _task_arrays(self.source, self.tasks, np.asarray(self.lam))
        problem = bilevel_problem(self.model, arrays)
        theta = problem.parameters(arrays["theta"])
        step_size = _common_step(problem, theta)
        phi = GradientDescent(step_size, self.inner_steps)(problem, theta).value
        return {**arrays, "phi": phi, "step_size": step_size}


@dataclass(frozen=True)
class SweepCase:
    """Every inner accuracy, every number of conjugate gradient steps and every unrolled run (job c)."""

    tasks: int = 16
    lams: tuple[float, ...] = (40.0, 80.0, 160.0, 320.0)
    last: int = 512
    cg_steps: int = 20
    model: Model = Model((1, 40, 40, 1))
    shots: int = 10

    @property
    def inner_steps(self) -> tuple[int, ...]:
        """Step counts 0, 1, 2, 4, …, last."""
        return powers_of_two(self.last)

    @property
    def label(self) -> str:
        """Short name for tables."""
        return (
            f"{_tasks(self.tasks)} × {len(self.lams)} λ, K = 0, 1, 2, 4, …, {self.last}, "
            f"CG 1…{self.cg_steps}, unrolled"
        )

    def data(self) -> Data:
        """θ, λ as a column `(L, 1)`, samples, and one step size for all."""
        source = Sinusoid(self.shots, self.shots, self.model.widths[1:-1])
        arrays = _task_arrays(source, self.tasks, np.asarray(self.lams)[:, None])
        problem = bilevel_problem(self.model, arrays)
        return {**arrays, "step_size": _common_step(problem, problem.parameters(arrays["theta"]))}


def bilevel_problem(model: Model, data: Data) -> BilevelProblem:
    """Return the library's problem for these arrays."""
    return BilevelProblem(model.loss(data["X"], data["y"]), model.loss(data["X_test"], data["y_test"]), data["lam"])


def _task_arrays(source: TaskSource, tasks: int, lam: Any) -> dict[str, Any]:
    task_rng, theta_rng = np.random.default_rng(SEED).spawn(2)
    problem = source.sample(task_rng, tasks=tasks, lam=1.0)
    arrays: dict[str, Any] = {"lam": lam, "theta": source.initial_parameters(theta_rng)}
    for suffix, loss in (("", problem.inner), ("_test", problem.outer)):
        arrays["X" + suffix] = loss.X  # type: ignore[attr-defined]
        arrays["y" + suffix] = loss.labels if hasattr(loss, "labels") else loss.y  # type: ignore[attr-defined]
    return arrays


def _common_step(problem: BilevelProblem, theta: Any) -> float:
    """One step size for all problems and contenders: finding it is not part of what is timed."""
    return float(np.min(GradientDescent(None, 0).alpha(problem, theta)))


def _tasks(tasks: int) -> str:
    return f"{tasks} task" if tasks == 1 else f"{tasks} tasks"


def sinusoid(tasks: int, hidden: tuple[int, ...] = (40, 40), cg_steps: int = 10) -> MetaCase:
    """Return sinusoid regression with λ = 10, where H + λI is positive definite."""
    source = Sinusoid(10, 10, hidden)
    return MetaCase("sinusoid", source, Model((1, *hidden, 1)), tasks, 10.0, cg_steps)


def digits(tasks: int, cg_steps: int = 10) -> MetaCase:
    """Return 5-way 5-shot classification of digits by softmax regression."""
    return MetaCase("digits", Digits(5, 5), Model((65, 5), 5, bias=False), tasks, 0.1, cg_steps)


PRODUCTS = (
    *(ProductCase(Model((1, 40, 40, 1)), tasks, 10) for tasks in (1, 25, 256)),
    ProductCase(Model((64, 64, 5), 5), 32, 25),
    ProductCase(Model((784, 256, 128, 64, 64, 5), 5), 8, 25),
    ProductCase(Model((65, 5), 5, bias=False), 64, 25),
)
