"""The whole way on strict array-API arrays: no stray NumPy call, no host conversion, the numbers of NumPy.

`array_api_strict` accepts nothing the standard does not promise, so what runs here runs on other backends.
"""

import sys

import array_api_strict as xp
import numpy as np
import pytest
from oracles import scenes
from oracles.scenes import EPS

from implicit_grad import (
    CG,
    EXACT,
    ArgumentTypeError,
    BackendError,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    IndefiniteError,
    LeastSquares,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    ScipyCG,
    SoftmaxCrossEntropy,
    Softplus,
    Status,
    Tanh,
    UnrolledGradient,
    extreme_eigenvalues,
)
from implicit_grad.backend import to_numpy as backend_to_numpy

N, P, C = 6, 3, 3


def _losses(rng, name, batch=(), dtype=np.float64):
    """One loss on NumPy and the same on strict arrays."""
    X = rng.standard_normal((*batch, N, P)).astype(dtype)
    y = rng.standard_normal((*batch, N)).astype(dtype)
    labels = rng.integers(C, size=(*batch, N))
    build = {
        "least squares": lambda asarray: LeastSquares(asarray(X), asarray(y)),
        "softmax": lambda asarray: SoftmaxCrossEntropy(asarray(X), asarray(labels), C),
        "tanh": lambda asarray: MultilayerPerceptron(asarray(X), asarray(y), (3, 2), Tanh()),
        "softplus": lambda asarray: MultilayerPerceptron(asarray(X), asarray(labels), (2,), Softplus(), C),
        "linear": lambda asarray: MultilayerPerceptron(asarray(X), asarray(y), ()),
    }[name]
    return build(np.asarray), build(xp.asarray)


LOSSES = pytest.mark.parametrize("name", ["least squares", "softmax", "tanh", "softplus", "linear"])


def _close(strict, plain, factor=1.0):
    """Equal to `factor`·16·(n + d)·eps of the dtype, by norm; a strict array of the same dtype and shape."""
    assert hasattr(strict, "__array_namespace__")
    assert strict.__array_namespace__() is xp
    host = np.asarray(strict)
    assert host.shape == np.shape(plain)
    assert host.dtype == np.asarray(plain).dtype
    unit = 16 * (N + plain.shape[-1] if np.ndim(plain) else N) * float(np.finfo(host.dtype).eps)
    assert np.linalg.norm(host - plain) <= factor * unit * (1 + np.linalg.norm(plain))


@LOSSES
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_closed_forms(name, batch, dtype, rng):
    plain, strict = _losses(rng, name, batch, dtype)
    x, v = rng.standard_normal((2, *batch, plain.size)).astype(dtype)
    V = rng.standard_normal((4, *batch, plain.size)).astype(dtype)
    one, two = plain.linearize(x), strict.linearize(xp.asarray(x))
    for got, wanted in (
        (strict.value(xp.asarray(x)), plain.value(x)),
        (strict.gradient(xp.asarray(x)), plain.gradient(x)),
        (two.value, one.value),
        (two.gradient, one.gradient),
        (two.hvp(xp.asarray(v)), one.hvp(v)),
        (two.hvp(xp.asarray(V)), one.hvp(V)),
    ):
        _close(got, wanted, 4)
    if two.hessian is not None:
        _close(two.hessian(), one.hessian(), 4)
    if hasattr(plain, "curvature_bound"):
        _close(strict.curvature_bound(), plain.curvature_bound(), 4)
    if hasattr(plain, "gradient_terms"):
        _close(strict.gradient_terms(xp.asarray(x)), plain.gradient_terms(x), 4)
    if batch:
        assert strict.select((1,), batch).size == plain.size


METHODS = [
    MetaGradient(GradientDescent(0.05, 7), ImplicitGradient(CG(2))),
    MetaGradient(GradientDescent(None, 7, record=(0, 3, 7)), ImplicitGradient(CG(60, 1e-12))),
    MetaGradient(GradientDescent(None, 7), ImplicitGradient(CG(2, record=True))),
    MetaGradient(GradientDescent(None, 7, record=True), UnrolledGradient()),
    MetaGradient(GradientDescent(0.05, 7, record=True, proximal=False), UnrolledGradient(3)),
    MetaGradient(Newton(linear_solver=CG(80, 1e-13)), ImplicitGradient(CG(80, 1e-13))),
    MetaGradient(GradientDescent(None, 0), FirstOrderGradient()),
]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m.inner_solver).__name__}, {m.label}")
@LOSSES
def test_methods(name, method):
    """A batch of two tasks under two λ; equal to NumPy within 64·16·(n + d)·eps, κ(A) < 60 here."""
    plain, strict = _problems(name)
    theta = 0.5 * np.cos(np.arange(plain.inner.size))
    one, two = method(plain, theta), method(strict, xp.asarray(theta))
    _close(two.gradient, one.gradient, 64)
    _close(two.inner.value, one.inner.value, 64)
    assert np.array_equal(two.status, one.status)
    if isinstance(method.inner_solver, GradientDescent):
        assert two.cost.gradients == one.cost.gradients
    assert two.unwrap() is two.gradient
    if two.path is not None:
        _close(two.path.points, one.path.points, 64)
    if two.inner.path is not None:
        early = two.inner.at(3)
        _close(early.value, one.inner.at(3).value, 64)
        assert np.array_equal(np.asarray(early.steps), np.full((2, 2), 3))


def _problems(name):
    rng = np.random.default_rng(20190910)
    (inner, strict_inner), (outer, strict_outer) = _losses(rng, name, (2,)), _losses(rng, name, (2,))
    lam = np.array([[0.7], [2.5]])
    return BilevelProblem(inner, outer, lam), BilevelProblem(strict_inner, strict_outer, xp.asarray(lam))


def test_nothing_goes_to_the_host_in_a_loop(monkeypatch):
    """A descent copies nothing to the host, whatever its steps; who looks at the statuses does, once."""
    _, strict = _problems("least squares")
    copies = []
    for name, module in list(sys.modules.items()):
        if name.startswith("implicit_grad.") and hasattr(module, "to_numpy"):
            monkeypatch.setattr(module, "to_numpy", lambda x: copies.append(1) or backend_to_numpy(x))
    for steps in (5, 35):
        run = GradientDescent(0.05, steps, record=True)(strict, xp.ones(P))
        assert not copies
        assert run.status is run.status
        assert len(copies) == 1
        copies.clear()


def test_conjugate_gradient_and_its_failures():
    A, b = np.diag([1.0, 4.0, 9.0]), np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0]])
    plain, strict = CG(9, 1e-12, record=True)(A, b), CG(9, 1e-12, record=True)(xp.asarray(A), xp.asarray(b))
    assert list(strict.status) == list(plain.status) == [Status.CONVERGED, Status.CONVERGED, Status.NONFINITE]
    _close(strict.value[:2, :], plain.value[:2])
    assert np.array_equal(np.asarray(strict.steps), plain.steps)
    saddle = CG(9)(xp.asarray(np.diag([1.0, -1.0])), xp.asarray([1.0, 0.5]))
    with pytest.raises(IndefiniteError, match="smallest eigenvalue"):
        saddle.unwrap()


def test_lanczos_estimates():
    plain, strict = _problems("tanh")
    theta = np.sin(np.arange(plain.inner.size))
    for one, two in zip(
        extreme_eigenvalues(plain.curvature(plain.parameters(theta)), 30),
        extreme_eigenvalues(strict.curvature(strict.parameters(xp.asarray(theta))), 30),
        strict=True,
    ):
        assert np.abs(one - two).max() <= 64 * plain.inner.size * EPS * np.abs(one).max()


def test_what_needs_numpy_says_so():
    _, strict = _problems("least squares")
    theta = xp.ones(P)
    for method in (EXACT, MetaGradient(GradientDescent(0.1, 2), ImplicitGradient(ScipyCG(2)))):
        with pytest.raises(ArgumentTypeError, match="NumPy"):
            method(strict, theta)
    with pytest.raises(ArgumentTypeError, match="NumPy"):
        Cholesky()(xp.eye(2), xp.ones(2))


def test_two_backends_do_not_mix():
    plain, strict = _problems("least squares")
    method = METHODS[0]
    for problem, theta in ((plain, xp.ones(P)), (strict, np.ones(P))):
        with pytest.raises((BackendError, ArgumentTypeError), match=r"backend|theta"):
            method(problem, theta)
    with pytest.raises(BackendError, match=r"array_api_strict.*numpy"):
        CG(2)(np.eye(2), xp.ones(2))


def test_bad_strict_data_is_named_like_numpy_data():
    scene = scenes.ridge(0.37)
    X = np.array(scene.problem.inner.X)
    X[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"^X: nan at index \[2, 1\]"):
        LeastSquares(xp.asarray(X), xp.asarray(scene.problem.inner.y))
    with pytest.raises(TypeError, match=r"^y: .*complex"):
        LeastSquares(xp.eye(2), xp.ones(2, dtype=xp.complex128))
