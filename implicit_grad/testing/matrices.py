"""Symmetric systems with a prescribed spectrum, made from a few small integers.

Arrays drawn entry by entry are rank deficient more often than not and hardly ever ill conditioned. Here the integers
fix A = Q·diag·Qᵀ with a random orthogonal Q, so the spectrum is known, nothing is rejected, and examples shrink well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]

UNIT = 2.0**-53
"""Unit roundoff u of float64."""


def orthogonal(rng: np.random.Generator, size: int) -> Array:
    """Random orthogonal matrix, uniformly distributed (Stewart 1980)."""
    Q, R = np.linalg.qr(rng.standard_normal((size, size)))
    turned: Array = Q * np.sign(np.diag(R))
    return turned


class Spectrum(Protocol):
    """Eigenvalues for a matrix of any size, the largest of size 1."""

    def eigenvalues(self, size: int) -> Array:
        """Return `(size,)` eigenvalues, largest first in absolute value."""
        ...


@dataclass(frozen=True)
class Geometric:
    """μᵢ = 10^(−decades·i/(N−1)): evenly spread on a log scale, κ = 10^decades."""

    decades: int = 2

    def eigenvalues(self, size: int) -> Array:
        """Return the eigenvalues."""
        return 10.0 ** -(self.decades * np.arange(size) / max(1, size - 1))


@dataclass(frozen=True)
class Clustered:
    """Only `clusters` distinct eigenvalues, spread over the decades: Krylov methods end after that many steps."""

    decades: int = 2
    clusters: int = 2

    def eigenvalues(self, size: int) -> Array:
        """Return the eigenvalues."""
        distinct = min(self.clusters, size)
        values: Array = Geometric(self.decades).eigenvalues(distinct)[np.arange(size) * distinct // size]
        return values


@dataclass(frozen=True)
class Singular:
    """`rank` eigenvalues over the decades and zeros for the rest; at least one zero."""

    decades: int = 2
    rank: int = 1

    def eigenvalues(self, size: int) -> Array:
        """Return the eigenvalues."""
        live = min(self.rank, size - 1)
        return np.concatenate([Geometric(self.decades).eigenvalues(live), np.zeros(size - live)])


@dataclass(frozen=True)
class Indefinite:
    """As `Geometric`, with the signs of the `negative` smallest turned; at least one, so that A is a saddle's."""

    decades: int = 1
    negative: int = 1

    def eigenvalues(self, size: int) -> Array:
        """Return the eigenvalues."""
        values = Geometric(self.decades).eigenvalues(size)
        values[-min(max(self.negative, 1), size) :] *= -1
        return values


@dataclass(frozen=True)
class LinearSystem:
    """A x = b: A = scale·Q diag(μ) Qᵀ with μ from `spectrum`, and a b drawn independently of Q.

    Attributes
    ----------
    size : int
        N.
    spectrum : Spectrum
        Eigenvalues of A/scale.
    log10_scale : int
        ‖A‖ = 10^log10_scale.
    log10_rhs : int
        b is drawn with entries of size 10^log10_rhs.
    batch_shape : tuple of int
        Leading axes; each problem has its own Q and b, and all of them the same spectrum.
    seed : int
        Of Q and b.

    Examples
    --------
    >>> system = LinearSystem(size=3, spectrum=Clustered(decades=2, clusters=2))
    >>> np.linalg.eigvalsh(system.matrix()).round(12)
    array([0.01, 1.  , 1.  ])
    >>> system.condition
    100.0
    """

    size: int = 3
    spectrum: Spectrum = Geometric(2)
    log10_scale: int = 0
    log10_rhs: int = 0
    batch_shape: tuple[int, ...] = ()
    seed: int = 5

    @cached_property
    def eigenvalues(self) -> Array:
        """Eigenvalues of A, largest first in absolute value."""
        return 10.0**self.log10_scale * self.spectrum.eigenvalues(self.size)

    @property
    def condition(self) -> float:
        """κ₂(A), infinite for a singular A."""
        smallest, largest = np.abs(self.eigenvalues)[[-1, 0]]
        return float(largest / smallest) if smallest else float("inf")

    def eigenvectors(self) -> Array:
        """Return Q, columns in the order of `eigenvalues`: `(..., N, N)`."""
        each = [
            orthogonal(np.random.default_rng([self.seed, *index]), self.size)
            for index in np.ndindex(self.batch_shape)
        ]
        return np.reshape(each, (*self.batch_shape, self.size, self.size))

    def matrix(self) -> Array:
        """Return A, exactly symmetric: `(..., N, N)`."""
        Q = self.eigenvectors()
        A = (Q * self.eigenvalues) @ np.swapaxes(Q, -1, -2)
        symmetric: Array = 0.5 * (A + np.swapaxes(A, -1, -2))
        return symmetric

    def rhs(self) -> Array:
        """Return b: `(..., N)`."""
        rng = np.random.default_rng([self.seed, self.size, 1])
        return 10.0**self.log10_rhs * rng.standard_normal((*self.batch_shape, self.size))

    def describe(self) -> str:
        """Return A, where it is small, and its spectrum, for a failure to show."""
        return describe_matrix("A", self.matrix(), self.eigenvalues)


@dataclass(frozen=True)
class SpdSpec:
    """Integers that make H ⪰ 0 with a given spectrum, λ = 10^log10_lam, and b. ‖H‖ = λ·10^log10_ratio."""

    size: int = 4
    rank: int = 10
    spread: int = 2
    log10_ratio: int = 2
    log10_lam: int = 0
    seed: int = 5

    @property
    def lam(self) -> float:
        """λ."""
        return 10.0**self.log10_lam

    @property
    def live(self) -> int:
        """Rank of H."""
        return min(self.rank, self.size)

    @cached_property
    def spectrum(self) -> Array:
        """Eigenvalues of H, descending."""
        live = Geometric(self.spread).eigenvalues(self.live)
        return self.lam * 10.0**self.log10_ratio * np.concatenate([live, np.zeros(self.size - self.live)])

    @property
    def kappa(self) -> float:
        """κ(H + λI)."""
        return float((self.spectrum[0] + self.lam) / (self.spectrum[-1] + self.lam))

    def hessian(self) -> Array:
        """Return H."""
        Q = orthogonal(np.random.default_rng(self.seed), self.size)
        H = (Q * self.spectrum) @ Q.T
        symmetric: Array = 0.5 * (H + H.T)
        return symmetric

    def A(self) -> Array:
        """Return H + λI."""
        return self.hessian() + self.lam * np.eye(self.size)

    def G(self) -> Array:
        """Return I + H/λ."""
        return self.hessian() / self.lam + np.eye(self.size)

    def b(self) -> Array:
        """Right-hand side, drawn independently of the eigenvectors."""
        return np.random.default_rng([self.seed, self.size]).standard_normal(self.size)


def describe_matrix(name: str, A: Array, eigenvalues: Array | None = None) -> str:
    """Write a small matrix out, and the spectrum of any: what a reader of a failure wants to see.

    Parameters
    ----------
    name : str
        What to call it.
    A : (N, N) array
        Symmetric. A batch is described by its first problem.
    eigenvalues : (N,) array, optional
        Where they are known; else they are computed.
    """
    A = A[(0,) * (A.ndim - 2)]
    if eigenvalues is None:
        eigenvalues = np.linalg.eigvalsh(A)[::-1]
    spectrum = ", ".join(f"{mu:.3g}" for mu in eigenvalues)
    if len(A) > 6:
        return f"{name}: {len(A)} by {len(A)}, spectrum ({spectrum})"
    rows = np.array2string(A, precision=4, suppress_small=False, prefix=f"{name} = ")
    return f"{name} = {rows}\nspectrum of {name}: ({spectrum})"
