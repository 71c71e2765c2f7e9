"""At a saddle or a maximum there is no meta-gradient: what every linear solver and every estimator does there.

The tables below hold one row for each method of the catalogue; a method without a row fails. Where a method cannot
see a saddle by its nature the row says so, and so do its docstring and the README.
"""

from dataclasses import dataclass, replace
from typing import Any

import autograd.numpy as anp
import numpy as np
import pytest
from oracles.losses import Diagonal
from oracles.scenes import EPS
from oracles.systems import symmetric

from implicit_grad import (
    CG,
    GMRES,
    LSMR,
    LU,
    MINRES,
    Autodiff,
    BiCGSTAB,
    BilevelProblem,
    BlockCG,
    CheckpointedGradient,
    Cholesky,
    ComplexStepGradient,
    ContrastiveGradient,
    DiagonalGradient,
    Eigh,
    FiniteDifferenceGradient,
    FirstOrderGradient,
    ForwardModeGradient,
    GaussNewtonGradient,
    GeneralGMRES,
    GeneralLU,
    GradientDescent,
    IdentityGradient,
    ImplicitFunction,
    ImplicitGradient,
    IndefiniteError,
    LambdaPath,
    LeastSquares,
    MetaGradient,
    MixedPrecision,
    MultilayerPerceptron,
    Neumann,
    Newton,
    NewtonStep,
    Nystrom,
    NystromPreconditioner,
    OneStepGradient,
    PreconditionedCG,
    Quadratic,
    RegularizedProblem,
    ReptileDirection,
    RichardsonGradient,
    ScipyCG,
    Solution,
    Status,
    SuperEfficientGradient,
    UnrolledGradient,
    Woodbury,
    catalogue,
    estimators,
    lambda_gradient,
    linear,
)

D, LAM = 4, 0.5
SPECTRA = {"saddle": (-2.0, 1.0, 3.0, 5.0), "maximum": (-2.0, -1.0, -3.0, -5.0)}
EACH = pytest.mark.parametrize("kind", SPECTRA)


def _problem(kind: str) -> tuple[BilevelProblem, Any]:
    """Stationary at θ = 0 with H of that spectrum in random axes; the quartic term bounds it from below."""
    H = symmetric(7, SPECTRA[kind])
    train = Autodiff(lambda w: 0.5 * anp.dot(w, anp.dot(H, w)) + 0.25 * anp.sum(w**4))
    test = Autodiff(lambda w: anp.sum(anp.sin(w + 0.3)))
    return BilevelProblem(train, test, LAM), H


def _at_zero(problem: BilevelProblem) -> Solution[Any]:
    inner = GradientDescent(0.1, 0)(problem, np.zeros(D))
    assert inner.residual_norm == 0
    return inner


# Every one is given what it needs to see all four eigenvalues.
SOLVERS = [
    BiCGSTAB(D),
    BlockCG(D),
    CG(D),
    CG(20, 1e-10),
    Cholesky(),
    Eigh(),
    GMRES(D),
    GeneralGMRES(D),
    GeneralGMRES(20, 1e-10),
    GeneralLU(),
    LSMR(D),
    LU(),
    MINRES(D),
    MixedPrecision(CG(20, 1e-5)),
    MixedPrecision(GeneralLU()),
    MixedPrecision(GeneralLU(), dense=True),
    MixedPrecision(Cholesky(), dense=True),
    Neumann(None, 30),
    Neumann(0.1, 30),
    Nystrom(D),
    PreconditionedCG(D),
    PreconditionedCG(D, preconditioner=NystromPreconditioner(2)),
    ScipyCG(D),
]
# A = FᵀF + σI is positive definite by construction, and an operator without F is refused.
NEVER_AT_A_SADDLE = {"Woodbury"}


def test_every_linear_solver_is_here():
    assert {type(solver).__name__ for solver in SOLVERS} | NEVER_AT_A_SADDLE == set(catalogue.methods(linear))


@EACH
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_every_linear_solver_refuses_a_saddle(solver, kind):
    problem, _ = _problem(kind)
    inner = _at_zero(problem)
    estimate = ImplicitGradient(solver)(problem, np.zeros(D), inner)
    assert estimate.status is Status.INDEFINITE
    assert np.isnan(estimate.gradient).all()
    assert estimate.linear.smallest_eigenvalue < 0
    with pytest.raises(IndefiniteError, match="smallest eigenvalue of H \\+ λI seen: -"):
        estimate.unwrap()


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_and_accepts_the_minimum_beside_it(solver):
    """λ = 2.5 lifts the saddle: positive definite is not called anything else."""
    problem, H = _problem("saddle")
    problem = problem.with_lam(2.5)
    inner = _at_zero(problem)
    estimate = ImplicitGradient(solver)(problem, np.zeros(D), inner)
    assert estimate.status is not Status.INDEFINITE
    assert np.isfinite(estimate.gradient).all()
    if isinstance(solver, Cholesky | Eigh | LU | GeneralLU | GeneralGMRES):
        exact = 2.5 * np.linalg.solve(H + 2.5 * np.eye(D), np.cos(0.3) * np.ones(D))
        assert np.linalg.norm(estimate.gradient - exact) <= 64 * D * 15 * EPS * np.linalg.norm(exact)


@pytest.mark.parametrize("solver", [LU(), Eigh(), GeneralLU(), GeneralGMRES(D), MINRES(D)], ids=repr)
def test_the_formal_number_on_request(solver):
    """The derivative of a stationary point of any kind, for those who want it; the status does not change."""
    problem, H = _problem("saddle")
    estimate = ImplicitGradient(solver, require_minimum=False)(problem, np.zeros(D), _at_zero(problem))
    exact = LAM * np.linalg.solve(H + LAM * np.eye(D), np.cos(0.3) * np.ones(D))
    assert np.linalg.norm(estimate.gradient - exact) <= 1e3 * D * EPS * np.linalg.norm(exact)
    assert estimate.status is Status.INDEFINITE


@pytest.mark.parametrize(
    "solver", [CG(1), MINRES(1), GMRES(1), GeneralGMRES(1), BlockCG(1), Neumann(1e-3, 3)], ids=repr
)
def test_what_few_steps_do_not_meet_is_not_seen(solver):
    """By nature: the first directions have positive curvature. The README's column says so."""
    problem = BilevelProblem(Diagonal(np.array([-1.0, 2.0, 4.0])), Diagonal(np.ones(3)), LAM)
    phi = np.array([0.1, 1.0, 1.0])  # b = φ, and bᵀAb > 0
    inner = replace(_at_zero(_problem("saddle")[0]), value=phi)
    assert ImplicitGradient(solver)(problem, phi, inner).ok
    assert ImplicitGradient(Cholesky())(problem, phi, inner).status is Status.INDEFINITE
    assert "unseen" in solver.card.saddle or solver.card.saddle.startswith(("as ", "of a problem", "refused once"))


def test_neighbours_of_a_saddle_are_left_alone():
    h = np.array([[1.0, 2.0], [-5.0, 1.0], [3.0, 0.5]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((3, 2)), 0.5), 0.7)
    inner = GradientDescent(0.1, 0)(problem, np.full((3, 2), 0.3))
    for solver in (GeneralLU(), GeneralGMRES(2), Cholesky(), LU()):
        estimate = ImplicitGradient(solver)(problem, np.full((3, 2), 0.3), inner)
        assert [s is Status.INDEFINITE for s in estimate.status] == [False, True, False]
        exact = 0.7 / (h + 0.7) * (0.3 - 0.5)
        for i in (0, 2):
            assert np.abs(estimate.gradient[i] - exact[i]).max() <= 64 * EPS


def test_singular_is_no_minimum_either():
    """λ = −μ_min(H): no strict minimum, whatever the sign that rounding gives the smallest eigenvalue."""
    problem = BilevelProblem(Diagonal(np.array([-0.5, 2.0])), Diagonal(np.ones(2)), LAM)
    inner = replace(_at_zero(_problem("saddle")[0]), value=np.array([1.0, 1.0]))
    for solver in (GeneralLU(), GeneralGMRES(2), Cholesky(), LU(), Eigh(), CG(9), MINRES(2)):
        estimate = ImplicitGradient(solver)(problem, np.ones(2), inner)
        assert estimate.status is Status.INDEFINITE, solver
        assert np.isnan(estimate.gradient).all()
    path = LambdaPath((LAM, 3.0), 2)(problem, np.ones(2), inner)
    assert list(path.status) == [Status.INDEFINITE, Status.CONVERGED]


DESCENT, FLOOR = GradientDescent(None, 40), Newton()


@dataclass(frozen=True, eq=False)
class Row:
    """What an estimator does: NAN with INDEFINITE, NOT_OK (a number that is no success), or BLIND by nature."""

    estimator: Any
    saddle: str
    maximum: str


ROWS = [
    Row(ImplicitGradient(CG(D)), "NAN", "NAN"),
    Row(SuperEfficientGradient(), "NAN", "NAN"),
    Row(SuperEfficientGradient(GeneralLU()), "NAN", "NAN"),
    Row(SuperEfficientGradient(CG(9)), "NAN", "NAN"),
    Row(OneStepGradient(NewtonStep()), "NAN", "NAN"),
    Row(OneStepGradient(NewtonStep(GeneralLU())), "NAN", "NAN"),
    Row(LambdaPath((0.3, LAM), D), "NAN", "NAN"),
    Row(ContrastiveGradient(1e-3, FLOOR), "NAN", "NAN"),
    Row(ContrastiveGradient(1e-3, FLOOR, two_sided=False), "NAN", "NAN"),
    # Gradient descent diverges on the quartic beside the maximum before the estimator has a say.
    Row(ContrastiveGradient(None, DESCENT), "NAN", "NOT_OK"),
    Row(RichardsonGradient(ContrastiveGradient(1e-3, FLOOR), ContrastiveGradient(5e-4, FLOOR), 2), "NAN", "NAN"),
    Row(FiniteDifferenceGradient(FLOOR), "NOT_OK", "NOT_OK"),
    Row(FiniteDifferenceGradient(DESCENT, 1e-3), "NOT_OK", "NOT_OK"),
    # One entry of the diagonal of A is negative at the maximum, none at the saddle.
    Row(DiagonalGradient(), "BLIND", "NAN"),
    # They do not ask for curvature at all.
    Row(IdentityGradient(1.5), "BLIND", "BLIND"),
    Row(FirstOrderGradient(), "BLIND", "BLIND"),
    Row(ReptileDirection(0.7), "BLIND", "BLIND"),
    Row(OneStepGradient(), "BLIND", "BLIND"),
    # Derivatives of a path of inner steps, right wherever it ends.
    Row(UnrolledGradient(), "BLIND", "BLIND"),
    Row(CheckpointedGradient(), "BLIND", "BLIND"),
    Row(ForwardModeGradient(), "BLIND", "BLIND"),
]
# Their losses are closed forms: below.
ELSEWHERE = {"ComplexStepGradient", "GaussNewtonGradient"}


def test_every_estimator_is_here():
    assert {type(row.estimator).__name__ for row in ROWS} | ELSEWHERE == set(catalogue.methods(estimators))


def _is(estimate: Any, what: str) -> None:
    codes = np.atleast_1d(estimate.status)
    if what == "NAN":
        assert all(status is Status.INDEFINITE for status in codes)
        assert np.isnan(estimate.gradient).all()
    elif what == "NOT_OK":
        assert not np.any(estimate.ok)
    else:
        assert np.all(estimate.ok)
        assert np.isfinite(estimate.gradient).all()


@EACH
@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row.estimator)[:80])
def test_every_estimator_at_a_saddle(row, kind):
    problem, _ = _problem(kind)
    if isinstance(row.estimator, UnrolledGradient | CheckpointedGradient | ForwardModeGradient):
        estimate = MetaGradient(GradientDescent(0.05, 5, record=True), row.estimator)(problem, np.zeros(D))
    else:
        estimate = row.estimator(problem, np.zeros(D), _at_zero(problem))
    _is(estimate, getattr(row, kind))
    words = row.estimator.card.saddle
    if "BLIND" in (row.saddle, row.maximum):
        assert "does not look" in words or "unseen" in words or words == "as unrolled"


def _network() -> tuple[BilevelProblem, Any]:
    """A tanh network at zero: a stationary point of its own loss plus a term that cancels, and H has no sign."""
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((6, 1)), rng.standard_normal(6)
    train, test = MultilayerPerceptron(X, y - y.mean(), (2,)), MultilayerPerceptron(X, y, (2,))
    problem = BilevelProblem(train, test, 1e-2)
    theta = np.zeros(train.size)
    A = problem.curvature(theta).dense()
    assert np.linalg.eigvalsh(A)[0] < -1e-2
    return problem, theta


def test_complex_steps_refuse_the_saddle_of_a_network():
    problem, theta = _network()
    inner = GradientDescent(0.1, 0)(problem, theta)
    assert inner.residual_norm <= 1e-12
    _is(ComplexStepGradient()(problem, theta, inner), "NAN")


def test_gauss_newton_cannot_see_it():
    """By nature: B ⪰ 0 everywhere, so B + λI is positive definite at the saddle, too."""
    problem, theta = _network()
    inner = GradientDescent(0.1, 0)(problem, theta)
    _is(GaussNewtonGradient(Cholesky())(problem, theta, inner), "BLIND")
    assert ImplicitGradient(Cholesky())(problem, theta, inner).status is Status.INDEFINITE
    assert "does not look" in GaussNewtonGradient.card.saddle


def test_woodbury_has_no_saddle_to_meet():
    rng = np.random.default_rng(3)
    loss = LeastSquares(rng.standard_normal((2, D)), rng.standard_normal(2))
    problem = BilevelProblem(loss, loss, 1e-3)
    estimate = ImplicitGradient(Woodbury())(problem, np.ones(D), GradientDescent(None, 3)(problem, np.ones(D)))
    assert estimate.ok
    assert "impossible" in Woodbury.card.saddle


def test_nudges_of_a_minimum_are_never_refused():
    """The hill between two nudged minima is what is refused; without one the verdict stands."""
    problem, _ = _problem("saddle")
    start = np.array([0.4, -0.3, 0.2, 0.6])
    for two_sided in (True, False):
        estimate = MetaGradient(FLOOR, ContrastiveGradient(1e-5, FLOOR, two_sided))(problem, start)
        exact = MetaGradient(FLOOR, ImplicitGradient(Cholesky()))(problem, start)
        assert exact.ok
        assert estimate.status is Status.CONVERGED
        assert np.linalg.norm(estimate.gradient - exact.gradient) <= 1e-3 * np.linalg.norm(exact.gradient)


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(D), Cholesky(), LU()], ids=repr)
def test_the_general_map_of_a_minimisation_refuses_it_too(solver):
    """`RegularizedProblem` says that it is a gradient; a bare map cannot, and its derivative is right as it is."""
    problem, H = _problem("saddle")
    F = RegularizedProblem(problem.inner, problem.outer, Quadratic(LAM))
    estimate = ImplicitFunction(F, solver).gradient(np.zeros(D), np.zeros(D), problem.outer)
    _is(estimate, "NAN")
    assert np.isnan(lambda_gradient(F, np.zeros(D), estimate))
    if isinstance(solver, Cholesky):
        return
    kept = ImplicitFunction(F, solver, require_minimum=False).gradient(np.zeros(D), np.zeros(D), problem.outer)
    exact = LAM * np.linalg.solve(H + LAM * np.eye(D), np.cos(0.3) * np.ones(D))
    assert np.linalg.norm(kept.gradient - exact) <= 1e3 * D * EPS * np.linalg.norm(exact)
    assert kept.status is Status.INDEFINITE
