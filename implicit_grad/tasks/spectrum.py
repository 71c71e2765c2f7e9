"""Shapes of a spectrum with a given condition number.

How many conjugate gradient steps suffice is a fact about the whole spectrum, not only about its ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentError


@runtime_checkable
class Spectrum(Protocol):
    """A rule that places eigenvalues between 1 and 1/κ."""

    def eigenvalues(self, rank: int, condition: float) -> Array:
        """Return `rank` positive eigenvalues, largest first, from 1 to 1/κ: `(rank,)`."""
        ...


@dataclass(frozen=True)
class Geometric:
    """Evenly spaced on a logarithmic scale: λ_i = κ^(−i/(r − 1)).

    Examples
    --------
    >>> Geometric().eigenvalues(3, 100.0)
    array([1.  , 0.1 , 0.01])
    """

    def eigenvalues(self, rank: int, condition: float) -> Array:
        """Return the `(rank,)` eigenvalues."""
        return np.geomspace(1.0, 1 / condition, rank)


@dataclass(frozen=True)
class Arithmetic:
    """Evenly spaced: the hard case for conjugate gradients, which then follow their √κ rate closely.

    Examples
    --------
    >>> Arithmetic().eigenvalues(4, 4.0)
    array([1.  , 0.75, 0.5 , 0.25])
    """

    def eigenvalues(self, rank: int, condition: float) -> Array:
        """Return the `(rank,)` eigenvalues."""
        return np.linspace(1.0, 1 / condition, rank)


@dataclass(frozen=True)
class Clustered:
    """`clusters` distinct values, geometrically spaced, each repeated: as many CG steps are exact.

    Parameters
    ----------
    clusters : int
        Number of distinct values; at least two, unless κ = 1.

    Examples
    --------
    >>> Clustered(2).eigenvalues(5, 10.0)
    array([1. , 1. , 1. , 0.1, 0.1])
    """

    clusters: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "clusters", border.count("clusters", self.clusters, minimum=1))

    def eigenvalues(self, rank: int, condition: float) -> Array:
        """Return the `(rank,)` eigenvalues.

        Raises
        ------
        ArgumentError
            If there are more clusters than eigenvalues, or one cluster for κ > 1.
        """
        if self.clusters > rank:
            raise ArgumentError(
                f"clusters: {self.clusters} distinct values need as many eigenvalues, got rank {rank}"
            )
        if self.clusters == 1 and condition > 1:
            raise ArgumentError(f"clusters: one distinct value has condition number 1, not {condition:g}")
        values = np.geomspace(1.0, 1 / condition, self.clusters)
        return values[np.arange(rank) * self.clusters // rank]
