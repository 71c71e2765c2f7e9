"""Regularisers against their formulas in 50 digits, differentiated there by mpmath."""

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    DiagonalQuadratic,
    LogCosh,
    NonFiniteError,
    PseudoHuber,
    Quadratic,
    Regularizer,
    RelativeEntropy,
)

EPS = float(np.finfo(float).eps)

FORMULAS = {
    Quadratic: lambda lam, s, p, t: lam / 2 * (p - t) ** 2,
    DiagonalQuadratic: lambda lam, s, p, t: lam / 2 * (p - t) ** 2,
    LogCosh: lambda lam, s, p, t: lam * s**2 * mpmath.log(mpmath.cosh((p - t) / s)),
    PseudoHuber: lambda lam, s, p, t: lam * s**2 * (mpmath.sqrt(1 + ((p - t) / s) ** 2) - 1),
    RelativeEntropy: lambda lam, s, p, t: lam * (p * mpmath.log(p / t) - p + t),
}
KINDS = pytest.mark.parametrize("kind", FORMULAS, ids=lambda k: k.__name__)


def make(kind, lam, s):
    if kind is DiagonalQuadratic:
        return kind([lam])
    return kind(lam, s) if kind in (LogCosh, PseudoHuber) else kind(lam)


@KINDS
@given(
    log10_lam=st.integers(-9, 9),
    log2_s=st.integers(-3, 3),
    theta=st.floats(0.01, 100),
    z=st.one_of(st.floats(-30, 30), st.floats(-1e-6, 1e-6)),
)
@example(log10_lam=2, log2_s=0, theta=0.5, z=0.0)
@example(log10_lam=-3, log2_s=1, theta=3.0, z=1.0)
def test_value_and_derivatives_agree_with_fifty_digits(kind, log10_lam, log2_s, theta, z):
    lam, s = 10.0**log10_lam, 2.0**log2_s
    # An entropy lives on positive numbers: there the step multiplies.
    phi = theta * float(np.exp(z / 10)) if kind is RelativeEntropy else theta + s * z
    p, t, R = np.array([phi]), np.array([theta]), make(kind, lam, s)
    with mpmath.workdps(50):
        arguments = mpmath.mpf(phi), mpmath.mpf(theta)

        def formula(a, b):
            return FORMULAS[kind](mpmath.mpf(lam), mpmath.mpf(s), a, b)

        wanted = {
            "value": formula(*arguments),
            "gradient": mpmath.diff(formula, arguments, (1, 0)),
            "curvature": mpmath.diff(formula, arguments, (2, 0)),
            "coupling": -mpmath.diff(formula, arguments, (1, 1)),
        }
        found = {
            "value": R.value(p, t),
            "gradient": R.gradient(p, t)[0],
            "curvature": R.curvature(p, t)[0],
            "coupling": R.coupling(p, t)[0],
            "strength": np.ravel(R.by_strength(p, t, np.array([1.0])))[0],
        }
        wanted["strength"] = wanted["gradient"] / lam
        # φ − θ is rounded once and sech² z loses 2|z| of that; the entropy's value cancels twice over.
        distance = abs(phi - theta) / s
        for name, exact in wanted.items():
            allowed = 16 * EPS * (1 + distance) * abs(exact)
            if kind is RelativeEntropy and name == "value":
                allowed = 16 * EPS * lam * abs(phi - theta)
            assert abs(found[name] - exact) <= allowed + mpmath.mpf(10) ** -40 * lam, name


@KINDS
def test_the_penalty_is_least_at_theta(kind):
    rng = np.random.default_rng(7)
    R, theta = make(kind, 0.3, 0.5), rng.uniform(0.1, 3, size=(50, 1))
    assert np.array_equal(R.value(theta, theta), np.zeros(50))
    assert np.array_equal(R.gradient(theta, theta), np.zeros((50, 1)))
    phi = theta * rng.uniform(0.3, 0.9, size=(50, 1))
    assert (R.value(phi, theta) > 0).all()
    assert (R.gradient(phi, theta) < 0).all()
    assert (R.curvature(phi, theta) > 0).all()
    assert (R.coupling(phi, theta) > 0).all()


def test_only_the_entropy_couples_otherwise_than_it_curves():
    """A regulariser of φ − θ has C = D: one that took D for C would pass every test without the entropy."""
    phi, theta = np.array([0.5, 2.0]), np.array([1.5, 1.0])
    for kind in FORMULAS:
        R = DiagonalQuadratic([0.3, 0.7]) if kind is DiagonalQuadratic else make(kind, 0.3, 0.5)
        same = np.array_equal(R.curvature(phi, theta), R.coupling(phi, theta))
        assert same is (kind is not RelativeEntropy)


def test_far_from_theta_nothing_overflows():
    phi, theta = np.array([1e300, -1e300]), np.zeros(2)
    R = LogCosh(0.5, 2.0)
    assert np.allclose(R.value(phi, theta), 2e300, rtol=4 * EPS, atol=0)
    assert np.array_equal(R.gradient(phi, theta), [1.0, -1.0])
    assert np.array_equal(R.curvature(phi, theta), [0.0, 0.0])
    near = PseudoHuber(0.5, 2.0)
    assert np.array_equal(near.gradient(phi[:1] * 1e-160, theta[:1]), [1.0])


def test_an_entropy_has_no_value_outside_its_domain():
    R, inside = RelativeEntropy(0.7), np.ones(3)
    outside = np.array([-1.0, 0.0, 2.0])
    for nowhere in (R.gradient(outside, inside), R.curvature(outside, inside), R.coupling(inside, outside)):
        assert np.isnan(nowhere).tolist() == [True, True, False]
    assert np.isnan(R.value(outside, inside))


@KINDS
def test_strengths_have_batch_axes_and_dtypes_are_kept(kind):
    lam = np.array([0.1, 0.7, 3.0])
    one = kind(lam[:, None] * np.ones(4)) if kind is DiagonalQuadratic else kind(lam)
    assert one.batch_shape == (3,)
    phi, theta = np.linspace(1, 2, 4), np.linspace(2, 1.5, 4)
    together = one.gradient(phi, theta)
    for i in range(3):
        single = kind(lam[i] * np.ones(4)) if kind is DiagonalQuadratic else kind(lam[i])
        assert np.array_equal(together[i], single.gradient(phi, theta))
        assert np.array_equal(one.value(phi, theta)[i], single.value(phi, theta))
    for method in (one.gradient, one.curvature, one.coupling, one.value):
        assert method(phi.astype(np.float32), theta.astype(np.float32)).dtype == np.float32


@KINDS
def test_bad_strengths_are_refused_by_name(kind):
    name = "weights" if kind is DiagonalQuadratic else "lam"
    for bad in ([0.0], [-1.0], [np.inf], [np.nan]):
        with pytest.raises((ArgumentError, NonFiniteError), match=name):
            kind(bad)
    for bad in ([1j], ["a"], [True]):
        with pytest.raises(ArgumentTypeError, match=name):
            kind(bad)
    assert isinstance(make(kind, 0.5, 2.0), Regularizer)


def test_bad_scales_are_refused_by_name():
    for kind in (LogCosh, PseudoHuber):
        with pytest.raises(ArgumentError, match="scale"):
            kind(0.5, 0.0)
        with pytest.raises(ArgumentTypeError, match="scale"):
            kind(0.5, [1.0, 2.0])
    with pytest.raises(ArgumentError, match="weights"):
        DiagonalQuadratic(0.5)
