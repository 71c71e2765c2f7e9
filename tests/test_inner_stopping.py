"""One vocabulary to stop by: steps, `rtol` on ∇G, and a proven `distance` from φ*; and none of them lies."""

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import scenes
from oracles.losses import Counting, Diagonal
from oracles.scenes import EPS

import implicit_grad
from implicit_grad import (
    LBFGS,
    SGD,
    Adam,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    CheckpointedGradient,
    Continuation,
    Distance,
    ForwardModeGradient,
    GradientDescent,
    HeavyBall,
    LeastSquares,
    MultilayerPerceptron,
    Nesterov,
    Newton,
    NewtonCG,
    ScipyMinimize,
    SoftmaxCrossEntropy,
    Status,
    UnrolledGradient,
)
from implicit_grad.testing.strategies import CONVEX_EDGES, ridge_specs, softmax_specs, with_edges

norm = np.linalg.norm

FIRST_ORDER = [
    GradientDescent(None, 4000),
    Nesterov(None, 1500),
    HeavyBall(None, 1500),
    Adam(0.05, 60),
]
SEARCHES = [NewtonCG(60, 4), LBFGS(200), Newton()]
EVERY = pytest.mark.parametrize("solver", FIRST_ORDER + SEARCHES, ids=lambda s: type(s).__name__)
RECORDING = pytest.mark.parametrize("solver", FIRST_ORDER + SEARCHES[:2], ids=lambda s: type(s).__name__)
EASY = st.one_of(ridge_specs(log10_ratio=st.integers(-3, 2)), softmax_specs(log10_ratio=st.integers(-3, 2)))


def _true_distance(case: Any, phi: Any) -> Any:
    """‖φ − φ*‖, and what the oracle itself may be off by."""
    return norm(phi - case.star), case.tol_phi(phi)


def check_distance(solve: Any, spec: Any, share: float) -> None:
    """CONVERGED puts φ within the distance asked for; anything else takes all the steps or is at the floor."""
    case = spec.build()
    tolerance = share * (norm(case.theta - case.star) + norm(case.theta) + 1e-3 * norm(case.star) + 1e-300)
    solution = solve(tolerance)(case.problem, case.theta)
    if solution.status is Status.CONVERGED:
        distance, slack = _true_distance(case, solution.value)
        assert distance <= tolerance + slack, f"{distance} > {tolerance} + {slack}"
    else:
        assert solution.status in (Status.MAX_STEPS, Status.STAGNATED, Status.DIVERGED)
        floor = 40 * case.size**0.5 * EPS * (case.train.gradient_rounding(solution.value) + _pull(case, solution))
        spent = solution.steps == getattr(solution.solver, "steps", None)
        assert spent or 2 * floor >= case.lam * tolerance or solution.residual_norm > 0.5 * case.lam * tolerance


def _pull(case: Any, solution: Any) -> float:
    return float(case.lam * (norm(solution.value) + norm(case.theta)))


@EVERY
@with_edges(*(spec for spec in CONVEX_EDGES if spec.log10_ratio <= 2))
@given(spec=EASY)
@settings(max_examples=12)
def test_a_distance_is_a_distance(solver, spec):
    """Against the exact φ* of ridge and softmax, with the losses' own convexity, over λ = 10⁻⁶…10⁶."""
    for share in (0.3, 1e-3, 1e-8):
        check_distance(lambda tolerance: replace(solver, distance=tolerance), spec, share)


def test_a_false_convexity_is_found_out():
    """The power of the law: μ claimed 100 times too large puts φ out of the distance that CONVERGED promises."""
    spec = scenes.RidgeSpec(size=5, n=9, log10_ratio=2, log10_lam=0, spread=3, seed=11)
    for solver in FIRST_ORDER[:3] + SEARCHES[1:2]:
        check_distance(lambda r, s=solver: replace(s, distance=Distance(r)), spec, 1e-3)
        check_distance(lambda r, s=solver: replace(s, distance=Distance(r, 0.0)), spec, 1e-3)
        with pytest.raises(AssertionError, match=" > "):
            check_distance(lambda r, s=solver: replace(s, distance=Distance(r, 1e3)), spec, 1e-3)


@pytest.mark.parametrize("lam", [3.7e-3, 0.29, 6.1])
def test_the_bound_is_that_of_the_curvature(lam):
    """On ½φᵀhφ − cᵀφ: it stops at the first k with ‖∇G_k‖ ≤ ½ m r, which leaves half for rounding."""
    h, c = np.array([0.5, 2.0, 7.0]), np.array([1.0, -2.0, 0.5])
    problem, theta = BilevelProblem(Diagonal(h, c), Diagonal(h), lam), np.array([2.0, 1.0, -1.0])
    star, alpha = (c + lam * theta) / (h + lam), 1 / (7 + lam)
    for r, mu in ((1e-2, 0.5), (1e-5, 0.0), (3e-9, 0.25)):
        run = GradientDescent(alpha, 20_000, distance=Distance(r, mu))(problem, theta)
        k = np.arange(20_000)[:, None]
        residuals = norm((h + lam) * (1 - alpha * (h + lam)) ** k * (theta - star), axis=-1)
        first = int(np.argmax(residuals <= 0.5 * (lam + mu) * r))
        assert run.status is Status.CONVERGED
        assert abs(int(run.steps) - first) <= 1
        assert norm(run.value - star) <= r


@RECORDING
@pytest.mark.parametrize("traced", [False, True], ids=["closed form", "traced"])
def test_recorded_steps_are_runs_of_their_own(solver, traced):
    """Bitwise, and charged alike; a loss that cannot size its rounding pays a product for the verdict."""
    scene = scenes.softmax(0.37)
    inner = Autodiff(scene.traced[0]) if traced else scene.problem.inner
    for changes in (
        {"distance": Distance(3e-2, 0.0)},
        {"rtol": 1e-3},
        {"rtol": 1e-2, "distance": Distance(2.0, 0.0)},
    ):
        counting = Counting(inner)
        problem = BilevelProblem(counting, scene.problem.outer, 0.37)
        short = replace(solver, steps=30, step_size=0.1) if isinstance(solver, Adam) else replace(solver, steps=30)
        run = replace(short, record=(0, 1, 2, 5, 29, 30), **changes)(problem, scene.theta)
        for kind in ("gradients", "hvps", "values", "hessians"):
            assert getattr(run.cost, kind) == counting.calls[kind]
        for k in (0, 1, 2, 5, 29, 30):
            alone = replace(short, steps=k, **changes)(problem, scene.theta)
            at = run.at(k)
            assert np.array_equal(at.value, alone.value)
            assert at.residual_norm == alone.residual_norm
            assert (at.steps, at.status, at.cost) == (alone.steps, alone.status, alone.cost)


@EVERY
def test_each_problem_of_a_batch_stops_for_itself(solver):
    """Bitwise what it does alone, done or not."""
    scene, lams = scenes.ridge(1.7), np.array([0.02, 1.7, 90.0])
    for changes in ({"distance": Distance(1e-2)}, {"rtol": 1e-3}):
        limits = {"max_steps": 100} if isinstance(solver, Newton) else {"steps": 40}
        asked = replace(solver, **limits, **changes)
        together = asked(scene.problem.with_lam(lams), scene.theta)
        for i, lam in enumerate(lams):
            alone = asked(scene.problem.with_lam(lam), scene.theta)
            assert np.array_equal(together.value[i], alone.value)
            assert (together.steps[i], together.status[i]) == (alone.steps, alone.status)
    if not isinstance(solver, Newton | Adam):  # one step on ridge; never done in 40
        assert len(set(np.asarray(together.steps).tolist())) > 1


@EVERY
def test_a_distance_below_rounding_is_not_claimed(solver):
    """eps·κ/100 of ‖φ‖ cannot be proven: the status says so, whatever the residual."""
    scene = scenes.ridge(0.37)
    solution = replace(solver, distance=1e-18 * norm(scene.theta))(scene.problem, scene.theta)
    assert solution.status in (Status.STAGNATED, Status.MAX_STEPS)


def test_scipy_is_judged_alike():
    scene = scenes.ridge(0.37)
    star = Newton()(scene.problem, scene.theta).unwrap()
    for tolerance, wanted in ((1e-3, Status.CONVERGED), (1e-18, Status.STAGNATED)):
        found = ScipyMinimize("BFGS", options=(("gtol", 1e-8),), distance=tolerance)(scene.problem, scene.theta)
        assert found.status is wanted
        assert norm(found.value - star) <= 1e-3


@pytest.mark.parametrize("window", [None, 0, 1, 3, 50])
@pytest.mark.parametrize("changes", [{"rtol": 2e-2}, {"distance": Distance(0.3, 0.0)}], ids=["rtol", "distance"])
def test_unrolled_gradients_go_through_the_steps_that_were_taken(window, changes):
    """A batch that stops at different times: each problem's unrolled gradient is that of its own shorter run."""
    scene, lams, shape = scenes.softmax(0.37), np.array([0.1, 0.9, 30.0]), (3,)
    problem, asked = scene.problem.with_lam(lams), GradientDescent(None, 40, **changes, record=True)
    inner = asked(problem, scene.theta)
    assert len(set(inner.steps.tolist())) == 3
    together, (ends, _) = (
        UnrolledGradient(window)(problem, scene.theta, inner),
        (UnrolledGradient(window).at_steps(problem, inner, (0, 2, 7, 40))),
    )
    for i in range(3):
        one = problem.select((i,), shape)
        for j, step in enumerate((0, 2, 7, 40)):
            plain = GradientDescent(None, min(step, int(inner.steps[i])), record=True)(one, scene.theta)
            wanted = UnrolledGradient(window)(one, scene.theta, plain).gradient
            assert np.array_equal(ends[j, i], wanted)
        assert np.array_equal(together.gradient[i], wanted)


def test_the_other_ways_through_the_run_agree():
    scene = scenes.softmax(0.37)
    problem = scene.problem.with_lam(np.array([0.1, 0.9, 30.0]))
    inner = GradientDescent(None, 40, rtol=2e-2, record=True)(problem, scene.theta)
    wanted = UnrolledGradient()(problem, scene.theta, inner).gradient
    for checkpoints in (0, 2, None):
        again = CheckpointedGradient(checkpoints)(problem, scene.theta, inner).gradient
        assert np.array_equal(again, wanted)
    forward = ForwardModeGradient()(problem, scene.theta, inner).gradient
    assert norm(forward - wanted) <= 64 * 40 * EPS * norm(wanted)


def test_every_inner_solver_speaks_this_language():
    """SGD sees no gradient of G before its end; continuation leaves it to the solver it runs."""
    exempt = {SGD, Continuation}
    for name in implicit_grad.inner.__dict__:
        solver = getattr(implicit_grad.inner, name)
        if not dataclasses.is_dataclass(solver) or solver in exempt or solver is Distance:
            continue
        defaults = {f.name: f.default for f in dataclasses.fields(solver)}
        assert {"rtol", "distance"} <= set(defaults), name
        assert defaults["distance"] is None


def test_what_cannot_be_proven_is_refused():
    X = np.random.default_rng(7).normal(size=(6, 3))
    network = MultilayerPerceptron(X, X[:, 0], hidden=(2,))
    theta, steps = np.cos(np.arange(float(network.size))), GradientDescent(0.1, 5, distance=1e-3)
    with pytest.raises(ArgumentError, match=r"distance: MultilayerPerceptron.*convexity=μ.*rtol"):
        steps(BilevelProblem(network, network, 0.7), theta)
    with pytest.raises(ArgumentError, match=r"distance: G is not known to be strongly convex: m = λ \+ μ = -0.3"):
        replace(steps, distance=Distance(1e-3, -1.0))(BilevelProblem(network, network, 0.7), theta)
    ridge = LeastSquares(X, X[:, 0])
    lams = np.array([2.0, 0.7])
    with pytest.raises(ArgumentError, match="strongly convex"):
        replace(steps, distance=Distance(1e-3, -1.0))(BilevelProblem(ridge, ridge, lams), np.ones(3))
    labels = np.arange(6) % 3
    softmax = SoftmaxCrossEntropy(X, labels, 3)
    assert replace(steps, steps=500)(BilevelProblem(softmax, softmax, 0.7), np.ones(9)).ok


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0.0, ArgumentError),
        (-1e-3, ArgumentError),
        (np.nan, ArgumentError),
        (True, ArgumentTypeError),
        ("1e-3", ArgumentTypeError),
    ],
)
@EVERY
def test_bad_distances_are_named(solver, value, error):
    with pytest.raises(error, match="distance"):
        replace(solver, distance=value)
    with pytest.raises(error, match="tolerance"):
        Distance(value)


def test_other_bad_settings_are_named():
    for convexity, error in ((np.nan, ArgumentError), (True, ArgumentTypeError), ("0", ArgumentTypeError)):
        with pytest.raises(error, match="convexity"):
            Distance(1e-3, convexity)
    for changes in ({"rtol": 1e-3}, {"distance": 1e-3}):
        with pytest.raises(ArgumentError, match=r"proximal=False"):
            GradientDescent(0.1, 5, proximal=False, **changes)
    assert GradientDescent(0.1, 5, distance=1e-3) == GradientDescent(0.1, 5, distance=Distance(1e-3))
