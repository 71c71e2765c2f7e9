"""Argmins inside autograd programs that are wrong: nothing of them is let through."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import grad

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    AutodiffMap,
    Cholesky,
    ConvergenceError,
    IndefiniteError,
    Newton,
    NewtonRoot,
    NonFiniteError,
    implicit_function,
    outer_loss,
)
from implicit_grad.testing.problems import RidgeSpec

EPS = float(np.finfo(float).eps)


def test_a_solver_that_did_not_solve_is_refused():
    off = implicit_function(lambda t: np.sqrt(t) + 1e-3, lambda p, t: p**2 - t)
    with pytest.raises(ConvergenceError, match="MAX_STEPS"):
        off(4.0)
    allowed = implicit_function(lambda t: np.sqrt(t) + 1e-3, lambda p, t: p**2 - t, rtol=1e-2)
    assert abs(grad(allowed)(4.0) - 0.25) <= 1e-3  # first order in the error of φ

    def impatient(t):
        return NewtonRoot(max_steps=1)(AutodiffMap(lambda p, s: p**2 - s), t, np.ones(1))

    with pytest.raises(ConvergenceError, match="NewtonRoot"):
        implicit_function(impatient, lambda p, t: p**2 - t)(np.array([4.0]))


def test_a_saddle_is_refused_by_a_solver_for_curvatures():
    signs = np.array([1.0, -1.0])
    for solver in (Cholesky(), CG(3), CG(3, 1e-8)):
        star = implicit_function(lambda t: signs * t, lambda p, t: signs * p - t, solver)
        with pytest.raises(IndefiniteError):
            grad(lambda t, star=star: anp.sum(star(t)))(np.ones(2))


def test_a_singular_jacobian_is_refused():
    star = implicit_function(np.cbrt, lambda p, t: p**3 - t)
    with pytest.raises(ConvergenceError, match="NONFINITE"):
        grad(star)(0.0)


def test_bad_arguments_are_refused_by_name():
    def F(p, t):
        return p - t

    for arguments, name in (
        ((3.0, F), "solver"),
        ((np.sqrt, 3.0), "F"),
        ((np.sqrt, F, Cholesky), "linear_solver"),
        ((np.sqrt, F, None, True), "rtol"),
    ):
        with pytest.raises(ArgumentTypeError, match=name):
            implicit_function(*arguments)
    with pytest.raises(ArgumentError, match="F: returned shape"):
        implicit_function(lambda t: t, lambda p, t: anp.sum(p - t))(np.ones(2))
    with pytest.raises(ArgumentTypeError, match="solver"):
        implicit_function(lambda t: "x", F)(np.ones(2))
    for theta, error, name in (
        (np.array([1j]), ArgumentTypeError, "theta"),
        ({"a": 1.0, "b": "x"}, ArgumentTypeError, r"theta\['b'\]"),
        ([1.0, np.array([np.nan])], NonFiniteError, r"theta\[1\]"),
    ):
        with pytest.raises(error, match=name):
            implicit_function(lambda t: t, F)(theta)
    problem = RidgeSpec().build().problem
    with pytest.raises(ArgumentTypeError, match="problem"):
        outer_loss(F, EXACT)
    with pytest.raises(ArgumentTypeError, match="method"):
        outer_loss(problem, Newton())
