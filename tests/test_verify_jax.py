"""Candidates written in JAX, under `verify`."""

import numpy as np
import pytest
from foreign_scenes import EPS, TREE, library, ridge

from implicit_grad import EXACT, errors
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import Fault, Verdict, jax_candidate, verify


@pytest.fixture
def jax():
    """JAX as it is where nobody has set anything: in 32 bits."""
    jax = library("jax")
    assert not jax.config.jax_enable_x64
    return jax


class TestJax:
    def test_without_64_bits_the_answer_is_single_and_says_so(self, jax, rng):
        theta = rng.normal(size=5)
        assert jax_candidate(jax.jit(lambda t: 2 * t))(theta).dtype == np.float32
        with pytest.raises(errors.ArgumentTypeError, match="jax_enable_x64"):
            jax_candidate(lambda t: t, dtype=np.float64)(theta)
        with pytest.raises(errors.ArgumentTypeError, match="dtype: expected float64 or float32"):
            jax_candidate(lambda t: t, dtype=int)

    def test_with_64_bits_the_answer_is_the_librarys(self, jax, rng):
        problem = ridge(rng, 2.5)
        theta = rng.normal(size=4)
        theta.flags.writeable = False
        with jax.enable_x64(True):
            jnp = jax.numpy

            def meta_loss(theta):
                X, y, Xt, yt = problem.inner.X, problem.inner.y, problem.outer.X, problem.outer.y
                phi = jnp.linalg.solve(X.T @ X / 12 + 2.5 * jnp.eye(4), X.T @ y / 12 + 2.5 * theta)
                return 0.5 * jnp.mean((Xt @ phi - yt) ** 2)

            candidate = jax_candidate(jax.jit(jax.grad(meta_loss)))
            gradient = candidate(theta)
            single = jax_candidate(jax.grad(meta_loss), dtype="float32")(theta)
            reached = jax_candidate(lambda tree: jax.tree.map(lambda leaf: 2 * leaf, tree), like=TREE)
            vector, _ = flatten(TREE)
            assert np.array_equal(reached(vector), 2 * vector)
        exact = EXACT(problem, theta).gradient
        allowed = 64 * EPS * np.linalg.cond(problem.inner.X) ** 2 * np.linalg.norm(exact)
        assert np.linalg.norm(gradient - exact) <= allowed
        assert gradient.flags.writeable
        assert gradient.dtype == np.float64
        assert single.dtype == np.float32

    def test_verify_judges_float32_as_float32(self, jax, rng):
        problem, jnp = ridge(rng, 0.6), jax.numpy
        X, y = problem.inner.X, problem.inner.y
        Xt, yt = problem.outer.X, problem.outer.y

        def meta_gradient(theta, scale=1.0):
            A = X.T @ X / 12 + 0.6 * jnp.eye(4)
            phi = jnp.linalg.solve(A, X.T @ y / 12 + 0.6 * theta)
            return scale * 0.6 * jnp.linalg.solve(A, Xt.T @ (Xt @ phi - yt) / 12)

        theta = rng.normal(size=4)
        right = verify(jax_candidate(meta_gradient), problem, theta)
        assert right.verdict is Verdict.PASS
        assert Fault.COARSE in right
        assert right.error > 1e-9
        off = verify(jax_candidate(lambda theta: meta_gradient(theta, 1.001)), problem, theta)
        assert off.verdict is Verdict.FAIL

    def test_traced_values_cannot_escape(self, jax):
        leaked = []

        def leaky(theta):
            jax.jit(lambda t: leaked.append(t))(theta)
            return leaked[0]

        with pytest.raises(errors.CandidateError, match="gradient: expected real numbers"):
            jax_candidate(leaky)(np.ones(2))
