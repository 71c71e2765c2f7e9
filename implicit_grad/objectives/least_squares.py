"""½·mean squared error of a linear model: the loss whose meta-gradient has a closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, dot, namespace, norm, transpose
from implicit_grad.errors import ArgumentError
from implicit_grad.objectives._low_rank import ScaledRows
from implicit_grad.objectives._protocol import Linearization, check_size, take_row
from implicit_grad.objectives._samples import (
    check_batch,
    chosen,
    features,
    largest_gram_eigenvalue,
    least_gram_eigenvalue,
    restricted,
    same_dtype,
)


@dataclass(frozen=True, eq=False)
class LeastSquares:
    r"""Half the mean squared error of a model linear in its parameters.

    .. math:: f(x) = \frac{1}{2n} \lVert X x - y \rVert^2, \qquad
              \nabla f = X^\top (X x - y) / n, \qquad \nabla^2 f = X^\top X / n

    Parameters
    ----------
    X : (..., n, d) array
        Features; leading axes are independent problems.
    y : (..., n) array
        Targets. A column (n, 1) is refused: it would broadcast to n × n.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For empty, non-finite, complex or mis-shaped data.

    Examples
    --------
    >>> import numpy as np
    >>> f = LeastSquares(np.eye(2), np.array([1.0, 2.0]))
    >>> f.gradient(np.zeros(2))
    array([-0.5, -1. ])
    """

    X: Array
    y: Array

    def __post_init__(self) -> None:
        X, y = features("X", self.X), border.finite("y", border.real_array("y", self.y, min_ndim=1))
        if y.shape[-1] != X.shape[-2]:
            raise ArgumentError(
                f"y: expected shape (..., {X.shape[-2]}) to match X {tuple(X.shape)}, got {tuple(y.shape)}; "
                f"pass one target per sample, without a trailing axis"
            )
        check_batch("y", y.shape[:-1], X.shape[:-2])
        same_dtype("y", y, X)
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "y", y)

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return int(self.X.shape[-1])

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data."""
        return broadcast_shapes(self.X.shape[:-2], self.y.shape[:-1])

    @property
    def dtype(self) -> Any:
        """Floating point type of data and results."""
        return self.X.dtype

    def _residual(self, x: Array) -> Array:
        check_size(x, self.size, self)
        return (self.X @ x[..., None])[..., 0] - self.y

    def _pull(self, r: Array) -> Array:
        return (transpose(self.X) @ r[..., None])[..., 0] / self.X.shape[-2]

    def value(self, x: Array) -> Array:
        """Return f(x): `(...)`."""
        r = self._residual(x)
        return 0.5 * dot(r, r) / self.X.shape[-2]

    def gradient(self, x: Array) -> Array:
        """Return Xᵀ(X x − y)/n: `(..., d)`."""
        return self._pull(self._residual(x))

    def gradient_terms(self, x: Array) -> Array:
        """Return ‖ |X|ᵀ(|X||x| + |y|)/n ‖, the size of the terms that cancel in the gradient: `(...)`."""
        xp = namespace(x)
        sizes = xp.abs(self.X)
        terms = (sizes @ xp.abs(x)[..., None])[..., 0] + xp.abs(self.y)
        return norm((transpose(sizes) @ terms[..., None])[..., 0] / self.X.shape[-2])

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and v ↦ Xᵀ(X v)/n."""
        r = self._residual(x)

        def hvp(v: Array) -> Array:
            return self._pull((self.X @ v[..., None])[..., 0])

        value = 0.5 * dot(r, r) / self.X.shape[-2]
        return Linearization(value, self._pull(r), hvp, self._hessian, ScaledRows(self.X))

    def _hessian(self) -> Array:
        return transpose(self.X) @ self.X / self.X.shape[-2]

    def curvature_bound(self) -> Array:
        """Return λ_max(XᵀX)/n: the Hessian's largest eigenvalue, everywhere."""
        return largest_gram_eigenvalue(self.X)

    def strong_convexity(self) -> Array:
        """Return a lower bound of λ_min(XᵀX/n), rounding taken off: 0 where there are fewer samples than features."""
        return least_gram_eigenvalue(self.X)

    def hessian_lipschitz(self) -> Array:
        """Return 0: the Hessian is constant."""
        return 0 * self.curvature_bound()

    def self_concordance(self) -> Array:
        """Return 0: there is no third derivative."""
        return 0 * self.curvature_bound()

    def linearize_gauss_newton(self, x: Array) -> Linearization:
        """Return `linearize(x)`: of a model linear in its parameters the Gauss–Newton matrix is the Hessian."""
        return self.linearize(x)

    @property
    def n_samples(self) -> int:
        """Number n of samples of one problem."""
        return int(self.X.shape[-2])

    def minibatch(self, indices: Any) -> LeastSquares:
        """Return the mean over the samples at these positions, the same for every problem of the batch."""
        rows = chosen(indices, self.n_samples)
        return restricted(self, rows, X=-2, y=-1)

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> LeastSquares:
        """Return the loss of one problem of the batch."""
        return LeastSquares(take_row(self.X, index, batch_shape, 2), take_row(self.y, index, batch_shape, 1))
