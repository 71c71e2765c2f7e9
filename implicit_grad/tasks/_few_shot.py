"""N-way k-shot classification: the draw of classes and samples, and the learner's loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, Backend
from implicit_grad.errors import ArgumentError
from implicit_grad.objectives import MultilayerPerceptron, SmoothFunction, SoftmaxCrossEntropy
from implicit_grad.objectives.multilayer_perceptron import Activation
from implicit_grad.problem import BilevelProblem
from implicit_grad.tasks._arguments import layer_widths
from implicit_grad.tasks._draws import task_streams


@dataclass(frozen=True, eq=False)
class Episode:
    """The samples of one task, by number.

    Attributes
    ----------
    classes : (ways,) int array
        Distinct classes; label i stands for `classes[i]`, in random order.
    support, query : (ways, shots) and (ways, queries) int arrays
        Distinct samples of each class, disjoint between the two.
    """

    classes: Array
    support: Array
    query: Array


def draw_episode(
    rng: np.random.Generator, class_sizes: Sequence[int], ways: int, shots: int, queries: int
) -> Episode:
    """Draw classes, then samples of each without replacement."""
    classes = rng.permutation(len(class_sizes))[:ways]
    samples = np.stack([rng.permutation(class_sizes[c])[: shots + queries] for c in classes])
    return Episode(classes, samples[:, :shots], samples[:, shots:])


@dataclass(frozen=True)
class FewShot:
    """The shape of a classification task and its learner, checked.

    Parameters
    ----------
    ways, shots, queries : int
        Classes, and train and test samples of each.
    hidden : tuple of int
        Hidden layers; () is softmax regression.
    activation : Activation
    """

    ways: int
    shots: int
    queries: int
    hidden: tuple[int, ...]
    activation: Activation

    def __post_init__(self) -> None:
        object.__setattr__(self, "ways", border.count("ways", self.ways, minimum=2))
        for name in ("shots", "queries"):
            object.__setattr__(self, name, border.count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "hidden", layer_widths("hidden", self.hidden))

    def check(self, classes: int, per_class: int) -> None:
        """Refuse tasks larger than the data.

        Raises
        ------
        ArgumentError
            For more ways than classes, or more samples than each class has.
        """
        if self.ways > classes:
            raise ArgumentError(f"ways: the data have {classes} classes, got ways={self.ways}")
        if self.shots + self.queries > per_class:
            raise ArgumentError(
                f"shots, queries: a class has {per_class} samples to share, "
                f"got shots={self.shots} + queries={self.queries}"
            )

    def widths(self, features: int) -> tuple[int, ...]:
        """Layer widths from the features to the classes."""
        return (features, *self.hidden, self.ways)

    def episodes(self, rng: Any, tasks: Any, class_sizes: Sequence[int]) -> list[Episode]:
        """Draw one episode per task, each from its own stream."""
        return [
            draw_episode(stream, class_sizes, self.ways, self.shots, self.queries)
            for stream in task_streams(rng, tasks)
        ]

    def problem(self, support: Array, query: Array, lam: Any, place: Backend) -> BilevelProblem:
        """Return the problem of host images `(tasks, ways, shots or queries, features)`, moved to `place`."""
        return BilevelProblem(self._loss(support, place), self._loss(query, place), lam)

    def _loss(self, images: Array, place: Backend) -> SmoothFunction:
        tasks, ways, each, features = images.shape
        X = images.reshape(tasks, ways * each, features)
        labels = np.tile(np.repeat(np.arange(ways), each), (tasks, 1))
        if not self.hidden:
            X = np.concatenate([X, np.ones((*X.shape[:-1], 1))], axis=-1)
            return SoftmaxCrossEntropy(place.asarray(X), place.asarray(labels), ways)
        X, labels = place.asarray(X), place.asarray(labels)
        return MultilayerPerceptron(X, labels, self.hidden, self.activation, n_classes=ways)
