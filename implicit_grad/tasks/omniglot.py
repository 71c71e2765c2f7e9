"""Few-shot classification of handwritten characters: the benchmark of MAML and iMAML."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad.backend import Array, Backend, get_backend
from implicit_grad.data.downsampling import SIDE, Downsampling
from implicit_grad.data.loading import load_omniglot
from implicit_grad.data.packed import BACKGROUND, DRAWERS, EVALUATION, PackedImages
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.objectives import Tanh
from implicit_grad.objectives.multilayer_perceptron import Activation, parameter_count
from implicit_grad.problem import BilevelProblem
from implicit_grad.tasks._draws import glorot
from implicit_grad.tasks._few_shot import Episode, FewShot


class Split(Enum):
    """Omniglot's official halves, of different alphabets: meta-train on one, meta-test on the other."""

    BACKGROUND = "964 characters of 30 alphabets"
    EVALUATION = "659 characters of 20 alphabets"

    @property
    def characters(self) -> range:
        """Numbers of its characters in the packed file."""
        if self is Split.BACKGROUND:
            return range(BACKGROUND)
        return range(BACKGROUND, BACKGROUND + EVALUATION)

    def __repr__(self) -> str:
        return f"Split.{self.name}"


@dataclass(frozen=True)
class Omniglot:
    """N-way k-shot tasks of Omniglot's characters, 28 × 28 pixels in [0, 1].

    Classes are drawn from the whole split, across alphabets. The learner is softmax regression or a fully
    connected network, not the papers' convolutional one.

    Parameters
    ----------
    ways : int
        Classes per task, in random order.
    shots, queries : int
        Train and test drawings per class, of different drawers: up to 20 together.
    hidden : tuple of int
        Hidden layers of the learner; () is softmax regression with a bias (a last feature of ones).
    downsampling : Downsampling
        `NEAREST` is MAML's (ink = 1), `LANCZOS` is iMAML's (grey, paper = 1).
    rotations : bool
        Count each character turned by 90°, 180° and 270° as further classes; turned after shrinking, as in
        iMAML's code.
    split : Split
        `BACKGROUND` or `EVALUATION`.
    path : path, optional
        File or folder; default: see `implicit_grad.data.load_omniglot`.
    activation : Activation

    Raises
    ------
    ArgumentError, ArgumentTypeError
        At construction.
    DataNotFound, CorruptData
        On sampling.

    References
    ----------
    Lake, Salakhutdinov, Tenenbaum, Science 350 (2015) 1332; Finn, Abbeel, Levine 2017, arXiv:1703.03400;
    Rajeswaran et al. 2019, arXiv:1909.04630.

    Examples
    --------
    >>> Omniglot(ways=20, shots=1, hidden=(32,)).size
    25780
    """

    ways: int = 5
    shots: int = 5
    queries: int = 15
    hidden: tuple[int, ...] = ()
    downsampling: Downsampling = Downsampling.NEAREST
    rotations: bool = False
    split: Split = Split.BACKGROUND
    path: str | os.PathLike[str] | None = field(default=None, repr=False)
    activation: Activation = field(default_factory=Tanh, kw_only=True)

    def __post_init__(self) -> None:
        for name, kind in (("downsampling", Downsampling), ("rotations", bool), ("split", Split)):
            if not isinstance(getattr(self, name), kind):
                raise ArgumentTypeError(f"{name}: expected a {kind.__name__}, got {getattr(self, name)!r}")
        if self.path is not None:
            try:
                object.__setattr__(self, "path", os.fspath(self.path))
            except TypeError:
                raise ArgumentTypeError(f"path: expected a path or None, got {self.path!r}") from None
        shape = self._shape
        shape.check(self.n_classes, DRAWERS)
        for name in ("ways", "shots", "queries", "hidden"):
            object.__setattr__(self, name, getattr(shape, name))

    @property
    def _shape(self) -> FewShot:
        return FewShot(self.ways, self.shots, self.queries, self.hidden, self.activation)

    @property
    def _turns(self) -> int:
        return 4 if self.rotations else 1

    @property
    def n_classes(self) -> int:
        """Classes to draw from: characters, times four with rotations."""
        return len(self.split.characters) * self._turns

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return parameter_count(self._shape.widths(SIDE * SIDE))

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"Omniglot, {self.ways}-way {self.shots}-shot"

    def sample(
        self, rng: np.random.Generator, *, tasks: int, lam: Any, backend: str | Backend | None = None
    ) -> BilevelProblem:
        """Draw tasks as one problem with batch axis `(tasks,)`."""
        place = get_backend(backend)
        data = load_omniglot(self.path)
        episodes = self._shape.episodes(rng, tasks, [DRAWERS] * self.n_classes)
        support = np.stack([self._features(data, episode, episode.support) for episode in episodes])
        query = np.stack([self._features(data, episode, episode.query) for episode in episodes])
        return self._shape.problem(support, query, lam, place)

    def _features(self, data: PackedImages, episode: Episode, drawers: Array) -> Array:
        """Return the drawings `(ways, each, 784)` of an episode's classes by these drawers."""
        characters, turns = np.divmod(episode.classes, self._turns)
        drawings = data.images(self.split.characters.start + characters[:, None], drawers)
        small = self.downsampling(drawings)
        turned = [np.rot90(each, turn, axes=(-2, -1)) for each, turn in zip(small, turns, strict=True)]
        return np.stack(turned).reshape(*drawers.shape, SIDE * SIDE)

    def initial_parameters(self, rng: np.random.Generator, *, backend: str | Backend | None = None) -> Array:
        """Draw θ: Glorot normal weights, zero biases: `(d,)`."""
        return get_backend(backend).asarray(glorot(rng, self._shape.widths(SIDE * SIDE)))
