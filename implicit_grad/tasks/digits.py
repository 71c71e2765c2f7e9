"""Few-shot classification of scikit-learn's handwritten digits."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from implicit_grad.backend import Array, Backend, get_backend
from implicit_grad.errors import MissingDependency
from implicit_grad.objectives import Tanh
from implicit_grad.objectives.multilayer_perceptron import Activation, parameter_count
from implicit_grad.problem import BilevelProblem
from implicit_grad.tasks._draws import glorot
from implicit_grad.tasks._few_shot import FewShot

_CLASSES, _PIXELS = 10, 64
_SMALLEST_CLASS = 174  # the eights; checked when the data are loaded


@dataclass(frozen=True)
class Digits:
    """k-shot classification of 8 × 8 digits, a few of the ten classes at a time.

    Pixels lie in [0, 1]. Ten classes give heavily overlapping tasks: right for a study of gradient errors, no
    basis for claims of accuracy. Needs the `data` extra, and no file.

    Parameters
    ----------
    ways : int
        Classes per task, up to 10, in random order.
    shots, queries : int
        Train and test samples per class, up to 174 together; no sample is in both.
    hidden : tuple of int
        Hidden layers of the learner; () is softmax regression with a bias (a last feature of ones).
    activation : Activation

    Raises
    ------
    ArgumentError, ArgumentTypeError
        At construction.
    MissingDependency
        On sampling, without scikit-learn.

    Examples
    --------
    >>> Digits(ways=5, shots=1).size
    325
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    hidden: tuple[int, ...] = ()
    activation: Activation = field(default_factory=Tanh, kw_only=True)

    def __post_init__(self) -> None:
        shape = self._shape
        shape.check(_CLASSES, _SMALLEST_CLASS)
        for name in ("ways", "shots", "queries", "hidden"):
            object.__setattr__(self, name, getattr(shape, name))

    @property
    def _shape(self) -> FewShot:
        return FewShot(self.ways, self.shots, self.queries, self.hidden, self.activation)

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return parameter_count(self._shape.widths(_PIXELS))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"digits, {self.ways}-way {self.shots}-shot"

    def sample(
        self, rng: np.random.Generator, *, tasks: int, lam: Any, backend: str | Backend | None = None
    ) -> BilevelProblem:
        """Draw tasks as one problem with batch axis `(tasks,)`."""
        place = get_backend(backend)
        images, members = _digits()
        episodes = self._shape.episodes(rng, tasks, [len(each) for each in members])

        def chosen(half: str) -> Array:
            numbers = [[members[c][k] for c, k in zip(e.classes, getattr(e, half), strict=True)] for e in episodes]
            return images[np.array(numbers)]

        return self._shape.problem(chosen("support"), chosen("query"), lam, place)

    def initial_parameters(self, rng: np.random.Generator, *, backend: str | Backend | None = None) -> Array:
        """Draw θ: Glorot normal weights, zero biases: `(d,)`."""
        return get_backend(backend).asarray(glorot(rng, self._shape.widths(_PIXELS)))


@lru_cache(maxsize=1)
def _digits() -> tuple[Array, tuple[Array, ...]]:
    """Return the images `(1797, 64)` in [0, 1], and each class's image numbers."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependency(f"Digits needs scikit-learn ({error}): pip install 'implicit-grad[data]'") from error
    data = load_digits()
    images = data.data / 16
    images.setflags(write=False)
    members = tuple(np.flatnonzero(data.target == c) for c in range(_CLASSES))
    smallest = min(len(each) for each in members)
    if images.shape[1] != _PIXELS or smallest != _SMALLEST_CLASS:
        raise MissingDependency(
            f"Digits needs the digits of scikit-learn >= 1.5; this one has {images.shape[1]} pixels and "
            f"{smallest} images in its smallest class"
        )
    return images, members
