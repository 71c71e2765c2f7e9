"""Fixed points φ = Φ(φ, θ), attracting or not, and their derivatives."""

import autograd.numpy as anp
import numpy as np
import pytest
from stationarity_maps import EPS

from implicit_grad import AutodiffMap, FixedPoint, GeneralGMRES, GeneralLU, ImplicitFunction, NewtonRoot

W = np.array([[0.3, -0.7, 0.1], [0.6, 0.2, -0.5], [-0.3, 0.4, 0.3]])
U = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.2]])


def layer(phi, theta):
    """One layer of an equilibrium network, with a nonsymmetric W."""
    return anp.tanh(anp.dot(W, phi) + anp.dot(U, theta))


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(3), GeneralGMRES(9, 1e-13)], ids=lambda s: s.label)
def test_a_fixed_point_has_the_derivative_of_its_closed_form(solver):
    """(I − DW)⁻¹DU with D = diag(1 − φ²), and central differences of the iteration run to its end."""
    theta = np.array([0.4, -0.3])

    def iterate(t):
        phi = np.zeros(3)
        for _ in range(2000):
            phi = np.tanh(W @ phi + U @ t)
        return phi

    phi, F = iterate(theta), FixedPoint(AutodiffMap(layer))
    D = 1 - phi[:, None] ** 2
    J = np.linalg.solve(np.eye(3) - D * W, D * U)
    function, kappa = ImplicitFunction(F, solver), np.linalg.cond(np.eye(3) - D * W)
    for i, axis in enumerate(np.eye(3)):
        row = function.vjp(phi, theta, axis).unwrap()
        assert np.linalg.norm(row - J[i]) <= 64 * 3 * kappa * EPS * np.linalg.norm(J)
    for j, axis in enumerate(np.eye(2)):
        column = function.jvp(phi, theta, axis).unwrap()
        assert np.linalg.norm(column - J[:, j]) <= 64 * 3 * kappa * EPS * np.linalg.norm(J)
        h = 1e-3
        slope = (8 * (iterate(theta + h * axis) - iterate(theta - h * axis))) / (12 * h)
        slope -= (iterate(theta + 2 * h * axis) - iterate(theta - 2 * h * axis)) / (12 * h)
        # The next term is h⁴ times a fifth derivative of order 4!·κ⁵; the rounding, κ·eps/h.
        assert np.linalg.norm(slope - column) <= 24 * kappa**5 * h**4 + 8 * kappa * EPS / h
    found = NewtonRoot()(F, theta, np.zeros(3))
    assert np.linalg.norm(found.unwrap() - phi) <= 64 * kappa * EPS * np.linalg.norm(phi)


def test_a_fixed_point_need_not_attract():
    """Φ = 3φ − θ: iterating explodes, φ* = θ/2 all the same."""
    F = FixedPoint(AutodiffMap(lambda p, t: 3 * p - t))
    theta = np.array([1.0, -4.0])
    phi = NewtonRoot()(F, theta, np.zeros(2))
    assert np.array_equal(phi.unwrap(), [0.5, -2.0])
    assert np.array_equal(ImplicitFunction(F).vjp(phi, theta, np.array([1.0, 3.0])).unwrap(), [0.5, 1.5])


def test_fixed_points_of_fixed_points_keep_their_batch():
    many = AutodiffMap(lambda p, t: anp.tanh(0.5 * p[..., ::-1] + t), broadcasts=True)
    theta = np.linspace(-1, 1, 8).reshape(4, 2)
    F = FixedPoint(many)
    phi = NewtonRoot()(F, theta, np.zeros(2))
    loop = FixedPoint(AutodiffMap(lambda p, t: anp.tanh(0.5 * p[::-1] + t)))
    again = NewtonRoot()(loop, theta, np.zeros(2))
    assert np.array_equal(phi.unwrap(), again.unwrap())
    one, two = (ImplicitFunction(f).vjp(phi, theta, np.ones(2)) for f in (F, loop))
    assert np.linalg.norm(one.unwrap() - two.unwrap()) <= 16 * EPS * np.linalg.norm(one.value)
