"""Few-shot regression on sine waves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, Backend, get_backend
from implicit_grad.objectives import MultilayerPerceptron, Tanh
from implicit_grad.objectives.multilayer_perceptron import Activation, parameter_count
from implicit_grad.problem import BilevelProblem
from implicit_grad.tasks._arguments import ends, layer_widths
from implicit_grad.tasks._draws import glorot, task_streams


@dataclass(frozen=True)
class Sinusoid:
    r"""Regression on a sine wave whose amplitude and phase change from task to task.

    .. math:: y = A \sin(x - p), \qquad A \sim U[0.1, 5], \quad p \sim U[0, \pi], \quad x \sim U[-5, 5]

    The learner is a fully connected network with squared error (halved, as everywhere here). Its activation is
    smooth, where the paper has ReLU: second derivatives are the subject.

    Parameters
    ----------
    shots, queries : int
        Train and test samples per task.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : Activation
    amplitude, phase, interval : tuple of two floats
        Ends of the uniform laws of A, p and x.

    References
    ----------
    Finn, Abbeel, Levine, Model-agnostic meta-learning, ICML 2017, arXiv:1703.03400, section 5.1.

    Examples
    --------
    >>> source = Sinusoid(shots=5)
    >>> source.size
    1761
    >>> source.sample(np.random.default_rng(7), tasks=3, lam=2.0).inner.X.shape
    (3, 5, 1)
    """

    shots: int = 10
    queries: int = 10
    hidden: tuple[int, ...] = (40, 40)
    activation: Activation = field(default_factory=Tanh, kw_only=True)
    amplitude: tuple[float, float] = field(default=(0.1, 5.0), kw_only=True)
    phase: tuple[float, float] = field(default=(0.0, float(np.pi)), kw_only=True)
    interval: tuple[float, float] = field(default=(-5.0, 5.0), kw_only=True)

    def __post_init__(self) -> None:
        for name in ("shots", "queries"):
            object.__setattr__(self, name, border.count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "hidden", layer_widths("hidden", self.hidden))
        for name in ("amplitude", "phase", "interval"):
            object.__setattr__(self, name, ends(name, getattr(self, name)))

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return parameter_count((1, *self.hidden, 1))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"sinusoid, {self.shots}-shot"

    def sample(
        self, rng: np.random.Generator, *, tasks: int, lam: Any, backend: str | Backend | None = None
    ) -> BilevelProblem:
        """Draw tasks as one problem with batch axis `(tasks,)`."""
        place = get_backend(backend)
        draws = [self._draw(stream) for stream in task_streams(rng, tasks)]
        x, y, x_test, y_test = (place.asarray(np.stack(parts)) for parts in zip(*draws, strict=True))
        return BilevelProblem(self._loss(x, y), self._loss(x_test, y_test), lam)

    def _draw(self, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        amplitude, phase = rng.uniform(*self.amplitude), rng.uniform(*self.phase)
        x, x_test = rng.uniform(*self.interval, size=self.shots), rng.uniform(*self.interval, size=self.queries)
        return x, amplitude * np.sin(x - phase), x_test, amplitude * np.sin(x_test - phase)

    def _loss(self, x: Array, y: Array) -> MultilayerPerceptron:
        return MultilayerPerceptron(x[..., None], y, self.hidden, self.activation)

    def initial_parameters(self, rng: np.random.Generator, *, backend: str | Backend | None = None) -> Array:
        """Draw θ: Glorot normal weights, zero biases: `(d,)`."""
        return get_backend(backend).asarray(glorot(rng, (1, *self.hidden, 1)))
