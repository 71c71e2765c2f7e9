"""Closed forms against autograd of a loss written a second time, against complex steps, and in every shape."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from oracles import traced
from oracles.fifty_digits import MP
from oracles.scenes import EPS

from implicit_grad import Autodiff, LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy, Softplus, Tanh

N, P, C = 6, 3, 3


@dataclass(frozen=True)
class Family:
    """One kind of closed form: how to build it from data, and its second self."""

    name: str
    hidden: tuple[int, ...] = ()
    activation: str = "tanh"
    classes: int = 0
    outputs: int = 1

    def data(self, rng: np.random.Generator, batch: tuple[int, ...] = ()) -> tuple[Any, Any]:
        X = rng.standard_normal((*batch, N, P))
        if self.name == "softmax" or self.classes:
            return X, rng.integers(C, size=(*batch, N))
        shape = (*batch, N) if self.outputs == 1 else (*batch, N, self.outputs)
        return X, rng.standard_normal(shape)

    def build(self, X: Any, y: Any) -> Any:
        if self.name == "least squares":
            return LeastSquares(X, y)
        if self.name == "softmax":
            return SoftmaxCrossEntropy(X, y, C)
        activation = Tanh() if self.activation == "tanh" else Softplus()
        return MultilayerPerceptron(X, y, self.hidden, activation, self.classes or None, self.outputs)

    def second(self, X: Any, y: Any) -> Any:
        if self.name == "least squares":
            return traced.least_squares(X, y)
        if self.name == "softmax":
            return traced.softmax(X, y, C)
        widths = (P, *self.hidden, self.classes or self.outputs)
        return traced.network(X, y, widths, self.activation, self.classes or None)

    def __str__(self) -> str:
        if self.name != "network":
            return self.name
        return (
            f"{self.hidden} {self.activation}, {self.classes or self.outputs} out, {'CE' if self.classes else 'SE'}"
        )


FAMILIES = [Family("least squares"), Family("softmax")] + [
    Family("network", hidden, activation, classes, outputs)
    for hidden in ((), (4,), (3, 2), (2, 2, 2))
    for activation in ("tanh", "softplus")
    for classes, outputs in ((0, 1), (0, 2), (C, 1))
    if hidden or activation == "tanh"
]
EVERY = pytest.mark.parametrize("family", FAMILIES, ids=str)


@EVERY
@pytest.mark.parametrize("seed", [5, 6, 7])
def test_equals_autograd_of_a_second_writing(family, seed):
    """Value, gradient, HVP and dense Hessian to 4·(n + d)·eps of their size; all data are of order one."""
    rng = np.random.default_rng(seed)
    X, y = family.data(rng)
    closed, second = family.build(X, y), Autodiff(family.second(X, y))
    x, v = rng.standard_normal((2, closed.size))
    one, two = closed.linearize(x), second.linearize(x)
    unit = 4 * (N + x.size) * EPS
    assert abs(closed.value(x) - two.value) <= unit * (1 + two.value)
    assert np.linalg.norm(one.gradient - two.gradient) <= unit * (1 + np.linalg.norm(two.gradient))
    dense = traced.hessian(family.second(X, y), x)
    size = 1 + np.linalg.norm(dense, 2)
    assert np.linalg.norm(one.hvp(np.eye(x.size)) - dense, 2) <= unit * size
    for product in (one.hvp(v), two.hvp(v)):
        assert np.linalg.norm(product - dense @ v) <= unit * size * np.linalg.norm(v)


@EVERY
def test_the_linearisation_is_the_value_and_the_gradient(family):
    """Bitwise, and a product does not disturb them."""
    rng = np.random.default_rng(8)
    f = family.build(*family.data(rng, (2,)))
    x = rng.standard_normal((2, f.size))
    at = f.linearize(x)
    before = at.value.copy(), at.gradient.copy()
    at.hvp(rng.standard_normal((2, f.size)))
    for value, gradient in (before, (f.value(x), f.gradient(x)), (at.value, at.gradient)):
        assert np.array_equal(at.value, value)
        assert np.array_equal(at.gradient, gradient)


@EVERY
def test_products_are_linear_in_nothing_but_their_argument(family):
    """H0 = 0 bitwise; a product is not changed by others before it, of other shapes; v is left as it was."""
    rng = np.random.default_rng(9)
    f = family.build(*family.data(rng))
    hvp = f.linearize(rng.standard_normal(f.size)).hvp
    v, many = rng.standard_normal(f.size), rng.standard_normal((4, f.size))
    assert not hvp(np.zeros(f.size)).any()
    first, kept = hvp(v), v.copy()
    copy = first.copy()
    hvp(many)
    hvp(-v)
    assert np.array_equal(first, copy)
    assert np.array_equal(hvp(v), copy)
    assert np.array_equal(v, kept)
    # A power of two scales every bit.
    assert np.array_equal(hvp(0.25 * v), 0.25 * copy)


@EVERY
@pytest.mark.parametrize("shared", ["nothing", "X", "x", "both"])
def test_a_batch_is_its_problems(family, shared):
    """Bitwise on NumPy: batched data, batched parameters, or both, and further axes of v in front."""
    rng = np.random.default_rng(10)
    X, y = family.data(rng, () if shared in ("X", "both") else (2, 3))
    f = family.build(X, y)
    x = rng.standard_normal((f.size,) if shared in ("x", "both") else (2, 3, f.size))
    batch = () if shared == "both" else (2, 3)
    V = rng.standard_normal((5, *batch, f.size))
    at = f.linearize(x)
    assert at.value.shape == f.value(x).shape == batch
    products = at.hvp(V)
    assert products.shape == V.shape
    for index in np.ndindex(batch):
        row, point = f.select(index, batch), x if shared in ("x", "both") else x[index]
        alone = row.linearize(point)
        assert row.batch_shape == ()
        assert np.array_equal(at.value[index], alone.value)
        assert np.array_equal(at.gradient[index], alone.gradient)
        for i in range(len(V)):
            assert np.array_equal(products[(i, *index)], alone.hvp(V[(i, *index)]))


@EVERY
def test_float32_is_kept(family):
    """All results are float32, and within 64·(n + d)·eps₃₂ of float64 by norm."""
    rng = np.random.default_rng(11)
    X, y = family.data(rng)
    f = family.build(X, y)
    X32, y32 = X.astype(np.float32), y.astype(np.float32) if y.dtype.kind == "f" else y
    g = family.build(X32, y32)
    # The float64 loss of the rounded data is the reference.
    f = family.build(X32.astype(float), y32.astype(float) if y.dtype.kind == "f" else y)
    x, v = (each.astype(np.float32) for each in rng.standard_normal((2, f.size)))
    single, double = g.linearize(x), f.linearize(x.astype(float))
    tolerance = 64 * (N + f.size) * float(np.finfo(np.float32).eps)
    for low, high in (
        (g.value(x), f.value(x.astype(float))),
        (single.value, double.value),
        (single.gradient, double.gradient),
        (g.gradient(x), double.gradient),
        (single.hvp(v), double.hvp(v.astype(float))),
    ):
        assert low.dtype == np.float32
        assert high.dtype == np.float64
        assert np.linalg.norm(low - high) <= tolerance * (1 + np.linalg.norm(high))
    if hasattr(g, "curvature_bound"):
        assert np.asarray(g.curvature_bound()).dtype == np.float32


ANALYTIC = [f for f in FAMILIES if f.name == "least squares" or (f.name == "network" and f.activation == "tanh")]


@pytest.mark.parametrize("family", [f for f in ANALYTIC if not f.classes], ids=str)
def test_complex_steps(family):
    """Hv = Im ∇f(x + ihv)/h at h = 1e-100: no difference is taken, so only the rounding of f itself is left."""
    rng = np.random.default_rng(12)
    f = family.build(*family.data(rng))
    x, v = rng.standard_normal((2, f.size))
    h = 1e-100
    step = f.gradient(x + 1j * h * v).imag / h
    product = f.linearize(x).hvp(v)
    scale = np.linalg.norm(f.linearize(x).hvp(np.eye(f.size)), 2) * np.linalg.norm(v)
    assert np.linalg.norm(step - product) <= 16 * (N + f.size) * EPS * scale


@pytest.mark.parametrize("family", FAMILIES[:2], ids=str)
def test_the_curvature_bound_holds_and_is_reached(family):
    """λ_max(∇²f) ≤ bound at 40 points; least squares attains it, and softmax does in one dimension at p = ½."""
    rng = np.random.default_rng(13)
    f = family.build(*family.data(rng))
    slack = 1 + 8 * f.size * EPS
    for x in rng.standard_normal((40, f.size)) * np.geomspace(1e-2, 1e2, 40)[:, None]:
        top = np.linalg.eigvalsh(f.linearize(x).hvp(np.eye(f.size)))[-1]
        assert top <= f.curvature_bound() * slack
    if family.name == "least squares":
        assert abs(top / f.curvature_bound() - 1) <= 8 * f.size * EPS
    sharp = SoftmaxCrossEntropy(np.full((4, 1), 3.0), np.array([0, 1, 1, 0]), 2)
    top = np.linalg.eigvalsh(sharp.linearize(np.zeros(2)).hvp(np.eye(2)))[-1]
    assert abs(top / sharp.curvature_bound() - 1) <= 8 * EPS


def test_more_features_than_samples_use_the_small_gram_matrix():
    X = np.random.default_rng(14).standard_normal((3, 5, 20))
    f = LeastSquares(X, np.zeros((3, 5)))
    wanted = np.linalg.norm(X, 2, axis=(-2, -1)) ** 2 / 5
    assert np.abs(f.curvature_bound() / wanted - 1).max() <= 32 * EPS


@pytest.mark.parametrize("logit", [1e1, 1e4, 1e300])
def test_cross_entropy_stays_finite(logit):
    """Sure of the wrong class the loss is the logit; sure of the right one it is 0 — and no product is NaN."""
    X = np.ones((1, 1))
    for label, wanted in ((0, 0.0), (1, logit)):
        f = SoftmaxCrossEntropy(X, np.array([label]), 2)
        at = f.linearize(np.array([logit, 0.0]))
        assert abs(at.value - wanted) <= max(4 * EPS * wanted, np.exp(-logit) * (1 + 4 * EPS))
        assert np.isfinite(at.gradient).all()
        assert np.isfinite(at.hvp(np.ones(2))).all()


@pytest.mark.parametrize("logit", [5.0, 20.0, 34.0])
def test_a_saturated_softmax_keeps_the_digits_of_its_curvature(logit):
    """H = p(1 − p)·[[1, −1], [−1, 1]]: 16·eps relative, although p(1 − p) falls to 1e-15."""
    f = SoftmaxCrossEntropy(np.ones((1, 1)), np.array([0]), 2)
    H = f.linearize(np.array([logit, 0.0])).hvp(np.eye(2))
    q = 1 / (1 + MP.exp(MP.mpf(logit)))
    wanted = float(q * (1 - q))
    assert np.abs(H / wanted - [[1, -1], [-1, 1]]).max() <= 16 * EPS


def test_cross_entropy_of_equal_logits_is_log_of_their_number():
    for classes in (2, 3, 7, 100):
        f = SoftmaxCrossEntropy(np.ones((5, 2)), np.arange(5) % classes, classes)
        assert abs(f.value(np.zeros(2 * classes)) / np.log(classes) - 1) <= 4 * EPS


def test_a_bias_is_a_column_of_ones():
    """Softmax with ones in the last column of X is the network without hidden layers: W then b is one layout."""
    rng = np.random.default_rng(15)
    X, labels = rng.standard_normal((N, P)), rng.integers(C, size=N)
    x, v = rng.standard_normal((2, (P + 1) * C))
    augmented = SoftmaxCrossEntropy(np.column_stack([X, np.ones(N)]), labels, C).linearize(x)
    network = MultilayerPerceptron(X, labels, (), Tanh(), C).linearize(x)
    unit = 16 * (N + x.size) * EPS
    assert abs(augmented.value - network.value) <= unit * (1 + augmented.value)
    assert np.abs(augmented.gradient - network.gradient).max() <= unit * (1 + np.abs(X).max())
    assert np.abs(augmented.hvp(v) - network.hvp(v)).max() <= unit * (1 + np.abs(X).max()) ** 2 * np.linalg.norm(v)


def test_network_parameters_run_layer_by_layer():
    rng = np.random.default_rng(16)
    f = MultilayerPerceptron(rng.standard_normal((N, 2)), rng.standard_normal((N, 2)), (3,), n_outputs=2)
    x = np.arange(float(f.size))
    (W1, b1), (W2, b2) = f.layers(x)
    assert f.size == 2 * 3 + 3 + 3 * 2 + 2
    assert np.array_equal(np.concatenate([W1.ravel(), b1.ravel(), W2.ravel(), b2.ravel()]), x)
    assert (W1.shape, b1.shape, W2.shape, b2.shape) == ((2, 3), (1, 3), (3, 2), (1, 2))


@pytest.mark.parametrize("activation", [Tanh(), Softplus()], ids=repr)
def test_activations_are_finite_and_smooth_everywhere(activation):
    """σ, σ' and σ'' against 50 digits at ±1e-300 … ±1e300, relative to max(1, |σ|)."""
    z = np.concatenate([s * np.geomspace(1e-300, 1e300, 61) for s in (1, -1)] + [np.linspace(-40, 40, 81)])
    a = activation.value(z)
    first, second = activation.derivatives(z, a)
    for i, each in enumerate(z):
        t = MP.mpf(float(each))
        if isinstance(activation, Tanh):
            s = MP.tanh(t)
            exact = s, 1 - s**2, -2 * s * (1 - s**2)
        else:
            p = 1 / (1 + MP.exp(-t)) if t > -1e5 else MP.mpf(0)
            exact = MP.log1p(MP.exp(-abs(t))) + max(t, 0), p, p * (1 - p)
        for got, wanted in zip((a[i], first[i], second[i]), exact, strict=True):
            assert abs(MP.mpf(float(got)) - wanted) <= 8 * EPS * max(1, abs(wanted))
