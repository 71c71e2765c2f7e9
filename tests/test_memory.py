"""Memory: flat in the inner steps for implicit gradients, a path's length for unrolled ones."""

import numpy as np
import pytest

from implicit_grad import (
    CG,
    BilevelProblem,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    UnrolledGradient,
)

SIZE = 8_000
FEW, MANY = 64, 1024


@pytest.fixture(scope="module")
def problem():
    """Four samples of 8,000 features: one vector is 64 kB, and all else is small beside it."""
    rng = np.random.default_rng(20190910)
    losses = [LeastSquares(rng.standard_normal((4, SIZE)) / SIZE**0.5, rng.standard_normal(4)) for _ in range(2)]
    problem = BilevelProblem(*losses, 0.7)
    for estimator in (ImplicitGradient(CG(2)), UnrolledGradient()):  # what is cached once is not counted
        MetaGradient(GradientDescent(0.3, 2, record=True), estimator)(problem, np.ones(SIZE))
    return problem


def peak(problem, method):
    """Peak of newly allocated bytes."""
    return method(problem, np.ones(SIZE)).cost.peak_bytes


def implicit(steps, max_steps=5):
    return MetaGradient(GradientDescent(0.3, steps), ImplicitGradient(CG(max_steps)), measure_memory=True)


def test_implicit_gradients_do_not_remember_the_inner_steps(problem):
    few, many = (peak(problem, implicit(steps)) for steps in (FEW, MANY))
    assert abs(many / few - 1) <= 0.02
    # A handful of vectors, whatever K is.
    assert few <= 20 * 8 * SIZE


def test_nor_the_linear_steps(problem):
    few, many = (peak(problem, implicit(4, max_steps)) for max_steps in (4, 64))
    assert abs(many / few - 1) <= 0.02


def test_a_record_of_a_few_steps_costs_a_few_vectors(problem):
    kept = MetaGradient(
        GradientDescent(0.3, MANY, record=(0, 512, MANY)), ImplicitGradient(CG(5)), measure_memory=True
    )
    extra = peak(problem, kept) - peak(problem, implicit(MANY))
    assert extra <= 2 * 3 * 8 * SIZE * 1.02


def test_unrolled_gradients_remember_every_step(problem):
    """One vector for every step more, within 2 %, and K + 1 of them at least."""
    few, many = (
        peak(problem, MetaGradient(GradientDescent(0.3, k, record=True), UnrolledGradient(), measure_memory=True))
        for k in (32, 128)
    )
    assert few >= 33 * 8 * SIZE
    assert abs((many - few) / (96 * 8 * SIZE) - 1) <= 0.02


def test_measuring_leaves_the_tracer_as_it_was(problem):
    import tracemalloc

    assert not tracemalloc.is_tracing()
    peak(problem, implicit(2))
    assert not tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        ballast = np.ones(100 * SIZE)  # what was there before is not the method's
        assert 0 < peak(problem, implicit(2)) < ballast.nbytes
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()
