"""Strategies produce what they claim: spectra, scales, batches, and problems with a known answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from implicit_grad import EXACT
from implicit_grad.testing import (
    batch_shapes,
    indefinite_spectra,
    lambdas,
    linear_systems,
    logistic_problems,
    mlp_problems,
    ridge_problems,
    scales,
    singular_spectra,
    softmax_problems,
    spd_matrices,
)
from implicit_grad.testing.closed_forms import Logistic
from implicit_grad.testing.matrices import UNIT, Clustered, LinearSystem, describe_matrix
from implicit_grad.testing.problems import LogisticSpec
from implicit_grad.testing.strategies import clustered_spectra

ANY_SPECTRUM = st.one_of(clustered_spectra(8), singular_spectra(), indefinite_spectra())


@given(system=linear_systems(spectrum=ANY_SPECTRUM, log10_scale=scales(), batch_shape=batch_shapes()))
def test_the_spectrum_is_the_one_prescribed(system):
    """Weyl: |μ̂ − μ| ≤ 64·N·u·‖A‖, at every scale up to 1e±150."""
    A, exact = system.matrix(), np.sort(system.eigenvalues)
    assert A.shape == (*system.batch_shape, system.size, system.size)
    assert np.array_equal(A, np.swapaxes(A, -1, -2))
    assert np.abs(np.linalg.eigvalsh(A) - exact).max() <= 64 * system.size * UNIT * 10.0**system.log10_scale
    if exact.any():
        assert np.abs(exact).max() == pytest.approx(10.0**system.log10_scale, rel=4 * UNIT)


@given(system=linear_systems(spectrum=clustered_spectra()))
def test_clusters(system):
    assert len(set(system.eigenvalues)) <= system.spectrum.clusters
    assert (system.eigenvalues > 0).all()


@given(system=linear_systems(size=st.integers(2, 8), spectrum=indefinite_spectra()))
def test_saddles_have_a_negative_eigenvalue(system):
    smallest = np.linalg.eigvalsh(system.matrix())[0]
    assert smallest <= np.abs(system.eigenvalues).min() * -0.99


@given(system=linear_systems(spectrum=singular_spectra()))
def test_singular_matrices_have_a_null_space(system):
    assert (system.eigenvalues == 0).any()
    assert system.condition == np.inf


@given(A=spd_matrices(size=st.just(3), batch_shape=st.just((2,))))
def test_matrices_are_definite(A):
    assert A.shape == (2, 3, 3)
    assert (np.linalg.eigvalsh(A) > 0).all()


@given(lam=lambdas(3))
def test_lambdas(lam):
    assert 1e-3 * (1 - 8 * UNIT) <= lam <= 1e3 * (1 + 8 * UNIT)


@pytest.mark.parametrize("problems", [ridge_problems(), logistic_problems(), softmax_problems()], ids=str)
def test_problems_know_their_meta_gradient(problems):
    @given(case=problems)
    def check(case):
        estimate = EXACT(case.problem, case.theta)
        assert np.linalg.norm(estimate.gradient - case.g) <= case.tol_exact()

    check()


@given(case=mlp_problems())
def test_networks_have_a_strict_minimum(case):
    A = case.problem.curvature(case.theta).dense()
    assert np.linalg.eigvalsh(A)[0] > 0
    assert repr(case.spec) in repr(case)


def test_the_logistic_oracle_is_the_derivative_of_its_value():
    """Complex steps of the value and the gradient, to 64·N·u of their terms."""
    X, y, _, _, theta = LogisticSpec(size=4, n=7, log10_margin=1, seed=6).data()
    loss, h = Logistic(X, y), 1e-30
    slope = np.array([loss.value(theta + 1j * h * e).imag / h for e in np.eye(4)])
    H = np.array([loss.gradient(theta + 1j * h * e).imag / h for e in np.eye(4)])
    assert np.abs(slope - loss.gradient(theta)).max() <= 256 * UNIT * loss.gradient_rounding(theta)
    assert np.abs(H - loss.hessian(theta)).max() <= 256 * UNIT * loss.curvature * (1 + np.linalg.norm(X @ theta))


def test_descriptions_show_the_matrix_and_its_spectrum():
    system = LinearSystem(size=2, spectrum=Clustered(1, 2))
    assert "spectrum of A: (1, 0.1)" in system.describe()
    assert "7 by 7" in describe_matrix("A", np.eye(7))
