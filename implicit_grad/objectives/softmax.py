"""Multinomial logistic regression."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, namespace, norm, transpose
from implicit_grad.errors import ArgumentError
from implicit_grad.objectives._heads import CrossEntropyHead, one_hot
from implicit_grad.objectives._low_rank import ClassRows
from implicit_grad.objectives._protocol import Linearization, check_size, take_row
from implicit_grad.objectives._samples import (
    check_batch,
    chosen,
    features,
    largest_gram_eigenvalue,
    largest_row,
    refuse_one_hot,
    restricted,
)

_THIRD_DERIVATIVE = 2.0**0.5 / (3 * 3.0**0.5)


@dataclass(frozen=True, eq=False)
class SoftmaxCrossEntropy:
    r"""Mean cross-entropy of softmax regression, without a bias (append a column of ones for one).

    .. math:: f(W) = \frac1n \sum_i \log\sum_c e^{x_i^\top W_c} - x_i^\top W_{y_i}, \qquad
              \nabla f = X^\top (P - Y)/n, \qquad
              \nabla^2 f[V] = X^\top \bigl(P \circ XV - P\,\mathrm{rowsum}(P \circ XV)\bigr)/n

    The parameter vector is W (p, C), row-major. With a last column of ones in X its tail is the bias, so
    "W then b" and "the augmented W" are one layout.

    Parameters
    ----------
    X : (..., n, p) array
        Features; leading axes are independent problems.
    labels : (..., n) integer array
        Classes in [0, n_classes), one number a sample. One-hot rows are refused, also where n = n_classes and they
        could be read as a batch.
    n_classes : int
        C ≥ 2.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For labels out of range, negative, floating or one-hot, and for bad features.
    """

    X: Array
    labels: Array
    n_classes: int
    _head: CrossEntropyHead = field(init=False, repr=False)

    def __post_init__(self) -> None:
        X = features("X", self.X)
        n_classes = border.count("n_classes", self.n_classes, minimum=2)
        labels = border.labels("labels", self.labels, n_classes)
        if labels.ndim < 1 or labels.shape[-1] != X.shape[-2]:
            raise ArgumentError(
                f"labels: expected shape (..., {X.shape[-2]}) to match X {tuple(X.shape)}, got {tuple(labels.shape)}"
            )
        refuse_one_hot("labels", labels, n_classes, X)
        check_batch("labels", labels.shape[:-1], X.shape[:-2])
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "_head", CrossEntropyHead(one_hot(labels, n_classes, X)))

    @property
    def size(self) -> int:
        """Number of parameters d = p·C."""
        return int(self.X.shape[-1]) * self.n_classes

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data."""
        return broadcast_shapes(self.X.shape[:-2], self.labels.shape[:-1])

    @property
    def dtype(self) -> Any:
        """Floating point type of data and results."""
        return self.X.dtype

    def _outputs(self, x: Array) -> Array:
        return self.X @ namespace(x).reshape(x, (*x.shape[:-1], self.X.shape[-1], self.n_classes))

    def _pull(self, delta: Array) -> Array:
        matrix = transpose(self.X) @ delta
        return namespace(matrix).reshape(matrix, (*matrix.shape[:-2], self.size))

    def value(self, x: Array) -> Array:
        """Return f(x): `(...)`."""
        check_size(x, self.size, self)
        return self._head.value(self._outputs(x))

    def gradient(self, x: Array) -> Array:
        """Return Xᵀ(P − Y)/n, flattened: `(..., d)`."""
        check_size(x, self.size, self)
        return self._pull(self._head.linearize(self._outputs(x))[1])

    def gradient_terms(self, x: Array) -> Array:
        """Return ‖ |X|ᵀT/n ‖ with T the head's terms: P, Y, and P times the terms of the logits: `(...)`."""
        check_size(x, self.size, self)
        xp, z = namespace(x), self._outputs(x)
        sizes = xp.abs(self.X)
        logits = sizes @ xp.reshape(xp.abs(x), (*x.shape[:-1], self.X.shape[-1], self.n_classes))
        matrix = transpose(sizes) @ self._head.delta_terms(z, logits)
        return norm(xp.reshape(matrix, (*matrix.shape[:-2], self.size)))

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and the closed-form HVP, which needs only the probabilities."""
        check_size(x, self.size, self)
        value, delta, state = self._head.linearize(self._outputs(x))

        def hvp(v: Array) -> Array:
            return self._pull(self._head.curve(state, self._outputs(v)))

        factor = ClassRows(self.X, state[0])
        return Linearization(value, self._pull(delta), hvp, factor.hessian, factor)

    def curvature_bound(self) -> Array:
        """Return ½ λ_max(XᵀX)/n, since ‖diag(p) − p pᵀ‖ ≤ ½ (Böhning 1992)."""
        return 0.5 * largest_gram_eigenvalue(self.X)

    def strong_convexity(self) -> Array:
        """Return 0: a constant added to all classes costs nothing."""
        return 0 * self.curvature_bound()

    def hessian_lipschitz(self) -> Array:
        """Return √2/(3√3) · max‖xᵢ‖ · λ_max(XᵀX)/n.

        The third derivative of logsumexp along u is a third central moment on an interval of length at most √2‖u‖,
        and such a moment is at most r³/(6√3); a symmetric trilinear form is largest on its diagonal (Banach).
        """
        return _THIRD_DERIVATIVE * largest_row(self.X) * largest_gram_eigenvalue(self.X)

    def self_concordance(self) -> Array:
        """Return R = √2 max‖xᵢ‖, with |D³f[u, u, v]| ≤ R‖v‖ D²f[u, u] for all u and v.

        In the logits of one sample D³ is the central moment E(u − ū)²(v − v̄) and D² the variance E(u − ū)²; no v lies
        further from its mean than its range, and logits moved by V have a range of at most √2‖xᵢ‖‖V‖.
        """
        return 2**0.5 * largest_row(self.X)

    def gradient_change(self, x: Array, distance: Array) -> Array:
        """Bound ‖∇f(x′) − ∇f(x)‖ for all x′ within `distance` of x: `(...)`, never infinite.

        A sample's logits move by w = √2‖xᵢ‖·distance at most, in range. Then p moves by √2 tanh(w/4) at most, since
        the total variation of p and a tilted p is at most tanh(w/4); and by λ_max(diag p − ppᵀ)(eʷ − 1)/√2, since
        the curvature along the way is at most eʷ times the one here. Saturated samples hardly count. Rounding of p
        and of its logits is allowed for.
        """
        check_size(x, self.size, self)
        xp, z = namespace(x), self._outputs(x)
        distance = xp.minimum(distance, xp.full_like(distance, float(xp.finfo(x.dtype).max) ** 0.5))  # no ∞·0
        p, C = self._head.linearize(z)[2][0], self.n_classes
        unit = 8 * (self.X.shape[-1] + C) * float(xp.finfo(x.dtype).eps)
        logits = xp.abs(self.X) @ xp.reshape(xp.abs(x), (*x.shape[:-1], self.X.shape[-1], C))
        spread = p * (1 - p)
        curvature = xp.minimum(2 * xp.max(spread, axis=-1), xp.sum(spread, axis=-1))  # Gershgorin, trace
        curvature = (curvature + unit) * (1 + unit * xp.max(logits, axis=-1))
        lengths = norm(self.X)
        width = 2**0.5 * lengths * distance[..., None]
        saturated, local = 2**0.5 * xp.tanh(0.25 * width), curvature * xp.expm1(xp.minimum(width, 60.0 + 0 * width))
        moved = xp.minimum(saturated, xp.where(width < 60, local / 2**0.5, saturated))
        n = self.n_samples
        return xp.minimum(
            xp.sum(lengths * moved, axis=-1) / n, xp.sqrt(largest_gram_eigenvalue(self.X) / n) * norm(moved)
        )

    def linearize_gauss_newton(self, x: Array) -> Linearization:
        """Return `linearize(x)`: of a model linear in its parameters the Gauss–Newton matrix is the Hessian."""
        return self.linearize(x)

    @property
    def n_samples(self) -> int:
        """Number n of samples of one problem."""
        return int(self.X.shape[-2])

    def minibatch(self, indices: Any) -> SoftmaxCrossEntropy:
        """Return the mean over the samples at these positions, the same for every problem of the batch."""
        rows = chosen(indices, self.n_samples)
        part = restricted(self, rows, X=-2, labels=-1)
        object.__setattr__(part, "_head", restricted(self._head, rows, target=-2))
        return part

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> SoftmaxCrossEntropy:
        """Return the loss of one problem of the batch."""
        return SoftmaxCrossEntropy(
            take_row(self.X, index, batch_shape, 2),
            take_row(self.labels, index, batch_shape, 1),
            self.n_classes,
        )
