"""Oracles: no false alarm where all are right, and the wrong one named where one is not."""

from dataclasses import dataclass, replace
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from oracles import scenes

from implicit_grad import (
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    GradientDescent,
    agree,
    certify,
    check_problem,
    reference,
)
from implicit_grad.agreement import _ORACLES

CONVEX = {"ridge": scenes.ridge, "softmax": scenes.softmax}


@pytest.mark.parametrize("lam", scenes.LAMS, ids="{:.2g}".format)
@pytest.mark.parametrize("make", CONVEX.values(), ids=CONVEX)
def test_right_oracles_agree(make, lam):
    found = agree(make(lam).problem, make(lam).theta)
    assert found.agrees, str(found)
    assert not found.dissenters.any()
    assert found.resolved.sum() >= 4, str(found)


@pytest.mark.parametrize("make", CONVEX.values(), ids=CONVEX)
def test_no_oracle_is_further_off_than_its_floor(make):
    scene = make(0.37)
    found, exact = agree(scene.problem, scene.theta), reference(scene.problem, scene.theta)
    size = np.linalg.norm(exact.gradient)
    for name, g, floor in zip(found.oracles, found.gradients, found.floors, strict=True):
        assert np.isinf(floor) or exact.error(g) * size <= floor, name


@dataclass(frozen=True, eq=False)
class WrongProduct:
    """A loss whose Hessian-vector products are off by a factor, and whose gradient is right."""

    loss: Any
    factor: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loss, name)

    def value(self, x):
        return self.loss.value(x)

    def gradient(self, x):
        return self.loss.gradient(x)

    def linearize(self, x):
        at = self.loss.linearize(x)
        return replace(at, hvp=lambda v: self.factor * at.hvp(v), hessian=None, factor=None)

    def select(self, index, shape):
        return WrongProduct(self.loss.select(index, shape), self.factor)


def test_a_wrong_product_is_seen_by_oracles_that_use_none():
    scene = scenes.softmax(0.37)
    problem = replace(scene.problem, inner=WrongProduct(scene.problem.inner, 1.01))
    found = agree(problem, scene.theta)
    assert not found.agrees
    i, j = (found.oracles.index(name) for name in ("exact", "finite difference"))
    assert found.ratios[i, j] > 1
    assert found.ratios[found.oracles.index("contrastive"), j] <= 1


@pytest.mark.parametrize("factor", [1 + 1e-6, -1.0, 0.5])
def test_a_wrong_candidate_is_named(factor):
    scene = scenes.softmax(0.37)
    right = reference(scene.problem, scene.theta).gradient
    found = agree(scene.problem, scene.theta, candidates={"mine": factor * right, "fine": right})
    wrong = [name for name, out in zip(found.oracles, found.dissenters, strict=True) if out]
    assert wrong == ["mine"]
    assert "outside the consensus: mine" in str(found)


@pytest.mark.parametrize("factor", [0.0, 1e-20, 1e20, 1e300, np.nan, np.inf])
def test_a_candidate_of_any_size_is_named_and_sizes_nothing(factor):
    """Its own rounding is no measure of what oracles can tell; one that is not finite is not right either."""
    scene = scenes.ridge(0.37)
    without = ("contrastive", "finite difference")
    mine = {"mine": np.full(6, 1.0) * factor}
    found = agree(scene.problem, scene.theta, candidates=mine, without=without)
    alone = agree(scene.problem, scene.theta, without=without)
    assert not found.agrees
    assert np.array_equal(found.dissenters, [True] + [False] * len(alone.oracles))
    assert np.array_equal(found.resolved[1:], alone.resolved)
    assert "outside the consensus: mine" in str(found)


def test_where_no_oracle_answers_the_table_says_why():
    """A saddle, a loss without a lower bound, a kink, a solver that diverges, and nobody asked."""
    scene = scenes.ridge(0.37)
    test = Autodiff(lambda w: anp.sum(w))
    losses = (lambda w: w[0] ** 2 - w[1] ** 2, lambda w: -anp.sum(w**2), lambda w: anp.sum(anp.abs(w)))
    found = [
        *(agree(BilevelProblem(Autodiff(f), test, 0.5), np.array([0.0, 1.0])) for f in losses),
        agree(scene.problem, scene.theta, solver=GradientDescent(100.0, 1000)),
        agree(scene.problem, scene.theta, without=tuple(_ORACLES)),
    ]
    for none in found:
        assert none.oracles == ()
        assert not none.agrees
        assert none.dissenters.shape == (0,)
        assert "inconclusive" in str(none)
    assert "DIVERGED" in str(found[3])


def test_losses_without_a_closed_form_leave_two_oracles_out():
    scene = scenes.ridge(0.37)
    X, y = scene.problem.inner.X, scene.problem.inner.y
    loss = Autodiff(lambda w: 0.5 * ((X @ w - y) ** 2).mean())
    found = agree(BilevelProblem(loss, scene.problem.outer, 0.37), scene.theta, without=("exact", "unrolled limit"))
    assert set(found.left_out) == {"complex step", "reference"}
    assert found.oracles == ("contrastive", "finite difference") or "complex step" not in found.oracles


def test_a_batch_is_its_problems():
    scene = scenes.ridge(0.37)
    problem = replace(scene.problem, lam=np.array([0.37, 2.0]))
    both = agree(problem, scene.theta)
    one = agree(replace(scene.problem, lam=problem.lam[1]), scene.theta)
    assert both.floors.shape == (len(both.oracles), 2)
    assert np.array_equal(both.at((1,)).gradients, one.gradients)
    assert "problem (1,)" in str(both)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p, t: agree(p, t, without=("nothing",)), "without"),
        (lambda p, t: agree(p, t, candidates={"exact": t}), "candidates"),
        (lambda p, t: agree(p, t, candidates={"mine": np.ones(5)}), "candidates"),
        (lambda p, t: agree(p, t, candidates=[np.ones(6)]), "candidates"),
        (lambda p, t: agree(None, t), "problem"),
        (lambda p, t: reference(None, t), "problem"),
        (lambda p, t: certify(None, t, t), "problem"),
        (lambda p, t: check_problem(p.inner, t), "problem"),
        (lambda p, t: reference(p, t).error(np.ones(5)), "gradient"),
    ],
)
def test_bad_input(call, name):
    scene = scenes.ridge(0.37)
    with pytest.raises((ArgumentError, ArgumentTypeError), match=rf"^{name}"):
        call(scene.problem, scene.theta)
