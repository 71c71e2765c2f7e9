"""Namespaces and the few reductions everything rests on, on NumPy and on strict array-API arrays."""

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.fifty_digits import MP, exactly
from oracles.fifty_digits import norm as exact_norm
from oracles.scenes import EPS

from implicit_grad import BackendError, backend

NAMESPACES = pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
DIMENSIONS = st.integers(1, 9)
# Squares leave the range of float64, or its precision, near 2^±512 and 2^-485: those are drawn often.
EXPONENTS = st.integers(-1060, 1010) | st.integers(-545, -480) | st.integers(500, 520)
SEEDS = st.integers(2, 10**6)


def _numbers(seed, d, exponent, spread=0):
    """d numbers near 2^exponent, and smaller ones over `spread` binary orders."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 2, d) * rng.choice([-1, 1], d)
    return np.ldexp(x, exponent - rng.integers(0, spread + 1, d))


def test_the_namespace_is_that_of_the_arrays():
    strict = array_api_strict.asarray([1.0])
    assert backend.namespace(np.ones(2), 3.0, None) is np
    assert backend.namespace(np.float32(2), 1) is np
    assert backend.namespace(strict, 2.0).__name__ == "array_api_strict"
    assert backend.namespace() is np


def test_two_backends_are_one_clear_error():
    with pytest.raises(BackendError, match=r"\['array_api_strict', 'numpy'\]"):
        backend.namespace(np.ones(2), array_api_strict.asarray([1.0]))


@NAMESPACES
@given(seed=SEEDS, d=DIMENSIONS, exponent=EXPONENTS, spread=st.sampled_from([0, 5, 300]))
def test_norm_against_fifty_digits(xp, seed, d, exponent, spread):
    """Relative error ≤ (d + 4)·eps from 1e-319 to 1e304: nothing under- or overflows; gradually below 1e-308."""
    x = _numbers(seed, d, exponent, spread)
    got, wanted = float(backend.norm(xp.asarray(x))), exact_norm(exactly(x))
    assert abs(MP.mpf(got) - wanted) <= (d + 4) * EPS * wanted + MP.mpf(2) ** -1073


@NAMESPACES
@given(seed=SEEDS, d=DIMENSIONS)
def test_norm_of_a_batch_is_that_of_its_rows(xp, seed, d):
    """Bitwise on NumPy, rows of very different size side by side, zero and non-finite ones among them."""
    rows = [_numbers(seed + i, d, e) for i, e in enumerate((-1000, 0, 900, 3))]
    rows += [np.zeros(d), np.full(d, np.inf), np.full(d, np.nan)]
    together = backend.norm(xp.asarray(np.stack(rows)))
    for i, row in enumerate(rows):
        alone = float(backend.norm(xp.asarray(row)))
        assert float(together[i]) == alone or (np.isnan(alone) and np.isnan(float(together[i])))
    assert float(together[4]) == 0
    assert not np.isfinite(float(together[5]))
    assert np.isnan(float(together[6]))


@NAMESPACES
@given(seed=SEEDS, d=DIMENSIONS)
def test_dot_is_one_number_per_problem(xp, seed, d):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((2, 3, d)), rng.standard_normal((3, d))
    got = np.asarray(backend.dot(xp.asarray(x), xp.asarray(y)))
    assert got.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        exact = MP.fdot(exactly(x[i, j]), exactly(y[j]))
        sizes = np.abs(x[i, j] * y[j]).sum()
        assert abs(MP.mpf(float(got[i, j])) - exact) <= (d + 2) * EPS * sizes


@NAMESPACES
@given(seed=SEEDS, d=DIMENSIONS, exponent=st.integers(-1074, 1023), single=st.booleans())
def test_scales_are_powers_of_two_near_the_largest_entry(xp, seed, d, exponent, single):
    """Division by the scale is exact and brings max|x| into [½, 2]; it undoes itself bitwise above the subnormals."""
    dtype = np.float32 if single else np.float64
    low, high = (-149, 126) if single else (-1074, 1022)
    exponent = min(max(exponent, low), high)
    x = _numbers(seed, d, exponent).astype(dtype)
    scale = np.asarray(backend.power_of_two_scale(xp.asarray(x)))
    assert scale.dtype == dtype
    assert np.frexp(scale)[0] == 0.5
    y = x / scale
    assert 0.5 <= np.abs(y).max() <= 2
    assert np.array_equal(y * scale, x)


@NAMESPACES
def test_scales_of_zero_and_of_what_is_not_finite_are_one(xp):
    x = xp.asarray([[0.0, 0.0], [np.inf, 1.0], [np.nan, 1.0], [3.0, -5.0]])
    assert np.asarray(backend.power_of_two_scale(x)).tolist() == [1, 1, 1, 4]


@NAMESPACES
def test_expand_gives_a_fresh_array(xp):
    for x, shape in ((np.arange(3.0), (2, 3)), (np.arange(6.0).reshape(2, 3), (2, 3))):
        x = xp.asarray(x)
        full = backend.expand(x, shape)
        assert tuple(full.shape) == shape
        full[...] = -1.0
        assert float(xp.max(x)) > 0


@NAMESPACES
def test_arrays_go_to_the_host_and_back(xp):
    x = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(backend.to_numpy(xp.asarray(x)), x)
    assert np.array_equal(backend.to_numpy(backend.transpose(xp.asarray(x))), x.T)
    joined = backend.concatenate([xp.asarray(x), xp.asarray(np.array([7.0]))])
    assert np.array_equal(backend.to_numpy(joined), np.column_stack([x, [7, 7]]))


def test_a_device_array_goes_to_the_host_explicitly():
    """CuPy refuses `np.asarray`; its own transfer is used."""

    class OnDevice:
        def get(self):
            return np.arange(3.0)

        def __array__(self, *args, **kwargs):
            raise TypeError("implicit conversion to the host is not allowed")

    assert np.array_equal(backend.to_numpy(OnDevice()), np.arange(3.0))


def test_epsilon_is_that_of_the_dtype():
    assert backend.epsilon(np.ones(1)) == 2.0**-52
    assert backend.epsilon(np.ones(1, dtype=np.float32)) == 2.0**-23
