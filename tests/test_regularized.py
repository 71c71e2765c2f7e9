"""Other regularisers than λ/2 ‖φ − θ‖²: right transposes, right signs, and derivatives by the strength."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracles.losses import Counting, Diagonal

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    Cholesky,
    DiagonalQuadratic,
    GradientDescent,
    ImplicitFunction,
    ImplicitGradient,
    IndefiniteError,
    LeastSquares,
    LogCosh,
    MetaGradient,
    Newton,
    NewtonRoot,
    PseudoHuber,
    Quadratic,
    RegularizedProblem,
    RelativeEntropy,
    SoftmaxCrossEntropy,
    Status,
    UnrolledGradient,
    lambda_gradient,
)
from implicit_grad.testing.problems import RidgeSpec
from implicit_grad.testing.strategies import RIDGE_EDGES, ridge_specs, softmax_specs, with_edges

EPS = float(np.finfo(float).eps)
ROOT = NewtonRoot(linear_solver=Cholesky(refinements=2))


def weights_for(spec, decades):
    """One λ a parameter, spread over `decades` around the λ of the spec."""
    rng = np.random.default_rng([spec.seed, 7])
    return spec.lam * 10.0 ** rng.uniform(-decades / 2, decades / 2, size=spec.build().theta.size)


def solved(problem, theta, solver=None, start=None):
    phi = ROOT(problem, theta, theta if start is None else start)
    estimate = ImplicitFunction(problem, solver or Cholesky(refinements=2)).gradient(phi, theta, problem.outer)
    return phi, estimate


def dense(spec, weights):
    """H, b and φ* of a ridge problem with Λ, by dense algebra, and the condition number of H + Λ."""
    X, y, X_test, y_test, theta = spec.data()
    H = X.T @ X / len(y)
    A = H + np.diag(weights)
    phi = np.linalg.solve(A, X.T @ y / len(y) + weights * theta)
    b = X_test.T @ (X_test @ phi - y_test) / len(y_test)
    return H, A, b, phi, theta


@given(spec=ridge_specs(log10_ratio=st.integers(-3, 3)), decades=st.integers(0, 3))
@example(spec=RidgeSpec(size=4, n=3, seed=7), decades=3)
@example(spec=RidgeSpec(size=1, n=1, n_test=1, seed=8), decades=2)
def test_a_diagonal_regulariser_has_the_right_transpose(spec, decades):
    """g = Λ(H + Λ)⁻¹v on the test loss of φ*, backwards, forwards, and whitened."""
    weights = weights_for(spec, decades)
    _, A, b, star, theta = dense(spec, weights)
    wanted = weights * np.linalg.solve(A, b)
    case = spec.build()
    problem = RegularizedProblem(case.problem.inner, case.problem.outer, DiagonalQuadratic(weights))
    phi, estimate = solved(problem, theta)
    kappa = np.linalg.cond(A) * weights.max() / weights.min()
    size = case.test.gradient_abs(star) + case.test.curvature * np.linalg.norm(star)
    allowed = 64 * spec.size * kappa * EPS * size * (1 + case.test.curvature / weights.min())
    assert phi.status is Status.CONVERGED
    assert np.linalg.norm(estimate.unwrap() - wanted) <= allowed
    white, s = problem.whitened()
    assert np.linalg.norm(s * EXACT(white, s * theta).unwrap() - wanted) <= allowed
    # Forwards: the Jacobian times each axis, dotted with b, is the gradient backwards.
    function = ImplicitFunction(problem, Cholesky())
    forwards = [function.jvp(phi, theta, axis).unwrap() @ b for axis in np.eye(spec.size)]
    assert np.linalg.norm(forwards - wanted) <= allowed


def test_the_mistakes_about_a_diagonal_are_seen():
    """Where all of them differ by a tenth, the right answer is found to 1e-11: the law above tells them apart."""
    spec = RidgeSpec(size=4, n=3, seed=7)
    weights = weights_for(spec, 3)
    H, A, b, _, theta = dense(spec, weights)
    case = spec.build()
    problem = RegularizedProblem(case.problem.inner, case.problem.outer, DiagonalQuadratic(weights))
    found = solved(problem, theta)[1].unwrap()
    size = np.linalg.norm(found)
    assert np.linalg.norm(found - weights * np.linalg.solve(A, b)) <= 64 * np.linalg.cond(A) * EPS * size
    mistakes = {
        "no transpose": np.linalg.solve(A, weights * b),
        "wrong sign": -found,
        "no Λ": np.linalg.solve(A, b),
        "1/Λ": np.linalg.solve(H + np.diag(1 / weights), b) / weights,
        "2Λ": weights * np.linalg.solve(A + np.diag(weights), b),
        "mean of Λ": weights.mean() * np.linalg.solve(H + weights.mean() * np.eye(4), b),
    }
    for name, mistake in mistakes.items():
        assert np.linalg.norm(mistake - found) > 0.1 * size, name


@given(spec=st.one_of(ridge_specs(), softmax_specs()))
@with_edges(*RIDGE_EDGES)
def test_one_weight_for_all_is_the_bilevel_problem(spec):
    """`Quadratic(λ)`, `DiagonalQuadratic(λ, …, λ)` and `BilevelProblem(λ)` are one problem."""
    case = spec.build()
    wanted = EXACT(case.problem, case.theta).gradient
    for regularizer in (Quadratic(case.lam), DiagonalQuadratic(np.full(case.size, case.lam))):
        problem = RegularizedProblem(case.problem.inner, case.problem.outer, regularizer)
        _, estimate = solved(problem, case.theta)
        assert np.linalg.norm(estimate.gradient - wanted) <= 2 * case.tol_exact()


SHAPES = {
    "diagonal": lambda lam, rng: DiagonalQuadratic(lam * rng.uniform(0.2, 5, size=4)),
    "log-cosh": lambda lam, rng: LogCosh(lam, 0.8),
    "pseudo-Huber": lambda lam, rng: PseudoHuber(lam, 0.8),
    "entropy": lambda lam, rng: RelativeEntropy(lam),
}


def curved_problem(name, lam, seed):
    """Softmax regression, which is not quadratic, around a positive θ."""
    rng = np.random.default_rng(seed)
    X, X_test = rng.standard_normal((2, 8, 2))
    losses = [SoftmaxCrossEntropy(x, rng.integers(2, size=8), 2) for x in (X, X_test)]
    return RegularizedProblem(*losses, SHAPES[name](lam, rng)), rng.uniform(0.5, 2, size=4), rng


def richardson(f, h):
    """f'(0) from two central differences, with an error of O(h⁴)."""
    return (8 * (f(h / 2) - f(-h / 2)) - (f(h) - f(-h))) / (6 * (h / 2) * 2)


def difference_tolerance(F, derivative, h, lam):
    """Rounding of F over h, and the h⁴ term with the fifth derivative sized by F and the derivative."""
    return 64 * EPS * abs(F) * (1 + 1 / lam) / h + 64 * h**4 * (abs(F) + abs(derivative)) * (1 + 1 / lam) ** 2


@pytest.mark.parametrize("lam", [0.05, 0.6, 4.0])
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", [5, 6])
def test_the_gradient_is_the_slope_of_refitted_losses(name, lam, seed):
    """Law 50: central differences of L_test(φ*(θ ± hv)) with φ* found anew equal g·v."""
    problem, theta, rng = curved_problem(name, lam, seed)
    phi, estimate = solved(problem, theta)
    g, h = estimate.unwrap(), 2e-3
    for _ in range(3):
        v = rng.standard_normal(4)
        v /= np.linalg.norm(v)

        def refit(t, v=v):
            return float(problem.outer.value(ROOT(problem, theta + t * v, theta).unwrap()))

        allowed = difference_tolerance(refit(0), np.linalg.norm(g), h, lam)
        assert allowed < 1e-3 * np.linalg.norm(g)  # or the test could not fail
        assert abs(richardson(refit, h) - g @ v) <= allowed
    # The adjoint test: ⟨u, J w⟩ = ⟨Jᵀu, w⟩.
    function = ImplicitFunction(problem, Cholesky())
    u, w = rng.standard_normal((2, 4))
    forwards, backwards = function.jvp(phi, theta, w).unwrap(), function.vjp(phi, theta, u).unwrap()
    assert abs(u @ forwards - backwards @ w) <= 64 * EPS * (1 + 1 / lam) ** 2 * np.linalg.norm(u) * np.linalg.norm(w)
    if name == "entropy":  # taking D for C is a mistake that only this one can show
        D, C = (f(phi.value, theta) for f in (problem.regularizer.curvature, problem.regularizer.coupling))
        assert np.linalg.norm(g * D / C - g) > 1e-2 * np.linalg.norm(g)


@pytest.mark.parametrize("lam", [0.05, 0.6, 4.0])
@pytest.mark.parametrize("name", SHAPES)
def test_the_derivative_by_the_strength_is_the_slope_over_it(name, lam):
    """Law 49, for every regulariser; weight by weight where there are several."""
    problem, theta, _ = curved_problem(name, lam, 7)
    _, estimate = solved(problem, theta)
    found, h = lambda_gradient(problem, theta, estimate), 2e-3
    strength = "weights" if name == "diagonal" else "lam"
    base = getattr(problem.regularizer, strength)
    for i, axis in enumerate(np.eye(4) if name == "diagonal" else [1.0]):

        def refit(t, axis=axis):
            changed = replace(problem.regularizer, **{strength: base * (1 + t * axis)})
            return float(problem.outer.value(ROOT(replace(problem, regularizer=changed), theta, theta).unwrap()))

        slope = richardson(refit, h) / (base[i] if name == "diagonal" else base)
        wanted = found[i] if name == "diagonal" else found
        unit = base[i] if name == "diagonal" else base
        assert abs(slope - wanted) <= difference_tolerance(refit(0), abs(wanted * unit), h, lam) / unit
        assert abs(wanted * unit) > 1e3 * difference_tolerance(refit(0), abs(wanted * unit), h, lam)


@given(spec=st.one_of(ridge_specs(log10_ratio=st.integers(-3, 4)), softmax_specs(log10_ratio=st.integers(-3, 3))))
def test_the_derivative_by_lam_has_its_closed_form(spec):
    """dF/dλ = −(φ* − θ)ᵀA⁻¹b with the oracle's φ*, A and b; and the same from every way to have g."""
    case = spec.build()
    step = case.star - case.theta
    wanted = -float(step @ np.linalg.solve(case.A, case.b))
    length = np.linalg.norm(step) + np.linalg.norm(case.star) + np.linalg.norm(case.theta)
    # g is off by tol_exact, φ* − θ by the rounding of two inner solves.
    allowed = (case.tol_exact() * length + np.linalg.norm(case.g) * 2 * case.tol_phi()) / case.lam
    estimate = EXACT(case.problem, case.theta)
    assert abs(lambda_gradient(case.problem, case.theta, estimate) - wanted) <= allowed
    problem = RegularizedProblem(case.problem.inner, case.problem.outer, Quadratic(case.lam))
    _, estimate = solved(problem, case.theta)
    assert abs(lambda_gradient(problem, case.theta, estimate) - wanted) <= allowed


def test_the_derivative_by_lam_tells_its_mistakes():
    """Where they differ: the sign, φ − θ for θ − φ, φ alone, λ for 1/λ."""
    case = RidgeSpec(size=4, n=6, log10_lam=-1, seed=5).build()
    found = lambda_gradient(case.problem, case.theta, EXACT(case.problem, case.theta))
    step, lam, g = case.star - case.theta, case.lam, case.g
    for mistake in (step @ g / lam, -step @ g * lam, -step @ g, -case.star @ g / lam):
        assert abs(found - mistake) > 0.1 * abs(found)
    assert abs(found + step @ g / lam) <= 1e4 * EPS * np.linalg.norm(step) * np.linalg.norm(g) / lam


def test_lambda_gradients_come_in_batches_and_trees():
    import autograd.numpy as anp

    from implicit_grad import Autodiff

    specs = [RidgeSpec(size=3, n=4, n_test=4, seed=seed) for seed in (5, 6)]
    data = [np.stack(each) for each in zip(*(spec.data() for spec in specs), strict=True)]
    X, y, X_test, y_test, theta = data
    lam = np.array([[0.3], [5.0], [1e-3]])
    problem = BilevelProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), lam)
    many = lambda_gradient(problem, theta, EXACT(problem, theta))
    assert many.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        one = BilevelProblem(LeastSquares(X[j], y[j]), LeastSquares(X_test[j], y_test[j]), lam[i])
        single = lambda_gradient(one.with_lam(float(lam[i, 0])), theta[j], EXACT(one.with_lam(lam[i, 0]), theta[j]))
        assert abs(many[i, j] - single) <= 1e3 * EPS * abs(single)

    def loss(X, y):
        return Autodiff(lambda p: 0.5 * anp.mean((anp.dot(X[:, :2], p["a"]) + X[:, 2] * p["b"] - y) ** 2))

    tree = {"a": theta[0][:2], "b": theta[0][2]}
    as_tree = BilevelProblem(loss(X[0], y[0]), loss(X_test[0], y_test[0]), 0.3)
    found = lambda_gradient(as_tree, tree, EXACT(as_tree, tree))
    assert abs(found - many[0, 0]) <= 1e3 * EPS * abs(many[0, 0])


@pytest.mark.parametrize(
    "method",
    [
        MetaGradient(Newton(), ImplicitGradient(CG(40, 1e-14))),
        MetaGradient(GradientDescent(None, 4000, record=True), UnrolledGradient()),
        MetaGradient(GradientDescent(None, 4000), ImplicitGradient(Cholesky())),
    ],
    ids=["CG", "unrolled", "descent"],
)
def test_every_method_runs_on_the_whitened_problem(method):
    """Per-parameter λ with the solvers and estimators of one λ; whitening preconditions, so descent is quick."""
    spec = RidgeSpec(size=4, n=6, seed=9)
    weights = weights_for(spec, 2)
    _, A, b, _, theta = dense(spec, weights)
    case = spec.build()
    problem = RegularizedProblem(case.problem.inner, case.problem.outer, DiagonalQuadratic(weights))
    white, s = problem.whitened()
    wanted = weights * np.linalg.solve(A, b)
    assert np.linalg.norm(s * method(white, s * theta).unwrap() - wanted) <= 1e5 * EPS * np.linalg.norm(wanted)


@given(spec=st.one_of(ridge_specs(), softmax_specs()), decades=st.integers(0, 3))
def test_the_curvature_of_a_stretched_loss_is_bounded(spec, decades):
    """λ_max of Λ^{−½}HΛ^{−½} ≤ the bound; descent with a step from it cannot diverge."""
    case, weights = spec.build(), weights_for(spec, decades)
    white, s = RegularizedProblem(case.problem.inner, case.problem.outer, DiagonalQuadratic(weights)).whitened()
    H = case.train.hessian(case.theta) / np.outer(s, s)
    bound = float(white.inner.curvature_bound())
    assert np.linalg.norm(H, 2) <= bound * (1 + 64 * case.size * EPS)
    assert bound <= case.train.curvature / s.min() ** 2 * (1 + 64 * case.size * EPS)


def test_whitening_needs_a_quadratic():
    problem, _, _ = curved_problem("log-cosh", 0.3, 5)
    with pytest.raises(ArgumentTypeError, match="regularizer: LogCosh is not quadratic"):
        problem.whitened()


@pytest.mark.parametrize("solver", [Cholesky(), CG(8)], ids=lambda s: s.label)
def test_a_saddle_among_good_problems(solver):
    """Problem 1 of three is a saddle: its derivative is NaN and INDEFINITE, the others are what they are alone."""
    h = np.array([[1.0, 2.0], [1.0, -3.0], [4.0, 0.5]])
    weights = np.array([0.5, 0.7])
    test = LeastSquares(np.eye(2), np.ones(2))
    theta, phi = np.zeros(2), np.zeros((3, 2))  # 0 is stationary for every h
    problem = RegularizedProblem(Diagonal(h), test, DiagonalQuadratic(weights))
    estimate = ImplicitFunction(problem, solver).gradient(phi, theta, test)
    # φ = θ = 0: the terms that cancel are all 0, and so is F.
    assert [s.name for s in estimate.inner.status] == ["CONVERGED"] * 3
    assert np.isnan(estimate.gradient[1]).all()
    assert estimate.status[1] is Status.INDEFINITE
    for i in (0, 2):
        wanted = weights / (h[i] + weights) * test.gradient(np.zeros(2))
        assert np.linalg.norm(estimate.gradient[i] - wanted) <= 16 * EPS
    with pytest.raises(IndefiniteError):
        estimate.unwrap()
    by_weight = lambda_gradient(problem, theta, estimate)
    assert np.isnan(by_weight[1]).all()
    assert np.isfinite(by_weight[[0, 2]]).all()


@pytest.mark.parametrize("weight", [1e-300, 1e-150, 1e150, 1e300])
def test_extreme_weights_neither_overflow_nor_lose_digits(weight):
    """Tiny ones as they are; with huge ones H + Λ is singular in this precision, and the whitened problem is not."""
    h, b = np.array([0.5, 2.0]), np.array([1.0, -3.0])
    problem = RegularizedProblem(Diagonal(h), Diagonal(np.zeros(2), -b), DiagonalQuadratic([weight, 1.0]))
    wanted = np.array([weight / (h[0] + weight) if weight < 1 else 1 / (1 + h[0] / weight), 1 / 3]) * b
    estimate = ImplicitFunction(problem, CG(4)).gradient(np.zeros(2), np.zeros(2), problem.outer)
    if weight > 1:
        assert not estimate.ok
        white, s = problem.whitened()
        assert np.linalg.norm(s * EXACT(white, np.zeros(2)).unwrap() / wanted - 1) <= 64 * EPS
    else:
        assert np.linalg.norm(estimate.unwrap() / wanted - 1) <= 64 * EPS


@pytest.mark.parametrize("solver", [Cholesky(), CG(3), CG(9, 1e-12)], ids=lambda s: s.label)
def test_costs_are_what_a_counting_loss_sees(solver):
    problem, theta, _ = curved_problem("pseudo-Huber", 0.3, 5)
    phi = ROOT(problem, theta, theta)
    train = Counting(problem.inner, Counter())
    estimate = ImplicitFunction(replace(problem, inner=train), solver).gradient(phi, theta, problem.outer)
    # In units of F. Of the products with ∂_θF = −C, one for the verdict and one for g, the loss sees none, and the
    # gradient of the test loss is not asked of the train loss.
    assert estimate.cost.hvps - phi.cost.hvps - 2 == train.calls["hvps"]
    assert estimate.cost.gradients - phi.cost.gradients - 1 == train.calls["gradients"]
    assert not train.calls["hessians"] + train.calls["values"]


def test_a_batch_is_its_problems():
    """λ axes against task axes, through Newton, the solve and the derivative."""
    specs = [RidgeSpec(size=3, n=4, n_test=4, seed=seed) for seed in (5, 6)]
    X, y, X_test, y_test, theta = (np.stack(each) for each in zip(*(spec.data() for spec in specs), strict=True))
    theta = np.abs(theta) + 0.1  # an entropy wants it positive, and a λ that keeps φ* from e^−100
    for kind, lowest in ((Quadratic, 0.01), (LogCosh, 0.01), (PseudoHuber, 0.01), (RelativeEntropy, 20.0)):
        lam = lowest * np.array([[30.0], [500.0], [1.0]])
        batch = RegularizedProblem(LeastSquares(X, y), LeastSquares(X_test, y_test), kind(lam))
        assert batch.batch_shape == (3, 2)
        for solver in (Cholesky(), CG(20, 1e-13)):
            _, many = solved(batch, theta, solver)
            assert many.gradient.shape == (3, 2, 3)
            for i, j in np.ndindex(3, 2):
                losses = LeastSquares(X[j], y[j]), LeastSquares(X_test[j], y_test[j])
                one = solved(RegularizedProblem(*losses, kind(lam[i, 0])), theta[j], solver)[1]
                size = np.linalg.norm(one.gradient)
                assert np.linalg.norm(many.gradient[i, j] - one.gradient) <= 1e6 * EPS * size
                assert many.status[i, j] is Status.CONVERGED


def test_bad_problems_are_refused_by_name():
    loss = LeastSquares(np.eye(2), np.ones(2))
    with pytest.raises(ArgumentTypeError, match="regularizer: expected a value such as"):
        RegularizedProblem(loss, loss, 0.5)
    with pytest.raises(ArgumentTypeError, match="regularizer"):
        RegularizedProblem(loss, loss, Quadratic)
    with pytest.raises(ArgumentTypeError, match="inner"):
        RegularizedProblem(lambda w: w, loss, Quadratic(0.5))
    with pytest.raises(ArgumentError, match="regularizer: 4 weights for 2 parameters"):
        RegularizedProblem(loss, loss, DiagonalQuadratic(np.ones(4)))
    three = LeastSquares(np.stack([np.eye(2)] * 3), np.ones((3, 2)))
    with pytest.raises(ArgumentError, match="regularizer: the batch axes"):
        RegularizedProblem(three, loss, Quadratic(np.array([0.5, 2.0])))
    problem = RegularizedProblem(loss, loss, Quadratic(0.5))
    estimate = EXACT(BilevelProblem(loss, loss, 0.5), np.zeros(2))
    with pytest.raises(ArgumentTypeError, match="problem: expected a bilevel problem"):
        lambda_gradient(loss, np.zeros(2), estimate)
    with pytest.raises(ArgumentTypeError, match="estimate: holds no linear solve"):
        lambda_gradient(problem, np.zeros(2), replace(estimate, linear=None))
    with pytest.raises(ArgumentError, match="theta: shape"):
        lambda_gradient(BilevelProblem(loss, loss, 0.5), np.zeros((3, 2)), estimate)
