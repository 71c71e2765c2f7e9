"""Faults of public implicit-gradient code that no other test looks for; `index_of_known_defects.py` lists all."""

import autograd.numpy as anp
import numpy as np
import pytest
from oracles.systems import spd

from implicit_grad import (
    CG,
    EXACT,
    GMRES,
    LU,
    MINRES,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    BlockCG,
    Cholesky,
    Cost,
    DiagonalQuadratic,
    Eigh,
    GradientDescent,
    ImplicitFunction,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    Newton,
    NewtonRoot,
    RegularizedProblem,
    ScipyCG,
    Status,
    UnrolledGradient,
)
from implicit_grad.testing import check_meta_gradient
from implicit_grad.testing.law import LawViolation
from implicit_grad.testing.strategies import MLP_EDGES, RIDGE_EDGES, SOFTMAX_EDGES

EPS = float(np.finfo(float).eps)
KRYLOV = pytest.mark.parametrize("kind", [CG, ScipyCG, MINRES, GMRES, BlockCG])


@KRYLOV
def test_cg_returns_its_last_iterate(kind):
    """A = I is solved by the one step there is; code that breaks with the iterate before it returns 0."""
    b = np.array([1.0, 2.0, 3.0])
    solution = kind(9, 1e-12)(np.eye(3), b)
    assert np.abs(solution.value - b).max() <= 8 * EPS * 3
    assert solution.steps == 1
    solution = kind(9, 1e-12)(np.diag([1.0, 4.0, 9.0]), b)
    assert np.abs(solution.value - b / [1.0, 4.0, 9.0]).max() <= 64 * 9 * EPS


@KRYLOV
def test_a_tolerance_saves_steps(kind):
    """A comparison that is never true costs nothing but time, and no error shows it."""
    A, b = spd(5, 30, 100.0)
    taken = [int(kind(30, rtol)(A, b).steps) for rtol in (1e-1, 1e-4, 1e-10)]
    assert taken[0] < taken[1] < taken[2] <= 30
    costs = [kind(30, rtol)(A, b).cost for rtol in (1e-1, 1e-10)]
    assert costs[0].hvps < costs[1].hvps


@KRYLOV
def test_one_step_of_cg_is_along_the_right_hand_side(kind):
    """K_1 = span{b}: with one step the implicit gradient is the first-order one, shortened."""
    A, b = spd(6, 8, 50.0)
    x = kind(1)(A, b).value
    assert np.linalg.norm(x - (x @ b) / (b @ b) * b) <= 8 * EPS * np.linalg.norm(x)
    if kind in (CG, ScipyCG, BlockCG):
        assert np.linalg.norm(x - (b @ b) / (b @ A @ b) * b) <= 64 * EPS * np.linalg.norm(x)


def test_weights_and_biases_of_a_tree_are_coupled():
    """Linear regression with weight and bias: the two blocks of the Hessian alone give another gradient."""
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal(12) + 2.0, rng.standard_normal(12)

    def loss(rows):
        return lambda p: 0.5 * anp.mean((p["w"] * x[rows] + p["b"] - y[rows]) ** 2)

    problem = BilevelProblem(Autodiff(loss(slice(0, 6))), Autodiff(loss(slice(6, 12))), lam=0.3)
    theta = {"b": np.array([0.4]), "w": np.array([-0.7])}
    tree = EXACT(problem, theta)
    X = np.column_stack([np.ones(12), x])
    flat = BilevelProblem(LeastSquares(X[:6], y[:6]), LeastSquares(X[6:], y[6:]), lam=0.3)
    vector = EXACT(flat, np.array([0.4, -0.7]))
    found = np.concatenate([tree.gradient["b"], tree.gradient["w"]])
    assert np.linalg.norm(found - vector.unwrap()) <= 1e3 * EPS * np.linalg.norm(found)
    H = X[:6].T @ X[:6] / 6
    b = flat.outer.gradient(vector.inner.value)
    assert np.linalg.norm(0.3 * b / (0.3 + np.diag(H)) - found) > 0.1 * np.linalg.norm(found)


@pytest.mark.parametrize("solver", [Cholesky(), LU(), Eigh(), CG(400, 1e-13), MINRES(400, 1e-13)], ids=repr)
def test_condition_numbers_are_not_squared(solver):
    """κ = 10⁵ in fifty dimensions: through AᵀA nothing would be left of ten digits."""
    A, b = spd(7, 50, 1e5)
    exact = np.linalg.solve(A, b)
    assert np.linalg.norm(solver(A, b).value - exact) <= 1e-7 * np.linalg.norm(exact)
    squared = np.linalg.solve((A.T @ A).astype(np.float32), (A.T @ b).astype(np.float32))
    assert np.linalg.norm(squared - exact) > 0.1 * np.linalg.norm(exact)


def test_the_number_of_steps_is_not_lambda():
    """They live in two objects, and a λ where steps belong is refused by its type."""
    for swapped in (lambda: GradientDescent(None, 2.0), lambda: CG(0.5), lambda: GradientDescent(None, steps=0.5)):
        with pytest.raises(ArgumentTypeError, match="steps"):
            swapped()
    rng = np.random.default_rng(5)
    X, y, theta = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.standard_normal(3)
    problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X[::-1], y), 5.0)
    few, many = (
        MetaGradient(GradientDescent(None, steps), ImplicitGradient(Cholesky()))(problem, theta).gradient
        for steps in (2, 400)
    )
    exact = EXACT(problem, theta).gradient
    assert np.linalg.norm(many - exact) <= 1e-12 * np.linalg.norm(exact)
    assert np.linalg.norm(few - exact) > 1e-4 * np.linalg.norm(exact)  # steps matter, and λ stays


def test_a_weight_for_each_parameter_is_used_and_not_squared():
    rng = np.random.default_rng(5)
    X, y, theta = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.standard_normal(3)
    weights = np.array([0.3, 2.0, 7.0])
    test = LeastSquares(X[::-1], y)
    problem = RegularizedProblem(LeastSquares(X, y), test, DiagonalQuadratic(weights))
    phi = NewtonRoot(linear_solver=Cholesky())(problem, theta, theta)
    found = ImplicitFunction(problem, Cholesky()).gradient(phi, theta, test).unwrap()

    def formula(w):
        H = X.T @ X / 6
        star = np.linalg.solve(H + np.diag(w), X.T @ y / 6 + w * theta)
        return w * np.linalg.solve(H + np.diag(w), test.gradient(star))

    assert np.linalg.norm(found - formula(weights)) <= 64 * 3 * 50 * EPS * np.linalg.norm(found)
    for mistake in (weights**2, np.full(3, weights.mean()), np.full(3, weights[0])):
        assert np.linalg.norm(found - formula(mistake)) > 0.1 * np.linalg.norm(found)


def test_one_step_is_not_all_of_them():
    """The Jacobian of one step at θ, taken for that of five, is far off; ours is the derivative of the run."""
    rng = np.random.default_rng(5)
    X, y, theta = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.standard_normal(3)
    train, test = LeastSquares(X, y), LeastSquares(X[::-1], y)
    problem, alpha = BilevelProblem(train, test, 0.7), 0.1
    run = GradientDescent(alpha, 5, record=True)
    estimate = MetaGradient(run, UnrolledGradient())(problem, theta)
    b = test.gradient(estimate.inner.value)
    step = np.eye(3) - alpha * (X.T @ X / 6 + 0.7 * np.eye(3))
    J = np.eye(3)
    for _ in range(5):
        J = step @ J + alpha * 0.7 * np.eye(3)
    assert np.linalg.norm(estimate.gradient - J.T @ b) <= 64 * 15 * EPS * np.linalg.norm(b)
    once = step + alpha * 0.7 * np.eye(3)
    assert np.linalg.norm(once.T @ b - estimate.gradient) > 0.05 * np.linalg.norm(estimate.gradient)


def test_what_our_laws_draw_has_curvature_and_coupling():
    """X = 0 makes the diagonal, the blocks and the whole Hessian one and the same: no edge may be that blind."""
    for spec in (*RIDGE_EDGES, *SOFTMAX_EDGES):
        A = spec.build().A
        assert np.abs(A - spec.lam * np.eye(len(A))).max() > 1e-4 * spec.lam, spec
    coupled = [spec.build().A for spec in (*RIDGE_EDGES, *SOFTMAX_EDGES)]
    shares = [np.abs(A - np.diag(np.diag(A))).max() / np.abs(A).max() for A in coupled if len(A) > 1]
    assert np.mean(np.array(shares) > 0.05) > 0.5
    for spec in MLP_EDGES:
        problem, theta = spec.build()
        H = problem.inner.linearize(theta).hvp(np.eye(theta.size))
        assert np.abs(H - np.diag(np.diag(H))).max() > 1e-3 * np.abs(H).max(), spec


def test_no_law_is_content_with_any_gradient():
    """What passes a test that the norm is above zero: a constant, random numbers, the gradient of another λ."""
    rng = np.random.default_rng(5)
    for wrong in (
        lambda problem, theta: np.ones_like(theta),
        lambda problem, theta: rng.standard_normal(theta.shape),
        lambda problem, theta: EXACT(problem.with_lam(1.01 * problem.lam), theta).gradient,
    ):
        with pytest.raises(LawViolation):
            check_meta_gradient(wrong, examples=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kappa", [1e1, 1e2, 1e3])
def test_the_floor_is_eps_times_kappa(dtype, kappa):
    """Forward errors of every solver: at most 64·eps·κ in either precision, and float64's are 10⁷ times smaller."""
    A, x = spd(8, 12, kappa)
    eps = float(np.finfo(dtype).eps)
    M, b = A.astype(dtype), (A @ x).astype(dtype)
    exact = np.linalg.solve(M.astype(np.float64), b.astype(np.float64))
    for solver in (Cholesky(), LU(), CG(200, 0.1 * eps), MINRES(200, 0.1 * eps)):
        error = np.linalg.norm(solver(M, b).value - exact) / np.linalg.norm(exact)
        assert error <= 64 * eps * kappa, solver


def test_tasks_with_one_hessian_share_a_solve():
    """Right-hand sides of several tasks under one A: the block is the loop, for a fraction of its steps."""
    A, _ = spd(9, 24, 1e3)
    B = np.random.default_rng(5).standard_normal((6, 24))
    block = BlockCG(200, 1e-11)(A, B)
    loop = [CG(200, 1e-11)(A, b) for b in B]
    for row, alone in zip(block.value, loop, strict=True):
        assert np.linalg.norm(row - alone.value) <= 2e-11 * 1e3 * np.linalg.norm(alone.value)
    assert max(int(s) for s in block.steps) < 0.6 * max(int(alone.steps) for alone in loop)
    assert all(status is Status.CONVERGED for status in block.status)
    factored = Cholesky()(A, B)
    assert np.array_equal(factored.value, np.stack([Cholesky()(A, b).value for b in B]))
    assert factored.cost == Cost(hvps=24 + 2)


def test_an_unconverged_solve_is_never_quiet():
    """Steps asked for are a success that says how far it got; a tolerance not met is none."""
    rng = np.random.default_rng(5)
    X, y, theta = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.standard_normal(3)
    problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X[::-1], y), 0.05)
    for steps in (5, 20):
        inner = GradientDescent(None, steps)(problem, theta)
        assert inner.status is Status.BUDGET_SPENT
        assert inner.residual_norm > 1e-8
    assert Newton(max_steps=0)(problem, theta).status is Status.MAX_STEPS
    assert GradientDescent(None, 5, rtol=1e-9)(problem, theta).status is Status.MAX_STEPS
