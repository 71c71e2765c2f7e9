"""Random linear regression with a prescribed spectrum: the source whose meta-gradient has a closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, Backend, get_backend
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.objectives import LeastSquares
from implicit_grad.problem import BilevelProblem
from implicit_grad.tasks._arguments import non_negative
from implicit_grad.tasks._draws import generator, orthonormal, task_streams
from implicit_grad.tasks.spectrum import Geometric, Spectrum


@dataclass(frozen=True)
class RandomRidge:
    r"""Least-squares tasks whose train Hessian XᵀX/n has exactly the eigenvalues asked for.

    .. math:: X = \sqrt{n}\, U \Sigma^{1/2} V^\top, \qquad y = X w + \sigma\varepsilon, \qquad
              \nabla^2 L_{\mathrm{train}} = X^\top X / n = V \Sigma V^\top

    U and V have Haar-distributed orthonormal columns, w and ε are standard normal; all are drawn anew for each
    task. Test features are Gaussian with covariance V Σ Vᵀ, that of the train features.

    Parameters
    ----------
    dim : int
        Number d of parameters.
    train_samples, test_samples : int
        Samples per task.
    condition : float or None
        κ ≥ 1, largest over smallest *non-zero* eigenvalue. With λ the system's condition number is
        (λ_max + λ)/(λ_min + λ), less than this. None where `spectrum` lists the eigenvalues.
    spectrum : Spectrum or tuple of float
        How the eigenvalues lie between their ends, or the eigenvalues themselves (at least 0; zeros and missing
        ones make the Hessian rank-deficient).
    scale : float
        Factor on all eigenvalues: the largest one, for a rule.
    rank : int or None
        Number of non-zero eigenvalues of a rule; None is the largest possible, min(d, n).
    noise : float
        Standard deviation σ of the targets' noise.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        Naming the argument, at construction.

    Examples
    --------
    >>> source = RandomRidge(dim=3, condition=None, spectrum=(4.0, 2.0, 0.0))
    >>> problem = source.sample(np.random.default_rng(7), tasks=2, lam=0.5)
    >>> X = problem.inner.X[0]
    >>> bool(np.allclose(np.linalg.eigvalsh(X.T @ X / 30), [0, 2, 4], rtol=0, atol=1e-14))
    True
    """

    dim: int = 20
    train_samples: int = 30
    test_samples: int = 30
    condition: float | None = 100.0
    spectrum: Spectrum | tuple[float, ...] = field(default_factory=Geometric, kw_only=True)
    scale: float = field(default=1.0, kw_only=True)
    rank: int | None = field(default=None, kw_only=True)
    noise: float = field(default=0.1, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("dim", "train_samples", "test_samples"):
            object.__setattr__(self, name, border.count(name, getattr(self, name), minimum=1))
        object.__setattr__(self, "scale", border.positive_float("scale", self.scale))
        object.__setattr__(self, "noise", non_negative("noise", self.noise))
        if isinstance(self.spectrum, Spectrum) and not isinstance(self.spectrum, type):
            self._check_rule()
        else:
            self._check_list()
        self.eigenvalues  # noqa: B018  a rule may refuse the rank or the condition number: say so here

    def _check_rule(self) -> None:
        if self.condition is None:
            raise ArgumentTypeError("condition: a rule needs a condition number; None goes with listed eigenvalues")
        condition = border.positive_float("condition", self.condition)
        if condition < 1:
            raise ArgumentError(f"condition: must be >= 1, got {condition:g}")
        largest = min(self.dim, self.train_samples)
        if self.rank is not None:
            rank = border.count("rank", self.rank, minimum=1)
            if rank > largest:
                raise ArgumentError(f"rank: at most min(dim, train_samples) = {largest}, got {rank}")
            object.__setattr__(self, "rank", rank)
        if (largest if self.rank is None else self.rank) == 1 and condition > 1:
            raise ArgumentError(f"condition: a single eigenvalue has condition number 1, got {condition:g}")
        object.__setattr__(self, "condition", condition)

    def _check_list(self) -> None:
        if self.condition is not None or self.rank is not None:
            raise ArgumentError("condition, rank: listed eigenvalues set both; pass condition=None and no rank")
        try:
            values = tuple(non_negative("spectrum", value) for value in self.spectrum)  # type: ignore[union-attr]
        except TypeError:
            raise ArgumentTypeError(
                f"spectrum: expected a rule such as Geometric() or a tuple of eigenvalues, got {self.spectrum!r}"
            ) from None
        if not 1 <= len(values) <= self.dim:
            raise ArgumentError(f"spectrum: expected 1 to dim = {self.dim} eigenvalues, got {len(values)}")
        positive = sum(value > 0 for value in values)
        if positive > self.train_samples:
            raise ArgumentError(
                f"spectrum: {positive} non-zero eigenvalues need as many train_samples, got {self.train_samples}"
            )
        object.__setattr__(self, "spectrum", values)

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return self.dim

    @property
    def label(self) -> str:
        """Short name for legends."""
        shape = "listed spectrum" if self.condition is None else f"κ={self.condition:g}"
        return f"random ridge, d={self.dim}, {shape}"

    @property
    def eigenvalues(self) -> Array:
        """Eigenvalues of XᵀX/n, largest first, zeros last: `(d,)`."""
        if isinstance(self.spectrum, tuple):
            values = np.sort(np.array(self.spectrum, dtype=float))[::-1]
        else:
            rank = min(self.dim, self.train_samples) if self.rank is None else self.rank
            values = self.spectrum.eigenvalues(rank, float(self.condition or 1.0))
        return self.scale * np.concatenate([values, np.zeros(self.dim - values.size)])

    def sample(
        self, rng: np.random.Generator, *, tasks: int, lam: Any, backend: str | Backend | None = None
    ) -> BilevelProblem:
        """Draw tasks as one problem with batch axis `(tasks,)`."""
        place = get_backend(backend)
        draws = [self._draw(stream) for stream in task_streams(rng, tasks)]
        X, y, X_test, y_test = (place.asarray(np.stack(parts)) for parts in zip(*draws, strict=True))
        return BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), lam)

    def _draw(self, rng: np.random.Generator) -> tuple[Array, Array, Array, Array]:
        # The train half is drawn first: the number of test samples does not change it.
        roots = np.sqrt(self.eigenvalues)
        roots = roots[roots > 0]
        n, m, rank = self.train_samples, self.test_samples, roots.size
        V, U = orthonormal(rng, self.dim, rank), orthonormal(rng, n, rank)
        w = rng.standard_normal(self.dim)
        X = np.sqrt(n) * (U * roots) @ V.T
        y = X @ w + self.noise * rng.standard_normal(n)
        X_test = (rng.standard_normal((m, rank)) * roots) @ V.T
        return X, y, X_test, X_test @ w + self.noise * rng.standard_normal(m)

    def initial_parameters(self, rng: np.random.Generator, *, backend: str | Backend | None = None) -> Array:
        """Draw θ from the law of the true parameters w, the standard normal: `(d,)`."""
        return get_backend(backend).asarray(generator(rng).standard_normal(self.dim))
