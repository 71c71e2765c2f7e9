"""Lower bounds of the curvature: below the truth, close to it, and labelled by how they know."""

from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from oracles.losses import Diagonal

from implicit_grad import (
    CG,
    ArgumentError,
    Autodiff,
    BilevelProblem,
    Constants,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    Newton,
    SoftmaxCrossEntropy,
    Status,
    certify,
)
from implicit_grad.certificates import (
    Convexity,
    Eigenvalues,
    Kind,
    RandomLanczos,
    ShiftedCholesky,
    sampled_constants,
)
from implicit_grad.certificates._point import Point
from implicit_grad.linear import as_operator, extreme_eigenvalues
from implicit_grad.linear.lanczos import tridiagonalize
from implicit_grad.testing.matrices import orthogonal

PROOFS = (Eigenvalues(), ShiftedCholesky(), Convexity())


def ridge(rng, smallest, size=12, lam=0.0625, largest=1.0):
    """Least squares whose XᵀX/n has eigenvalues from `smallest` to `largest`; λ + smallest is the truth."""
    eigenvalues = np.geomspace(smallest, largest, size)
    X = np.sqrt(size * eigenvalues)[:, None] * orthogonal(rng, size)
    loss = LeastSquares(X, np.ones(size))
    return BilevelProblem(loss, loss, lam), np.zeros(size)


@pytest.mark.parametrize("strategy", PROOFS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("smallest", [0.5, 1e-3, 1e-6])
@pytest.mark.parametrize("largest", [1.0, 1e6])
def test_proofs_are_below_the_smallest_eigenvalue_and_close(strategy, smallest, largest):
    problem, theta = ridge(np.random.default_rng(31), smallest, largest=largest)
    found = strategy(Point(problem, theta, theta))
    truth = 0.0625 + smallest
    # The eigenvalues of X as rounded are known to 8·N·eps of the largest.
    assert found.value <= truth + 8 * 12 * np.finfo(float).eps * largest
    assert found.value >= (
        0.89 * truth if isinstance(strategy, ShiftedCholesky) else truth - 1e-12 * largest - smallest
    )
    assert found.kind is Kind.RIGOROUS
    assert found.failure == 0


@pytest.mark.parametrize("strategy", [Eigenvalues(), ShiftedCholesky()], ids=lambda s: type(s).__name__)
def test_an_indefinite_matrix_has_no_positive_bound(strategy):
    for lowest in (-3.0, -1e-9, 0.0):
        loss = Diagonal(np.array([lowest - 0.5, 2.0]), np.ones(2))
        problem = BilevelProblem(loss, loss, 0.5)
        assert strategy(Point(problem, np.zeros(2), np.zeros(2))).value <= 0


def test_a_ritz_value_is_no_lower_bound():
    """What a certificate may not rest on: six steps of plain Lanczos see 30 times the smallest eigenvalue."""
    problem, theta = ridge(np.random.default_rng(32), 1e-4, size=60, lam=1e-6)
    seen = extreme_eigenvalues(problem.curvature(theta), steps=6)[0]
    assert seen > 1.1 * (1e-4 + 1e-6)


def test_random_lanczos_fails_no_oftener_than_it_says():
    problem, theta = ridge(np.random.default_rng(33), 0.01, size=80, lam=0.5)
    failures = values = 0
    for seed in range(200, 400):
        found = RandomLanczos(steps=30, failure=0.1, seed=seed)(Point(problem, theta, theta))
        failures += int(found.value > 0.51)
        values += int(found.value > 0.4)
    assert failures <= 0.1 * 200
    assert values > 100
    assert found.kind is Kind.PROBABILISTIC
    assert found.cost.hvps == 30


def test_too_few_random_steps_prove_nothing():
    problem, theta = ridge(np.random.default_rng(34), 0.01, size=80)
    assert RandomLanczos(steps=3)(Point(problem, theta, theta)).value == -np.inf


def test_epsilon_follows_the_theorem():
    strategy = RandomLanczos(steps=60, failure=1e-6)
    share = strategy.epsilon(1000)
    assert 1.648 * 1000**0.5 * np.exp(-(share**0.5) * 119) == pytest.approx(0.5e-6, rel=1e-12)


def scene(seed=41):
    rng = np.random.default_rng(seed)
    X, Z = rng.normal(size=(2, 3, 12, 2))
    losses = (SoftmaxCrossEntropy(F, rng.integers(0, 2, size=(3, 12)), 2) for F in (X, Z))
    return BilevelProblem(*losses, np.array([0.1, 1.0, 3.0])), rng.normal(size=(3, 4))


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        (Convexity(), Kind.RIGOROUS),
        (Convexity(0.0), Kind.CONDITIONAL),
        (Eigenvalues(), Kind.RIGOROUS),
        (ShiftedCholesky(), Kind.RIGOROUS),
        (RandomLanczos(seed=7), Kind.PROBABILISTIC),
    ],
)
def test_a_certificate_says_where_m_comes_from(strategy, kind):
    problem, theta = scene()
    estimate = ImplicitGradient(CG(2))(problem, theta, GradientDescent(None, 30)(problem, theta))
    found = certify(problem, theta, estimate, curvature_bound=strategy)
    assert found.kind is kind
    assert found.origin
    assert found.failure == (strategy.failure if kind is Kind.PROBABILISTIC else 0.0)
    assert (found.bound <= certify(problem, theta, estimate).bound * (1 + 1e-12)).all()


def waves(p):
    """A loss that is convex in some places: −1 ≤ f″ = −cos ≤ 1, |f‴| ≤ 1."""
    return anp.sum(anp.cos(p))


@pytest.mark.parametrize("strategy", [Eigenvalues(), ShiftedCholesky()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("lam", [0.2, 0.7, 1.5])
def test_a_bound_at_one_point_is_made_one_of_the_way(strategy, lam):
    """By Newton and Kantorovich, where no global convexity is known; it refuses where the condition fails."""
    test = Diagonal(np.array([1.0, 2.0]), np.array([1.0, -1.0]))
    problem, theta = BilevelProblem(Autodiff(waves), test, lam), np.array([2.6, 3.3])
    star = Newton(1e-15)(problem, theta, start=np.full(2, np.pi)).value
    exact = lam * test.gradient(star) / (lam - np.cos(star))
    finite = 0
    for distance in (1e-6, 1e-2, 0.1, 0.5, 1.5):
        phi = star + distance * np.array([0.6, -0.8])
        g = lam * test.gradient(phi) / (lam - np.cos(phi))
        bar = partial(certify, problem, theta, g, phi, curvature_bound=strategy)
        found = bar(constants=Constants(None, 2.0, 1.0))
        assert np.linalg.norm(g - exact) <= found.bound
        finite += int(np.isfinite(found.bound))
        assert found.kind is (Kind.CONDITIONAL if np.isfinite(found.bound) else Kind.NONE)
        # Taking m at φ for m on the way would claim more than is known.
        naive = lam / strategy(Point(problem, theta, phi)).value
        if np.isfinite(found.bound) and naive > 0:
            assert found.bound >= found.linear_share
    assert 2 <= finite < 5


def test_what_cg_met_refutes_a_claim():
    """The user says that G is convex; CG met a direction of negative curvature on its way."""
    loss = Diagonal(np.array([-3.0, 2.0]), np.ones(2))
    problem, theta = BilevelProblem(loss, loss, 0.5), np.ones(2)
    inner = GradientDescent(0.01, 1)(problem, theta)
    estimate = ImplicitGradient(CG(2), require_minimum=False)(problem, theta, inner)
    found = certify(problem, theta, estimate, constants=Constants(0.5, 3.0, 0.0))
    assert found.smallest_seen < 0
    assert np.isinf(found.bound)
    assert found.kind is Kind.NONE


def test_any_gradient_refutes_a_claim_that_it_meets():
    """No linear solve is needed: the certificate's own products are curvatures, too."""
    loss = Diagonal(np.array([-3.0, 2.0]), np.ones(2))
    problem, claimed = BilevelProblem(loss, loss, 0.5), Constants(0.5, 3.0, 0.0)
    for g, phi in (([1.0, 0.2], [0.0, 0.3]), ([0.1, 2.0], [4.0, 0.3])):
        found = certify(problem, np.zeros(2), np.array(g), np.array(phi), constants=claimed)
        blind = g[1] > g[0]  # ĝᵀAĝ > 0: an upper bound of λ_min cannot tell, and says nothing
        assert found.smallest_seen >= -2.5
        assert (found.smallest_seen <= 0) == (not blind)
        assert np.isinf(found.bound) == (not blind)
    sharp = Constants(0.5, 3.0, 0.0, concordance=0.0)  # ∇G is looked along, too
    found = certify(problem, np.zeros(2), np.array([0.1, 2.0]), np.array([4.0, 0.3]), constants=sharp)
    assert found.smallest_seen < 0
    assert found.kind is Kind.NONE


def test_what_was_seen_is_no_less_than_the_smallest_eigenvalue():
    problem, theta = scene()
    for estimator in (ImplicitGradient(CG(2)), FirstOrderGradient()):
        estimate = estimator(problem, theta, GradientDescent(None, 5)(problem, theta))
        lowest = np.linalg.eigvalsh(problem.curvature(estimate.inner.value).dense())[..., 0]
        assert (certify(problem, theta, estimate).smallest_seen >= lowest * (1 - 1e-13)).all()


@pytest.mark.parametrize("smallest", [-0.5, -1e-3, 1e-3])
def test_conjugate_gradients_see_what_their_ritz_values_show(smallest):
    """Pivots of LDLᵀ have the signs of the eigenvalues: CG stops in the first step whose T_k is not definite."""
    rng = np.random.default_rng(35)
    Q, b = orthogonal(rng, 12), rng.standard_normal(12)
    A = Q @ np.diag([smallest, *np.geomspace(0.1, 4.0, 11)]) @ Q.T
    process = tridiagonalize(as_operator(A, b), b / np.linalg.norm(b), 12)
    for k in range(1, 12):
        T = np.diag(process.diagonal[:k]) + np.diag(process.off[: k - 1], 1) + np.diag(process.off[: k - 1], -1)
        lowest = np.linalg.eigvalsh(T)[0]
        assert abs(lowest) > 1e-9
        run = CG(k)(A, b)
        assert (run.status is Status.INDEFINITE) == (lowest < 0)
        assert run.smallest_eigenvalue >= lowest * (1 if lowest < 0 else 1 - 1e-9)


def test_sampled_constants_are_twice_what_was_seen():
    """One dimension leaves no choice of direction: f = 3x³/6 and a test loss of curvature 5."""
    cube, test = Autodiff(lambda p: 0.5 * anp.sum(p**3)), Diagonal(np.full(1, 5.0), np.ones(1))
    found, cost = sampled_constants(BilevelProblem(cube, test, 2.0), np.full(1, 0.7))
    assert found.rho == pytest.approx(2 * 3.0, rel=1e-9)
    assert found.beta == pytest.approx(2 * 5.0, rel=1e-13)
    assert found.m is None
    assert found.kind is Kind.ESTIMATE
    assert "times 2" in found.origin
    assert cost.gradients == 2 + 4


def test_random_directions_miss_what_the_way_to_the_minimum_shows():
    """A loss that bends in one of forty directions: random pairs see a fraction, the way to φ* sees it all."""
    bent = Autodiff(lambda p: p[0] ** 3 / 6)
    problem, phi = BilevelProblem(bent, Diagonal(np.ones(40), 0.0), 2.0), np.full(40, 0.1)
    way = g = np.eye(40)[0] * 1e-3
    blind, there = (sampled_constants(problem, phi, **more)[0].rho for more in ({}, {"ways": (way,), "gradient": g}))
    assert there == pytest.approx(2.0, rel=1e-9)
    assert blind < 0.5


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda p, t: certify(p, t, t, t, constants=Constants(None, 1.0, 1.0)), "m is None"),
        (lambda p, t: ShiftedCholesky(1.0), "fraction"),
        (lambda p, t: RandomLanczos(failure=2.0), "failure"),
        (lambda p, t: RandomLanczos(0), "steps"),
        (lambda p, t: Convexity(np.nan), "mu"),
        (lambda p, t: Constants(1.0, 1.0, 1.0, concordance=-1.0), "concordance"),
        (lambda p, t: certify(*_waves(), curvature_bound=Convexity()), "strong convexity"),
    ],
)
def test_bad_input(call, name):
    with pytest.raises(ArgumentError, match=name):
        call(*scene())


def _waves():
    problem = BilevelProblem(Autodiff(waves), Autodiff(waves), 2.0)
    return problem, np.ones(2), np.ones(2), np.ones(2)
