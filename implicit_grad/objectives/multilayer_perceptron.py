"""Fully connected networks of any depth with closed-form gradients and Hessian-vector products."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

from implicit_grad import border
from implicit_grad.backend import Array, broadcast_shapes, namespace, norm, transpose
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.objectives._gauss_newton import GaussNewtonProduct
from implicit_grad.objectives._heads import CrossEntropyHead, Head, SquaredErrorHead, one_hot
from implicit_grad.objectives._network import Forward, Layout, Tangent, with_ones
from implicit_grad.objectives._protocol import Linearization, check_size, take_row
from implicit_grad.objectives._samples import check_batch, chosen, features, refuse_one_hot, restricted, same_dtype


class Activation(Protocol):
    """A smooth scalar function applied element by element."""

    def value(self, z: Array) -> Array:
        """Return σ(z)."""
        ...

    def derivatives(self, z: Array, a: Array) -> tuple[Array, Array]:
        """Return σ'(z) and σ''(z), given a = σ(z)."""
        ...


@dataclass(frozen=True)
class Tanh:
    """σ(z) = tanh z, σ' = 1 − σ², σ'' = −2 σ σ'."""

    def value(self, z: Array) -> Array:
        """Return tanh z."""
        return namespace(z).tanh(z)

    def derivatives(self, z: Array, a: Array) -> tuple[Array, Array]:
        """Return 1 − a² and −2 a (1 − a²)."""
        first = 1 - a * a
        return first, -2 * a * first


@dataclass(frozen=True)
class Softplus:
    """σ(z) = log(1 + eᶻ), σ' = 1/(1 + e⁻ᶻ), σ'' = σ'(1 − σ')."""

    def value(self, z: Array) -> Array:
        """Return max(z, 0) + log1p(e^−|z|): finite for every finite z."""
        xp = namespace(z)
        return xp.where(z > 0, z, xp.zeros_like(z)) + xp.log1p(xp.exp(-xp.abs(z)))

    def derivatives(self, z: Array, a: Array) -> tuple[Array, Array]:
        """Return the logistic function and its derivative, through tanh, which never overflows."""
        half = namespace(z).tanh(0.5 * z)
        return 0.5 * (1 + half), 0.25 * (1 - half * half)


@dataclass(frozen=True, eq=False)
class MultilayerPerceptron:
    r"""Loss of a fully connected network with smooth activations.

    .. math:: a_0 = X, \quad z_l = a_{l-1} W_l + b_l, \quad a_l = \sigma(z_l), \quad
              f = \tfrac{1}{2n}\lVert z_L - y\rVert^2
              \ \text{or}\ \tfrac1n\textstyle\sum_i \mathrm{CE}(z_{L,i}, y_i)

    Hessian-vector products are Pearlmutter's R-operator on the stored forward and backward passes: exact,
    and about the cost of one gradient.

    The parameter vector runs layer by layer: W_l (in, out) row-major, then b_l (out).

    Parameters
    ----------
    X : (..., n, in) array
        Inputs; leading axes are independent problems.
    y : (..., n) or (..., n, m) array, or (..., n) integer array with `n_classes`
        Regression targets (for m ≥ 2 outputs the error is summed over outputs), or class labels. One output
        takes (..., n).
    hidden : tuple of int
        Widths of the hidden layers; () is a linear model.
    activation : Activation
        `Tanh()` or `Softplus()`, or any object with the two methods.
    n_classes : int, optional
        With it the loss is the mean cross-entropy over that many classes.
    n_outputs : int
        Number m of regression outputs.

    References
    ----------
    Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 6 (1994).
    """

    X: Array
    y: Array
    hidden: tuple[int, ...] = (40, 40)
    activation: Activation = field(default_factory=Tanh)
    n_classes: int | None = None
    n_outputs: int = 1
    _head: Head = field(init=False, repr=False)
    _layout: Layout = field(init=False, repr=False)
    _inputs: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        X = features("X", self.X)
        if not isinstance(self.hidden, tuple | list):
            raise ArgumentTypeError(f"hidden: expected a tuple of layer widths, got {self.hidden!r}")
        if isinstance(self.activation, type) or not hasattr(self.activation, "derivatives"):
            raise ArgumentTypeError(f"activation: expected a value such as Tanh(), got {self.activation!r}")
        hidden = tuple(border.count("hidden", width, minimum=1) for width in self.hidden)
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "hidden", hidden)
        object.__setattr__(self, "y", self._check_targets(X))
        object.__setattr__(self, "_layout", Layout(self.widths))
        object.__setattr__(self, "_inputs", with_ones(X))

    def _check_targets(self, X: Array) -> Array:
        if self.n_classes is None:
            border.count("n_outputs", self.n_outputs, minimum=1)
            y = border.finite("y", border.real_array("y", self.y, min_ndim=1))
            wanted = (X.shape[-2],) if self.n_outputs == 1 else (X.shape[-2], self.n_outputs)
        else:
            if self.n_outputs != 1:
                raise ArgumentTypeError("n_outputs: not used with n_classes; leave it at 1")
            border.count("n_classes", self.n_classes, minimum=2)
            y = border.labels("y", self.y, self.n_classes)
            wanted = (X.shape[-2],)
        if tuple(y.shape[y.ndim - len(wanted) :]) != wanted or y.ndim < len(wanted):
            raise ArgumentError(
                f"y: expected shape (..., {', '.join(map(str, wanted))}) to match X {tuple(X.shape)}, "
                f"got {tuple(y.shape)}"
            )
        batch = y.shape[: y.ndim - len(wanted)]
        if self.n_classes is not None:
            refuse_one_hot("y", y, self.n_classes, X)
        check_batch("y", batch, X.shape[:-2])
        head: Head
        if self.n_classes is None:
            same_dtype("y", y, X)
            head = SquaredErrorHead(y[..., None] if self.n_outputs == 1 else y)
        else:
            head = CrossEntropyHead(one_hot(y, self.n_classes, X))
        object.__setattr__(self, "_head", head)
        return y

    @property
    def widths(self) -> tuple[int, ...]:
        """Layer widths from the input to the output."""
        return (int(self.X.shape[-1]), *self.hidden, self.n_classes or self.n_outputs)

    @property
    def size(self) -> int:
        """Number of parameters d."""
        return self._layout.size

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Leading axes of the data."""
        core = 2 if self.n_classes is None and self.n_outputs > 1 else 1
        return broadcast_shapes(self.X.shape[:-2], self.y.shape[: self.y.ndim - core])

    @property
    def dtype(self) -> Any:
        """Floating point type of data and results."""
        return self.X.dtype

    def layers(self, x: Array) -> list[tuple[Array, Array]]:
        """Return views (W_l, b_l) of shapes (..., in, out) and (..., 1, out) into a parameter vector."""
        return [(M[..., :-1, :], M[..., -1:, :]) for M in self._layout.matrices(x)]

    def _forward(self, x: Array) -> Forward:
        check_size(x, self.size, self)
        return Forward(self._layout, self._inputs, x, self.activation)

    def outputs(self, x: Array) -> Array:
        """Return the network's outputs z_L: `(..., n, m)`."""
        return self._forward(x).z[-1]

    def value(self, x: Array) -> Array:
        """Return f(x): `(...)`."""
        return self._head.value(self.outputs(x))

    def gradient(self, x: Array) -> Array:
        """Return ∇f(x) by one forward and one backward pass: `(..., d)`."""
        forward = self._forward(x)
        return forward.gradient(self._head.linearize(forward.z[-1])[1])

    def gradient_terms(self, x: Array) -> Array:
        """Return the norm of the sums of |summands| along the backward pass, rounding in z_l included: `(...)`."""
        xp, forward = namespace(x), self._forward(x)
        sizes = [xp.abs(M) for M in forward.matrices]
        z_terms = [xp.abs(a) @ M for a, M in zip(forward.augmented, sizes, strict=True)]
        delta = self._head.delta_terms(forward.z[-1], z_terms[-1])
        result = forward.empty_like_parameters(delta)
        for depth in reversed(range(len(sizes))):
            self._layout.product_into(result, depth, xp.abs(forward.augmented[depth]), delta)
            if depth:
                first, second = forward.derivatives(depth)
                slope = xp.abs(first) + xp.abs(second) * z_terms[depth - 1]
                delta = (delta @ transpose(sizes[depth][..., :-1, :])) * slope
        return norm(result)

    def linearize(self, x: Array) -> Linearization:
        """Return value, gradient and the R-operator HVP on the stored passes."""
        forward = self._forward(x)
        value, delta, state = self._head.linearize(forward.z[-1])
        tangent = Tangent(forward, self._head, state, delta)
        return Linearization(value, tangent.result, tangent)

    def linearize_gauss_newton(self, x: Array) -> Linearization:
        """Return value, gradient and v ↦ Jᵀ(∂²L/∂z²)J v/n: the Hessian without the curvature of the network itself.

        It is positive semidefinite everywhere, and equal to the Hessian where ∂L/∂z = 0 for every sample.
        """
        forward = self._forward(x)
        value, delta, state = self._head.linearize(forward.z[-1])
        return Linearization(value, forward.gradient(delta), GaussNewtonProduct(forward, self._head, state))

    @property
    def n_samples(self) -> int:
        """Number n of samples of one problem."""
        return int(self.X.shape[-2])

    def minibatch(self, indices: Any) -> MultilayerPerceptron:
        """Return the mean over the samples at these positions, the same for every problem of the batch."""
        rows = chosen(indices, self.n_samples)
        axis = -2 if self.n_classes is None and self.n_outputs > 1 else -1
        part = restricted(self, rows, X=-2, y=axis, _inputs=-2)
        object.__setattr__(part, "_head", restricted(self._head, rows, target=-2))
        return part

    def select(self, index: tuple[int, ...], batch_shape: tuple[int, ...]) -> MultilayerPerceptron:
        """Return the loss of one problem of the batch."""
        core = 2 if self.n_classes is None and self.n_outputs > 1 else 1
        return MultilayerPerceptron(
            take_row(self.X, index, batch_shape, 2),
            take_row(self.y, index, batch_shape, core),
            self.hidden,
            self.activation,
            self.n_classes,
            self.n_outputs,
        )


def parameter_count(widths: tuple[int, ...]) -> int:
    """Number of weights and biases of a network with these layer widths.

    Examples
    --------
    >>> parameter_count((1, 40, 40, 1))
    1761
    """
    return sum(fan_in * fan_out + fan_out for fan_in, fan_out in pairwise(widths))
