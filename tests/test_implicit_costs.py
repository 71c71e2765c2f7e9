"""Evaluations and products of implicit functions and of Newton's method, counted one by one."""

from collections import Counter
from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest

from implicit_grad import CG, AutodiffMap, Cholesky, GeneralGMRES, GeneralLU, ImplicitFunction, NewtonRoot


class CountingMap:
    """A map that counts for how many problems it was evaluated, linearised and multiplied."""

    def __init__(self, F):
        self.F, self.calls = F, Counter()

    def value(self, phi, theta):
        self.calls["gradients"] += int(np.prod(phi.shape[:-1]))
        return self.F.value(phi, theta)

    def linearize(self, phi, theta):
        self.calls["gradients"] += int(np.prod(phi.shape[:-1]))
        return self._counted(self.F.linearize(phi, theta))

    def _counted(self, at):
        def count(product):
            def apply(v):
                self.calls["hvps"] += int(np.prod(v.shape[:-1]))
                return product(v)

            return apply

        names = ("phi_product", "phi_adjoint", "theta_product", "theta_adjoint")
        row = None if at.row is None else lambda index: self._counted(at.row(index))
        return replace(at, **{name: count(getattr(at, name)) for name in names}, row=row)


@pytest.mark.parametrize(
    "solver", [GeneralLU(), GeneralLU(3), GeneralGMRES(2), GeneralGMRES(5, 1e-9), CG(2), Cholesky()], ids=str
)
@pytest.mark.parametrize("batch", [(), (4,)])
def test_costs_are_counted_exactly(solver, batch):
    """Per problem of the batch; every solver takes the same number of products for each of these problems."""
    A = np.array([[2.0, 0.5, 0.0], [0.5, 3.0, 1.0], [0.0, 1.0, 4.0]])
    theta = np.broadcast_to(np.array([1.0, -2.0, 0.5]), (*batch, 3))
    phi = np.broadcast_to(np.linalg.solve(A, theta[..., None])[..., 0], (*batch, 3))
    for derive in (
        lambda f: f.vjp(phi, theta, np.arange(1.0, 4)),
        lambda f: f.jvp(phi, theta, np.arange(1.0, 4)),
        lambda f: f.judge(phi, theta),
    ):
        F = CountingMap(AutodiffMap(lambda p, t: anp.dot(A, p) - t))
        cost = derive(ImplicitFunction(F, solver)).cost
        assert {what: n / int(np.prod(batch)) for what, n in F.calls.items()} == {
            "gradients": cost.gradients,
            "hvps": cost.hvps,
        }


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(2)], ids=str)
@pytest.mark.parametrize("start", [0.5, 3.0, -40.0])
def test_costs_of_newton_are_counted_exactly(solver, start):
    F = CountingMap(AutodiffMap(lambda p, t: anp.exp(p) + p[::-1] - t))
    root = NewtonRoot(linear_solver=solver)(F, np.array([2.0, 1.0]), np.full(2, start))
    assert {"gradients": root.cost.gradients, "hvps": root.cost.hvps} == dict(F.calls)


def test_f_is_evaluated_once_for_each_argument():
    """However many products are asked for: the second trace is made when ∂_θF is first wanted."""
    calls = Counter()

    def F(p, t):
        calls["F"] += 1
        return p**3 - t

    at = AutodiffMap(F).linearize(np.array([2.0, 1.0]), np.array([8.0, 1.0]))
    for v in np.eye(2):
        at.phi_product(v)
        at.phi_adjoint(v)
    assert calls["F"] == 1
    for v in np.eye(2):
        at.theta_product(v)
        at.theta_adjoint(v)
    assert calls["F"] == 2
    assert np.array_equal(at.phi_product(np.ones(2)), [12.0, 3.0])
