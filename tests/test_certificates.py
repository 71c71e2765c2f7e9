"""Error bars: never crossed where they are called rigorous, sharp where they can be, and honest elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
from oracles.losses import Counting, Diagonal, Scaled

from implicit_grad import (
    CG,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    SoftmaxCrossEntropy,
    UnrolledGradient,
)
from implicit_grad.certificates import Constants, Kind, RandomLanczos, ShiftedCholesky, certify, closed_form_constants
from implicit_grad.tasks import Sinusoid

ESTIMATORS = (FirstOrderGradient(), ImplicitGradient(CG(1)), ImplicitGradient(CG(5)), ImplicitGradient(Cholesky()))
TO_ACCURACY = MetaGradient(GradientDescent(None, 1), ImplicitGradient(CG(1))).to_accuracy
REFERENCE = MetaGradient(Newton(1e-14), ImplicitGradient(Cholesky(refinements=3)))


def draw(rng, kind, tasks):
    """Random convex problems over four decades of scale and of λ, in one batch."""
    d, n, n_test = (int(rng.integers(low, high)) for low, high in ((2, 9), (2, 20), (2, 20)))
    scale = 10 ** rng.uniform(-1, 1, size=(tasks, 1, 1))
    X, Z = rng.normal(size=(tasks, n, d)) * scale, rng.normal(size=(tasks, n_test, d)) * scale
    lam = 10 ** rng.uniform(-2, 2, size=tasks)
    if kind == "ridge":
        losses = LeastSquares(X, rng.normal(size=(tasks, n))), LeastSquares(Z, rng.normal(size=(tasks, n_test)))
    else:
        C = 2 if kind == "logistic" else int(rng.integers(3, 5))
        losses = tuple(SoftmaxCrossEntropy(F, rng.integers(0, C, size=F.shape[:2]), C) for F in (X, Z))
    theta = rng.normal(size=(tasks, losses[0].size)) * 10 ** rng.uniform(-1, 1, size=(tasks, 1))
    return BilevelProblem(*losses, lam), theta


def audit(kind, seed, shrink=None, batches=1, tasks=100, **options):
    """Return the numbers of pairs, of crossings of either bound, and all ratios bound/error above rounding."""
    rng = np.random.default_rng(seed)
    pairs = crossed = 0
    ratios = []
    for _ in range(batches):
        problem, theta = draw(rng, kind, tasks)
        exact = REFERENCE(problem, theta)
        constants = closed_form_constants(problem)
        constants = constants if shrink is None else shrink(constants)
        for steps in (0, 3, 30, 300):
            inner = GradientDescent(None, steps)(problem, theta)
            for estimator in ESTIMATORS:
                g = estimator(problem, theta, inner).gradient
                error = np.linalg.norm(g - exact.gradient, axis=-1)
                found = certify(problem, theta, g, inner.value, constants=constants, **options)
                wrong = ((error > found.bound) | (error < found.lower)) & exact.ok
                pairs, crossed = pairs + int(exact.ok.sum()), crossed + int(wrong.sum())
                visible = exact.ok & (error > 1e-9 * np.linalg.norm(exact.gradient, axis=-1))
                ratios.append(found.bound[visible] / error[visible])
    return pairs, crossed, np.concatenate(ratios)


LEVELS = {
    "at φ": {"gradient_steps": 0},
    "L-BFGS on": {},
    "Newton on": {"newton_steps": 1, "two_sided": False},
    "enclosure": {"newton_steps": 6},
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["ridge", "logistic", "softmax"])
def test_rigorous_bounds_are_never_crossed(kind, level):
    tasks = 30 if level == "enclosure" else 60
    pairs, crossed, ratios = audit(kind, 20261124, tasks=tasks, **LEVELS[level])
    assert pairs > 15 * tasks
    assert crossed == 0
    assert np.median(ratios) < (1.1 if level == "enclosure" else 6)
    if level == "enclosure":
        # The rest are problems whose λ is so small beside the curvature that six damped steps do not reach φ*.
        assert np.mean(ratios < 1.1) > 0.8


@pytest.mark.parametrize("level", ["at φ", "L-BFGS on"])
@pytest.mark.parametrize(
    "shrink",
    [
        lambda c: replace(c, beta=0.5 * c.beta),
        lambda c: replace(c, beta=0.1 * c.beta),
        lambda c: replace(c, m=10 * c.m),
    ],
    ids=["β/2", "β/10", "10 m"],
)
def test_smaller_constants_are_crossed(shrink, level):
    """The audit has the power to see a wrong constant."""
    assert audit("logistic", 7, shrink, **LEVELS[level])[1] > 0


def test_the_sharp_instance():
    """One-dimensional logistic loss at p = (3 − √3)/6, a linear test loss, large λ: bound and error meet."""
    p = (3 - 3**0.5) / 6
    train = SoftmaxCrossEntropy(np.array([[1.0]]), np.array([0]), 2)
    z = np.log(p / (1 - p)) / 2
    test = Diagonal(np.zeros(2), np.array([1.0, -1.0]))
    lam, delta = 1e3, 1e-4
    direction = np.array([1.0, -1.0]) / 2**0.5
    star = z * np.array([1.0, -1.0])
    theta = star + train.gradient(star) / lam
    phi = star + delta * direction
    problem = BilevelProblem(train, test, lam)
    at = np.linalg.solve(problem.curvature(phi).dense(), lam * test.gradient(phi))
    exact = np.linalg.solve(problem.curvature(star).dense(), lam * test.gradient(star))
    rho = float(train.hessian_lipschitz())
    found = certify(problem, theta, at, phi, constants=Constants(lam, 0.0, rho))
    assert 1 <= found.bound / np.linalg.norm(at - exact) < 1.01
    smaller = certify(problem, theta, at, phi, constants=Constants(lam, 0.0, rho / 1.1))
    assert smaller.bound < np.linalg.norm(at - exact)


def _scene(seed=11):
    rng = np.random.default_rng(seed)
    return draw(rng, "softmax", 3)


def _single():
    problem, theta = _scene()
    return problem.select((1,), (3,)), theta[1]


def test_shares_add_up_and_name_the_culprit():
    problem, theta = _scene()
    few = GradientDescent(None, 2)(problem, theta)
    many = GradientDescent(None, 4000)(problem, theta)
    for inner, level in ((few, "at φ"), (many, "at φ"), (few, "L-BFGS on"), (few, "enclosure")):
        found = certify(problem, theta, ImplicitGradient(CG(2))(problem, theta, inner), **LEVELS[level])
        total = found.inner_share + found.linear_share + found.rounding_share
        assert np.allclose(total, found.bound, rtol=1e-12, atol=0)
    blame = certify(problem, theta, ImplicitGradient(Cholesky())(problem, theta, few))
    assert (blame.inner_share > blame.linear_share).all()
    blame = certify(problem, theta, ImplicitGradient(CG(1))(problem, theta, Newton()(problem, theta)))
    assert (blame.linear_share > blame.inner_share).all()


def test_any_gradient_from_anywhere():
    """A bare array with its φ, the unrolled gradient, a wrong gradient: the bound holds for all of them."""
    problem, theta = _scene()
    exact = REFERENCE(problem, theta).gradient
    inner = GradientDescent(None, 20, record=True)(problem, theta)
    for g in (UnrolledGradient()(problem, theta, inner).gradient, 2 * exact, -exact, 0 * exact):
        error = np.linalg.norm(g - exact, axis=-1)
        for options in LEVELS.values():
            found = certify(problem, theta, g, inner.value, **options)
            assert (found.lower <= error).all()
            assert (error <= found.bound).all()
    assert not certify(problem, theta, 0 * exact, inner.value).informative.any()


def test_the_enclosure_returns_the_better_gradient():
    problem, theta = _scene()
    exact = REFERENCE(problem, theta).gradient
    estimate = ImplicitGradient(CG(2))(problem, theta, GradientDescent(None, 30)(problem, theta))
    found = certify(problem, theta, estimate, newton_steps=4)
    before = np.linalg.norm(estimate.gradient - exact, axis=-1)
    assert (np.linalg.norm(found.gradient - exact, axis=-1) < 1e-3 * before).all()


def test_the_bound_falls_to_rounding_with_the_residuals():
    problem, theta = _scene()
    found = certify(problem, theta, REFERENCE(problem, theta))
    assert (found.rounding_share > 0.5 * found.bound).all()
    assert found.informative.all()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("estimator", [*ESTIMATORS, UnrolledGradient()], ids=lambda e: e.label)
def test_its_cost_is_what_a_counting_loss_sees(level, estimator):
    """Two products, whatever made the gradient; where Newton steps were asked for, what is stated and no more."""
    problem, theta = _single()
    train, test = Counting(problem.inner), Counting(problem.outer)
    estimate = estimator(problem, theta, GradientDescent(None, 3, record=True)(problem, theta))
    found = certify(BilevelProblem(train, test, problem.lam), theta, estimate, **LEVELS[level])
    assert train.calls["hvps"] == found.cost.hvps
    assert test.calls["hvps"] == 0
    assert train.calls["hessians"] == found.cost.hessians
    assert train.calls["gradients"] + test.calls["gradients"] == found.cost.gradients
    if level in ("at φ", "L-BFGS on"):
        assert found.cost.hvps == 2
        assert found.cost.hessians == 0


def test_with_constants_of_the_user_it_costs_no_more():
    """A loss that knows nothing of itself gets one product, a strategy of curvature states its own."""
    problem, theta = _single()
    known = closed_form_constants(problem)
    plain = Counting(Scaled(problem.inner, 1.0))
    inner = GradientDescent(0.1, 3)(problem, theta)
    g = ImplicitGradient(CG(2))(problem, theta, inner).gradient
    asked = BilevelProblem(plain, problem.outer, problem.lam)
    found = certify(asked, theta, g, inner.value, constants=Constants(known.m, known.beta, known.rho))
    assert plain.calls["hvps"] == found.cost.hvps == 1
    lanczos = RandomLanczos(steps=5, seed=3)
    plain.calls.clear()
    found = certify(
        asked, theta, g, inner.value, constants=Constants(known.m, known.beta, known.rho), curvature_bound=lanczos
    )
    assert plain.calls["hvps"] == found.cost.hvps == 1 + 5


def test_kinds():
    problem, theta = _scene()
    estimate = ImplicitGradient(CG(2))(problem, theta, GradientDescent(None, 30)(problem, theta))
    assert certify(problem, theta, estimate).kind is Kind.RIGOROUS
    mine = Constants(problem.lam, 10.0, 1.0)
    assert certify(problem, theta, estimate, constants=mine).kind is Kind.CONDITIONAL


def test_networks_get_an_estimate_and_say_so():
    rng = np.random.default_rng(13)
    source = Sinusoid(6, 6, (5,))
    problem, theta = source.sample(rng, tasks=6, lam=30.0), source.initial_parameters(rng)
    inner = GradientDescent(None, 150)(problem, theta)
    estimate = ImplicitGradient(CG(3))(problem, theta, inner)
    star = Newton(1e-13)(problem, theta, start=inner.value)
    exact = ImplicitGradient(Cholesky(refinements=2))(problem, theta, star).gradient
    found = certify(problem, theta, estimate)
    assert found.kind is Kind.ESTIMATE
    assert (np.linalg.norm(estimate.gradient - exact, axis=-1) <= found.bound).all()


def test_at_a_saddle_there_is_no_bound():
    loss = Diagonal(np.array([-3.0, 2.0]), 1.0)
    problem, theta = BilevelProblem(loss, loss, 0.5), np.zeros(2)
    found = certify(problem, theta, np.ones(2), np.zeros(2))
    assert found.kind is Kind.NONE
    assert np.isinf(found.bound)
    assert not found.informative


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p, t: certify(p, t, np.ones(3), t), "estimate"),
        (lambda p, t: certify(p, t, t), "phi"),
        (lambda p, t: certify(p, t, t, t, newton_steps=-1), "newton_steps"),
        (lambda p, t: certify(p, t, t, t, gradient_steps=-1), "gradient_steps"),
        (lambda p, t: certify(p, t, t, t, constants=3), "constants"),
        (lambda p, t: certify(p, t, t, t, constants=Constants(np.ones(7), 1.0, 1.0)), "constants: m"),
        (lambda p, t: certify(p, t, t, t, curvature_bound=ShiftedCholesky), "curvature_bound"),
        (lambda p, t: TO_ACCURACY(p, t, limit=5), "limit"),
        (lambda p, t: TO_ACCURACY(p, t, constants=3), "constants"),
        (lambda p, t: Constants(0.0, 1.0, 1.0), "m"),
        (lambda p, t: Constants(1.0, -1.0, 1.0), "beta"),
        (lambda p, t: Constants(1.0, 1.0, np.nan), "rho"),
    ],
)
def test_bad_input(call, name):
    problem, theta = _scene()
    if theta.shape[-1] == 3:
        theta = theta[..., :3]
    with pytest.raises((ArgumentError, ArgumentTypeError), match=rf"^{name}"):
        call(problem, theta)
