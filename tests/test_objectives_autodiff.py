"""`Autodiff`: derivatives of any loss, traced once per point, and typed errors for losses that are none."""

import warnings
from collections import namedtuple

import autograd.numpy as anp
import numpy as np
import pytest
from oracles.scenes import EPS

from implicit_grad import (
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    LeastSquares,
    LossError,
    Newton,
)


def quartic(x):
    """Σ x⁴ + (Σ x)²: gradient 4x³ + 2Σx, Hessian diag(12x²) + 2·11ᵀ."""
    return anp.sum(x**4, axis=-1) + anp.sum(x, axis=-1) ** 2


@pytest.mark.parametrize("broadcasts", [False, True])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_derivatives_of_a_polynomial(batch, broadcasts):
    """Within 8·d·eps of the terms, for one problem and for a batch by a loop or at once."""
    rng = np.random.default_rng(61)
    x, v, V = rng.standard_normal((*batch, 4)), rng.standard_normal((*batch, 4)), rng.standard_normal((5, *batch, 4))
    f = Autodiff(quartic, broadcasts)
    at = f.linearize(x)

    def hessian(v):
        return 12 * x**2 * v + 2 * v.sum(-1, keepdims=True)

    for got, wanted in (
        (f.value(x), (x**4).sum(-1) + x.sum(-1) ** 2),
        (at.value, (x**4).sum(-1) + x.sum(-1) ** 2),
        (f.gradient(x), 4 * x**3 + 2 * x.sum(-1, keepdims=True)),
        (at.gradient, 4 * x**3 + 2 * x.sum(-1, keepdims=True)),
        (at.hvp(v), hessian(v)),
        (at.hvp(V), hessian(V)),
    ):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 8 * 4 * EPS * (12 * np.abs(x).max() ** 4 + 60 * np.abs(V).max())


def test_a_batch_is_its_problems():
    x = np.random.default_rng(62).standard_normal((3, 4))
    at = Autodiff(quartic).linearize(x)
    for i in range(3):
        alone = Autodiff(quartic).linearize(x[i])
        assert at.value[i] == alone.value
        assert np.array_equal(at.gradient[i], alone.gradient)
        assert np.array_equal(at.hvp(x)[i], alone.hvp(x[i]))


def test_the_loss_runs_once_per_linearisation():
    calls = []

    def counted(x):
        calls.append(x)
        return quartic(x)

    at = Autodiff(counted).linearize(np.ones(3))
    for _ in range(4):
        at.hvp(np.ones(3))
    assert len(calls) == 1


def test_float32_is_kept():
    """Although the loss itself computes in float64 with the data."""
    X = np.random.default_rng(63).standard_normal((6, 3))
    f = Autodiff(lambda w: anp.mean(anp.tanh(anp.dot(X, w))))
    at = f.linearize(np.ones(3, dtype=np.float32))
    for array in (f.value(np.ones(3, dtype=np.float32)), at.value, at.gradient, at.hvp(np.ones(3, dtype=np.float32))):
        assert array.dtype == np.float32


def test_a_linear_loss_has_no_curvature_and_no_warning():
    at = Autodiff(lambda w: anp.sum(w * np.arange(3.0))).linearize(np.ones(3))
    assert np.array_equal(at.gradient, np.arange(3.0))
    assert not at.hvp(np.ones(3)).any()


def test_a_loss_that_ignores_its_parameters_is_warned_of():
    f = Autodiff(lambda w: 3.0)
    assert f.value(np.ones(2)) == 3.0
    for call in (f.gradient, f.linearize):
        with pytest.warns(UserWarning, match="independent"):
            call(np.ones(2))
    problem = BilevelProblem(f, Autodiff(lambda w: anp.sum(w**2)), 0.5)
    with pytest.warns(UserWarning, match="independent"):
        g = EXACT(problem, np.array([0.5, 2.0])).gradient
    # L_train = const: φ* = θ and g = ∇L_test(θ).
    assert np.abs(g - [1.0, 4.0]).max() <= 8 * EPS


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda w: None, "NoneType"),
        (lambda w: "loss", "str"),
        (lambda w: w, r"shape \(3,\)"),
        (lambda w: anp.reshape(anp.sum(w), (1,)), r"shape \(1,\)"),
        (lambda w: anp.reshape(anp.sum(w), (1, 1)), r"shape \(1, 1\)"),
        (lambda w: [anp.sum(w)], "list"),
        (lambda w: float(anp.sum(w)), "float"),
        (lambda w: int(anp.sum(w)), "float|int"),
        (lambda w: bool(np.True_), "bool"),
        (lambda w: anp.sum(w) * 1j, "complex"),
        (lambda w: np.array(None, dtype=object), "object"),
        (lambda w: anp.sum(anp.where(np.ones((3, 1)) > 0, w, 0.0)), "where"),
    ],
    ids=["None", "str", "(d,)", "(1,)", "(1, 1)", "list", "float()", "int()", "bool", "complex", "object", "where"],
)
def test_what_is_no_loss_is_refused(loss, message):
    f = Autodiff(loss)
    for call in (f.gradient, f.linearize):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with pytest.raises(LossError, match=rf"^f: .*({message})"):
                call(np.ones(3))


def test_a_broadcasting_loss_returns_one_number_per_problem():
    f = Autodiff(lambda w: anp.sum(w**2), broadcasts=True)
    with pytest.raises(LossError, match=r"row i"):
        f.value(np.ones((2, 3)))


def test_an_error_inside_the_loss_comes_through():
    def broken(w):
        raise TypeError("my own")

    with pytest.raises(TypeError, match="my own"):
        Autodiff(broken).gradient(np.ones(2))


@pytest.mark.parametrize("broadcasts", [False, True])
def test_a_loss_cannot_write_into_its_argument(broadcasts):
    def vandal(w):
        w[...] = 0.0
        return anp.sum(w, axis=-1)

    x = np.ones((2, 3))
    f = Autodiff(vandal, broadcasts)
    with pytest.raises(ValueError, match="read-only"):
        f.value(x)
    with pytest.raises(TypeError):
        f.gradient(x)
    assert (x == 1).all()
    assert x.flags.writeable


def test_a_loss_that_is_not_finite_ends_with_a_status():
    """log of a negative number under `where`: the value is fine, the gradient is NaN, and no solver hides it."""
    f = Autodiff(lambda w: anp.sum(anp.where(w > 0, anp.log(w), 0.0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        solution = Newton()(BilevelProblem(f, f, 0.5), np.array([0.0, 1.0]))
    assert not solution.ok


def test_other_arrays_are_refused():
    import array_api_strict as xp

    with pytest.raises(ArgumentTypeError, match=r"parameters: .*NumPy"):
        Autodiff(quartic).value(xp.asarray([1.0, 2.0]))


@pytest.mark.parametrize("f", [None, 3.0, "loss", LeastSquares(np.eye(2), np.ones(2))])
def test_a_loss_is_a_function(f):
    with pytest.raises(ArgumentTypeError, match="f: expected a callable"):
        Autodiff(f)


def test_trees_of_other_containers_are_refused():
    pair = namedtuple("pair", "a b")
    problem = BilevelProblem(Autodiff(lambda t: anp.sum(t[0])), Autodiff(lambda t: anp.sum(t[1])), 0.3)
    with pytest.raises(ArgumentTypeError, match="theta: pair"):
        EXACT(problem, pair(np.ones(2), np.ones(1)))
    with pytest.raises(ArgumentTypeError, match=r"theta\[1\]: .*complex"):
        EXACT(problem, [np.ones(2), 1j * np.ones(1)])
    with pytest.raises(ArgumentError, match=r"theta\['b'\]: nan at index \[1\]"):
        EXACT(problem, {"a": np.ones(2), "b": np.array([1.0, np.nan])})
    broadcasting = Autodiff(lambda t: anp.sum(t[0], axis=-1), broadcasts=True)
    with pytest.raises(ArgumentTypeError, match="broadcasts"):
        EXACT(BilevelProblem(broadcasting, broadcasting, 0.3), [np.ones(2)])
