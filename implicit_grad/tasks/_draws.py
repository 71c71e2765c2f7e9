"""Random draws shared by the sources; all on the host, from the generator passed in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentTypeError


def generator(rng: Any) -> np.random.Generator:
    """Return `rng`, or raise `ArgumentTypeError` if it is not a NumPy generator."""
    if not isinstance(rng, np.random.Generator):
        raise ArgumentTypeError(f"rng: expected a numpy.random.Generator (np.random.default_rng(seed)), got {rng!r}")
    return rng


def task_streams(rng: Any, tasks: Any) -> list[np.random.Generator]:
    """Return one independent stream per task; stream i does not depend on how many are asked for."""
    tasks = border.count("tasks", tasks, minimum=1)
    try:
        return generator(rng).spawn(tasks)
    except TypeError as error:  # a bit generator without a SeedSequence cannot spawn
        raise ArgumentTypeError(f"rng: cannot spawn streams ({error}); use np.random.default_rng(seed)") from None


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """Draw `columns` orthonormal columns of a Haar-distributed orthogonal matrix: `(rows, columns)`.

    The Q of a Gaussian matrix is not Haar by itself: its law depends on the signs that the QR routine gives the
    diagonal of R. Making that diagonal positive removes the dependence.

    References
    ----------
    Mezzadri, How to generate random matrices from the classical compact groups, Notices AMS 54 (2007).
    """
    Q, R = np.linalg.qr(rng.standard_normal((rows, columns)))
    return Q * np.where(np.diagonal(R) < 0, -1.0, 1.0)


def glorot(rng: Any, widths: tuple[int, ...]) -> Array:
    """Draw network parameters: weights N(0, 2/(in + out)) and zero biases, layer by layer.

    The layout is that of `MultilayerPerceptron`; with one layer it is also that of `SoftmaxCrossEntropy` on
    features with a last column of ones.

    References
    ----------
    Glorot and Bengio, Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010.
    """
    rng = generator(rng)
    parts = []
    for fan_in, fan_out in pairwise(widths):
        deviation = np.sqrt(2 / (fan_in + fan_out))
        parts += [deviation * rng.standard_normal(fan_in * fan_out), np.zeros(fan_out)]
    return np.concatenate(parts)
