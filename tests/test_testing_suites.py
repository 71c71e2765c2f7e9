"""The suites let sound solvers pass, say what is wrong with others, and understand what a solver claims."""

import numpy as np
import pytest
import scipy.sparse.linalg

from implicit_grad import (
    CG,
    EXACT,
    LU,
    MINRES,
    Autodiff,
    Cholesky,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MultilayerPerceptron,
    Neumann,
    Newton,
    ScipyCG,
    SoftmaxCrossEntropy,
    Status,
    UnrolledGradient,
)
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.testing import (
    LINEAR_LAWS,
    Budget,
    Domain,
    Exact,
    Krylov,
    LawViolation,
    Result,
    Tolerance,
    as_linear_operator,
    as_matvec,
    check_hvp,
    check_inner_solver,
    check_linear_solver,
    check_meta_gradient,
)
from implicit_grad.testing.linear_subject import Claim, read_answer
from implicit_grad.testing.promises import promise_of

FEW = 10
LAW = {law.number: law for law in LINEAR_LAWS}


def violated(error):
    return {finding.law.number for finding in error.value.findings if finding.result is Result.VIOLATED}


@pytest.mark.parametrize(
    "solver",
    [Cholesky(), LU(), CG(300, 1e-11), CG(1), CG(5), ScipyCG(3), MINRES(300, 1e-10), Neumann(0.5, 5)],
    ids=repr,
)
def test_our_linear_solvers(solver):
    findings = check_linear_solver(solver, domain=Domain.POSITIVE_DEFINITE, batch_shapes=((2,),), examples=FEW)
    assert sum(finding.result is Result.HOLDS for finding in findings) >= 7


def test_plain_functions():
    check_linear_solver(lambda A, b: np.linalg.solve(A, b), examples=FEW)
    check_linear_solver(np.linalg.solve, domain=Domain.SYMMETRIC, promise=Exact(), examples=FEW)


@pytest.mark.parametrize("given", [as_matvec, as_linear_operator])
def test_operators(given):
    """A solver that sees nothing but products, in a dense disguise."""

    def solve(A, b):
        product = A if callable(A) and given is as_matvec else A.matvec
        return np.linalg.solve(np.array([product(e) for e in np.eye(b.size)]), b)

    check_linear_solver(solve, given=given, examples=FEW)


def test_a_singular_system_that_scipy_calls_solved():
    """SciPy's cg returns info = 0 with a relative residual above 1e-2: the suite says so, and nothing else."""

    def solve(A, b):
        return scipy.sparse.linalg.cg(A, b, rtol=1e-8)

    with pytest.raises(LawViolation) as error:
        check_linear_solver(solve, promise=Tolerance(1e-8), examples=FEW)
    assert violated(error) == {"singular"}


def test_a_budget_is_told_from_a_solution():
    """The same five steps of CG are honest as a budget, and no exact solver."""
    check_linear_solver(lambda A, b: CG(5)(A, b).value, promise=Krylov(5), examples=FEW)
    with pytest.raises(LawViolation) as error:
        check_linear_solver(lambda A, b: CG(3)(A, b).value, examples=FEW)
    assert "13" in violated(error)


def test_a_failure_shows_law_numbers_matrix_and_spectrum():
    with pytest.raises(LawViolation) as error:
        check_linear_solver(lambda A, b: np.linalg.solve(np.tril(A), b), laws=[LAW["13"]], examples=30)
    message = str(error.value)
    for part in (
        "law 13 backward error",
        "‖b − A x‖ ≤",
        "tolerance:",
        "measured",
        "allowed",
        "A = [[",
        "spectrum of A",
    ):
        assert part in message
    assert "size=2" in message, "not shrunk"


def rights_seen(seed):
    """Right-hand sides that a law is tried on."""
    calls = []

    def solve(A, b):
        calls.append(tuple(b))
        return np.linalg.solve(A, b)

    check_linear_solver(solve, laws=[LAW["13"]], seed=seed, examples=5)
    return calls


def test_crashes_are_named_and_seeds_matter():
    def crash(A, b):
        raise RuntimeError("no luck")

    with pytest.raises(LawViolation, match="raised RuntimeError: no luck"):
        check_linear_solver(crash, laws=[LAW["13"]], examples=2)
    seen = [rights_seen(seed) for seed in (7, 7, 8)]
    assert seen[0] == seen[1] != seen[2]


def test_more_examples_are_more_examples():
    (few,), (many,) = (check_linear_solver(np.linalg.solve, laws=[LAW["13"]], examples=n) for n in (5, 40))
    assert many.examples > few.examples
    with pytest.raises(ArgumentError, match="examples"):
        check_linear_solver(np.linalg.solve, examples=0)


@pytest.mark.parametrize("promise", ["exact", 5, Krylov, 1e-6], ids=repr)
@pytest.mark.parametrize("check", [check_linear_solver, check_inner_solver, check_meta_gradient])
def test_what_is_no_promise_is_refused(check, promise):
    """A promise that no law knows was held to nothing."""
    with pytest.raises(ArgumentTypeError, match=r"^promise: "):
        check(lambda *_: np.zeros(1), promise=promise, examples=1)


def test_claims():
    A, b = np.diag([1.0, 4.0, 9.0]), np.ones(3)
    assert read_answer(b).claim is Claim.NOTHING
    assert read_answer((b, 0)).claim is Claim.SUCCESS
    assert read_answer((b, 3)).claim is Claim.FAILURE
    assert read_answer(Cholesky()(A, b)).claim is Claim.SUCCESS
    assert read_answer(CG(2)(A, b)).claim is Claim.BUDGET
    assert read_answer(CG(1, 1e-9)(A, b)).claim is Claim.FAILURE
    assert CG(2)(A, b).status is Status.BUDGET_SPENT
    assert promise_of(Newton()) == Tolerance(Newton().rtol)
    assert promise_of(Neumann(0.1, 3)) == Budget()


@pytest.mark.parametrize("solver", [Newton(), GradientDescent(None, 10)], ids=repr)
def test_our_inner_solvers(solver):
    check_inner_solver(solver, examples=4)


def test_an_inner_solver_as_a_plain_function():
    check_inner_solver(lambda problem, theta: Newton(rtol=1e-13)(problem, theta).value, examples=3)
    with pytest.raises(LawViolation) as error:
        check_inner_solver(lambda problem, theta: theta - problem.inner.gradient(theta) / problem.lam, examples=3)
    assert {"1b", "11"} <= violated(error)


def test_our_losses(rng):
    X = rng.standard_normal((6, 3))
    check_hvp(LeastSquares(X, X[:, 0]), convex=True, examples=FEW)
    check_hvp(SoftmaxCrossEntropy(X, np.arange(6) % 3, 3), convex=True, examples=FEW)
    check_hvp(MultilayerPerceptron(X, X[:, 1], (3,)), examples=FEW)
    check_hvp(Autodiff(lambda p: (p**4).sum()), size=1, convex=True, examples=FEW)
    with pytest.raises(ArgumentError, match="size"):
        check_hvp(lambda x, v: v)


def test_a_product_of_another_function():
    with pytest.raises(LawViolation) as error:
        check_hvp(lambda x, v: 3 * v, gradient=lambda x: 2 * x, size=2, examples=FEW)
    assert violated(error) == {"55"}


@pytest.mark.parametrize(
    ("function", "promise"),
    [
        (EXACT, Exact()),
        (MetaGradient(Newton(), ImplicitGradient(CG(300, 1e-10))), Tolerance(1e-7)),
        (MetaGradient(Newton(), ImplicitGradient(CG(5))), Budget()),
        (MetaGradient(GradientDescent(None, 5, record=True), UnrolledGradient()), Budget()),
    ],
    ids=["exact", "CG", "CG-5", "unrolled"],
)
def test_our_meta_gradients(function, promise):
    check_meta_gradient(function, promise=promise, examples=3)


def test_unrolling_is_not_the_meta_gradient():
    with pytest.raises(LawViolation) as error:
        check_meta_gradient(MetaGradient(GradientDescent(None, 5, record=True), UnrolledGradient()), examples=5)
    assert {"g", "50"} <= violated(error)
    assert "spectrum of A" in str(error.value)
