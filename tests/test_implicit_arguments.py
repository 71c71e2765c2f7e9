"""What implicit functions take, what they refuse by name, and what they leave alone."""

import autograd.numpy as anp
import numpy as np
import pytest
from stationarity_maps import square_root

from implicit_grad import (
    CG,
    ArgumentError,
    ArgumentTypeError,
    AutodiffMap,
    Cholesky,
    FixedPoint,
    GeneralLU,
    ImplicitFunction,
    LinearizedMap,
    LossError,
    NewtonRoot,
    NonFiniteError,
    StationarityMap,
)


@pytest.mark.parametrize(
    ("F", "error"),
    [
        (lambda p, t: None, "expected a real array"),
        (lambda p, t: "x", "expected a real array"),
        (lambda p, t: 1.0, "expected a real array"),
        (lambda p, t: p * 1j, "expected a real array"),
        (lambda p, t: anp.sum(p), "expected a real array|shape"),
        (lambda p, t: p[:1], r"returned shape \(1,\)"),
        (lambda p, t: anp.outer(p, t), r"returned shape \(2, 2\)"),
    ],
)
def test_a_map_that_returns_something_else_is_explained(F, error):
    with pytest.raises(LossError, match=error):
        ImplicitFunction(AutodiffMap(F)).vjp(np.ones(2), np.ones(2), np.ones(2))


def test_bad_arguments_are_refused_by_name():
    F = AutodiffMap(square_root)
    function = ImplicitFunction(F)
    for bad, error, name in (
        (np.array([np.nan, 1.0]), NonFiniteError, "phi"),
        (np.array([1j, 1.0]), ArgumentTypeError, "phi"),
        (np.array(["a"]), ArgumentTypeError, "phi"),
        (np.ones((3, 2)), ArgumentError, "phi"),
        (np.ones(2, dtype=np.float32), ArgumentTypeError, "phi"),
    ):
        with pytest.raises(error, match=name):
            function.vjp(bad, np.ones((2, 2)), np.ones(2))
    with pytest.raises(NonFiniteError, match="theta"):
        function.vjp(np.ones(2), [np.inf, 1.0], np.ones(2))
    with pytest.raises(ArgumentError, match="v: expected shape"):
        function.vjp(np.ones(2), np.ones(2), np.ones(3))
    with pytest.raises(ArgumentError, match="w: shape"):
        function.jvp(np.ones(2), np.ones(2), np.ones((3, 2)))
    with pytest.raises(ArgumentTypeError, match=r"F: expected a map.*AutodiffMap"):
        ImplicitFunction(square_root)
    with pytest.raises(ArgumentTypeError, match="update: expected a map"):
        FixedPoint(square_root)
    with pytest.raises(ArgumentTypeError, match="F: expected a callable"):
        AutodiffMap(3.0)
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        ImplicitFunction(F, GeneralLU)
    with pytest.raises(ArgumentError, match="rtol"):
        ImplicitFunction(F, rtol=1.5)
    with pytest.raises(ArgumentTypeError, match="outer"):
        function.gradient(np.ones(2), np.ones(2), 3.0)
    with pytest.raises(LossError, match="shape"):
        function.gradient(np.ones(2), np.ones(2), lambda p, t: p)
    with pytest.raises(ArgumentTypeError, match="max_steps"):
        NewtonRoot(max_steps=2.5)
    assert isinstance(F, StationarityMap)
    assert isinstance(F.linearize(np.ones(2), np.ones(2)), LinearizedMap)


def test_arguments_are_left_alone_and_may_be_integers():
    F = AutodiffMap(square_root)
    phi, theta, v = np.array([2.0, 3.0]), np.array([4.0, 9.0]), np.array([1.0, 6.0])
    for array in (phi, theta, v):
        array.flags.writeable = False
    assert ImplicitFunction(F).vjp(phi, theta, v).unwrap().tolist() == [0.25, 1.0]
    assert ImplicitFunction(F).vjp([2, 3], [4, 9], [1, 6]).unwrap().tolist() == [0.25, 1.0]
    wide = np.zeros((2, 4))
    wide[:, ::2] = phi, theta
    assert ImplicitFunction(F).vjp(wide[0, ::2], wide[1, ::2], v).unwrap().tolist() == [0.25, 1.0]

    def mutating(p, t):
        p[0] = 7.0
        return p - t

    with pytest.raises((ValueError, TypeError)):
        ImplicitFunction(AutodiffMap(mutating)).vjp(phi, theta, v)


def test_float32_is_kept():
    phi, theta, v = (np.array(a, dtype=np.float32) for a in ([2.0], [4.0], [1.0]))
    for solver in (GeneralLU(), Cholesky(), CG(2)):
        derivative = ImplicitFunction(AutodiffMap(square_root), solver).vjp(phi, theta, v)
        assert derivative.value.dtype == np.float32
        assert derivative.unwrap() == 0.25
