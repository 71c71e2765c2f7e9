"""A factor on a device is known by its product, whatever the library leaves where there is none."""

import numpy as np
import pytest
from device_double import DOUBLE, DeviceArray

from implicit_grad import Cholesky, Status
from implicit_grad.linear import _dense
from implicit_grad.linear._dense import factors_of

EPS = float(np.finfo(np.float64).eps)


def _matrix(d, condition, seed=73):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    A = (Q * np.geomspace(1, condition, d)) @ Q.T
    return 0.5 * (A + A.T)


def _left(monkeypatch, change):
    """The library leaves L changed."""
    monkeypatch.setattr(_dense, "cholesky", lambda A: DeviceArray(change(np.linalg.cholesky(A.get()))))


@pytest.mark.parametrize("d", [1, 5, 60])
@pytest.mark.parametrize("log10_condition", [0, 6, 14])
def test_right_factors_pass(d, log10_condition):
    A = _matrix(d, 10.0**log10_condition)
    L, found = factors_of(DOUBLE.asarray(A))
    assert found.get()
    assert np.array_equal(L.get(), np.linalg.cholesky(A))


GARBAGE = {
    "what was there": lambda L: np.full_like(L, 7.0),
    "zeros": np.zeros_like,
    "NaN": lambda L: np.full_like(L, np.nan),
    "a column not reached": lambda L: np.concatenate([L[:, :-1], 0 * L[:, -1:]], axis=1),
    "the last row unfinished": lambda L: np.concatenate([L[:-1], (L @ L.T)[-1:]]),
    "a digit lost": lambda L: L * (1 + 1e-12),
    "one entry off": lambda L: L + 1e-11 * np.eye(len(L))[::-1] * np.tri(len(L)),
    "of −L": lambda L: -L,
}


@pytest.mark.parametrize("change", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-250])
def test_wrong_ones_do_not(monkeypatch, change, scale):
    A = scale * _matrix(5, 30.0)
    _left(monkeypatch, change)
    with np.errstate(all="ignore"):
        L, found = factors_of(DOUBLE.asarray(A))
    assert not found.get()
    assert np.array_equal(L.get(), np.eye(5))


def test_rounding_is_no_fault(monkeypatch):
    """A factor as another library would round it: each entry off by two units in the last place of its row."""
    A = _matrix(5, 1e6)
    sign = np.sign(np.random.default_rng(79).standard_normal((5, 5)))
    _left(monkeypatch, lambda L: L + 2 * EPS * sign * np.linalg.norm(L, axis=-1, keepdims=True) * np.tri(5) / 4)
    assert factors_of(DOUBLE.asarray(A))[1].get()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_of_a_matrix_does_not_matter(dtype, scale):
    """The host's verdict on matrices a little over and under what has a factor, in any units."""
    eps = float(np.finfo(dtype).eps)
    A = np.stack([_matrix(6, 10.0, seed) - shift * np.eye(6) for seed in (5, 7) for shift in (0.9, 1.1)])
    A = (scale * A).astype(dtype)
    A = 0.5 * (A + np.swapaxes(A, -1, -2))
    wanted = [np.linalg.eigvalsh(each)[0] > 0 for each in A.astype(float)]
    L, found = factors_of(DOUBLE.asarray(A))
    assert list(found.get()) == wanted == [True, False, True, False]
    for factor, each in zip(L.get()[::2], A[::2], strict=True):
        assert np.abs(factor @ factor.T - each).max() <= 8 * 7 * eps * np.abs(each).max()
    host, there = factors_of(A)
    assert list(there) == wanted
    assert np.array_equal(host[1], np.eye(6, dtype=dtype))


def test_matrices_nobody_can_factor_stay_alone_in_a_batch():
    """Infinite, indefinite and good ones, two right-hand sides each, one of them not finite."""
    A = np.stack([np.diag([np.inf, 1.0]), np.diag([1.0, -2.0]), np.diag([4.0, 1.0])])
    b = np.array([[[1.0, 2.0]] * 3, [[1.0, 2.0], [np.nan, 1.0], [3.0, 1.0]]])
    plain, device = Cholesky()(A, b), Cholesky()(DOUBLE.asarray(A), DOUBLE.asarray(b))
    assert np.array_equal(device.status, plain.status)
    assert device.status[0, 1] is Status.INDEFINITE
    for one, two in ((device.value, plain.value), (device.smallest_eigenvalue, plain.smallest_eigenvalue)):
        assert np.array_equal(np.isnan(one.get())[:, [0, 2]], np.isnan(two)[:, [0, 2]])
    assert np.abs(device.value.get()[:, 2] - plain.value[:, 2]).max() <= 4 * EPS
    assert device.smallest_eigenvalue.get()[0, 1] == plain.smallest_eigenvalue[0, 1] == -2
    assert np.isnan(device.condition.get()[:, :2]).all()
