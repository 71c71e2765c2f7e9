"""What the user's own code does: its exceptions come out as they are, and it cannot write into θ."""

import autograd.numpy as anp
import numpy as np
import pytest
from bad_input_scenes import autodiff
from oracles.losses import Diagonal

from implicit_grad import (
    CG,
    EXACT,
    LBFGS,
    LU,
    MINRES,
    Adam,
    Autodiff,
    BilevelProblem,
    FiniteDifferenceGradient,
    GradientDescent,
    MetaGradient,
    Neumann,
    Newton,
    NewtonCG,
    ScipyCG,
    ScipyMinimize,
)


class Mine(Exception):
    pass


@pytest.mark.parametrize("signal", [Mine, KeyboardInterrupt, StopIteration, MemoryError])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_rows_33_and_34_what_the_user_raises_comes_out_as_it_is(signal, after):
    """From a loss, at the first call or in the middle of a solve; no method here takes a callback."""
    thrown = signal("own")
    calls = []

    class Raising(Diagonal):
        def _call(self):
            calls.append(None)
            if len(calls) > after:
                raise thrown

        def value(self, x):
            self._call()
            return super().value(x)

        def gradient(self, x):
            self._call()
            return super().gradient(x)

        def linearize(self, x):
            self._call()
            return super().linearize(x)

    def traced(w):
        calls.append(None)
        if len(calls) > after:
            raise thrown
        return anp.sum(w**4)

    inner_solvers = (
        GradientDescent(0.01, 9),
        Newton(),
        ScipyMinimize("L-BFGS-B"),
        LBFGS(9),
        NewtonCG(9),
        Adam(0.1, 9),
    )
    for loss in (Raising(np.array([1.0, 3.0]), 1.0), Autodiff(traced)):
        for solver in inner_solvers:
            calls.clear()
            method = MetaGradient(solver, FiniteDifferenceGradient(solver))
            with pytest.raises(signal) as caught:
                method(BilevelProblem(loss, loss, 0.7), np.array([0.3, -0.8]))
            assert caught.value is thrown

    def operator(v):
        raise thrown

    for solver in (CG(3), ScipyCG(3), MINRES(3), LU(), Neumann(0.1, 3)):
        with pytest.raises(signal) as caught:
            solver(operator, np.ones(2))
        assert caught.value is thrown


def test_row_32_a_loss_that_writes_into_theta():
    def vandal(w):
        w[0] = 0.0
        return anp.sum(w)

    theta = np.ones(2)
    with pytest.raises((ValueError, TypeError)):
        EXACT(autodiff(vandal), theta)
    assert theta.tolist() == [1, 1]
