"""Implicit functions of any F(φ, θ) = 0: derivatives known by construction, verdicts, costs, and bad input."""

import warnings
from collections import Counter
from dataclasses import dataclass, replace

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracles.losses import Diagonal

from implicit_grad import (
    CG,
    EXACT,
    MINRES,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    AutodiffMap,
    Cholesky,
    ConvergenceError,
    Cost,
    FixedPoint,
    GeneralGMRES,
    GeneralLU,
    ImplicitFunction,
    IndefiniteError,
    LeastSquares,
    LinearizedMap,
    LossError,
    NewtonRoot,
    NonFiniteError,
    Solution,
    StationarityMap,
    Status,
)
from implicit_grad.testing.matrices import orthogonal
from implicit_grad.testing.strategies import RIDGE_EDGES, SEEDS, ridge_specs, softmax_specs, with_edges

EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class MapSpec:
    """F(φ, θ) = A(φ − φ₀) + ½κ(φ − φ₀)² − B(θ − θ₀), κ a curvature: φ₀ is the root at θ₀, with derivative A⁻¹B."""

    size: int = 3
    inputs: int = 2
    spread: int = 1
    log10_scale: int = 0
    seed: int = 5

    def build(self):
        rng = np.random.default_rng(self.seed)
        sigma = 10.0 ** (self.log10_scale - self.spread * np.arange(self.size) / max(1, self.size - 1))
        A = (orthogonal(rng, self.size) * sigma) @ orthogonal(rng, self.size).T
        B = rng.standard_normal((self.size, self.inputs)) * 10.0**self.log10_scale
        phi, theta = rng.standard_normal(self.size), rng.standard_normal(self.inputs)
        bend = rng.standard_normal(self.size) * 10.0**self.log10_scale

        def F(p, t):
            step = p - phi
            return anp.dot(A, step) + 0.5 * bend * step**2 - anp.dot(B, t - theta)

        return AutodiffMap(F), A, B, phi, theta

    @property
    def kappa(self):
        return 10.0 ** (self.spread if self.size > 1 else 0)


MAPS = st.builds(
    MapSpec,
    size=st.integers(1, 6),
    inputs=st.integers(1, 5),
    spread=st.integers(0, 4),
    log10_scale=st.integers(-6, 6),
    seed=SEEDS,
)


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(9), GeneralGMRES(9, 1e-13)], ids=lambda s: s.label)
@given(spec=MAPS)
@example(spec=MapSpec(size=1, inputs=1, seed=7))
@example(spec=MapSpec(size=5, inputs=2, spread=4, log10_scale=-6, seed=8))
def test_derivatives_are_those_of_the_theorem(solver, spec):
    """dφ*/dθ = A⁻¹B, forwards and backwards, from dense algebra; and ⟨u, Jw⟩ = ⟨Jᵀu, w⟩."""
    F, A, B, phi, theta = spec.build()
    rng = np.random.default_rng([spec.seed, 3])
    u, w = rng.standard_normal(spec.size), rng.standard_normal(spec.inputs)
    function = ImplicitFunction(F, solver)
    forwards, backwards = function.jvp(phi, theta, w), function.vjp(phi, theta, u)
    # ‖J‖ ≤ ‖A⁻¹‖‖B‖, and a solve is good to κ·eps.
    size = np.linalg.norm(np.linalg.inv(A), 2) * np.linalg.norm(B, 2)
    allowed = 64 * spec.size * spec.kappa * EPS * size
    assert np.linalg.norm(forwards.unwrap() - np.linalg.solve(A, B @ w)) <= allowed * np.linalg.norm(w)
    assert np.linalg.norm(backwards.unwrap() - B.T @ np.linalg.solve(A.T, u)) <= allowed * np.linalg.norm(u)
    assert abs(u @ forwards.value - backwards.value @ w) <= allowed * np.linalg.norm(u) * np.linalg.norm(w)
    # At φ₀ every term of F is exactly zero.
    assert forwards.root.residual_norm == 0
    assert forwards.status is backwards.status is Status.CONVERGED


def test_the_mistakes_about_a_nonsymmetric_map_are_seen():
    """A missing transpose, a wrong sign, and ½(A + Aᵀ) are each far off where the right answer is good to 1e-13."""
    F, A, B, phi, theta = MapSpec(size=4, inputs=4, seed=6).build()
    u = np.array([1.0, -2.0, 0.5, 3.0])
    found = ImplicitFunction(F).vjp(phi, theta, u).unwrap()
    assert np.linalg.norm(found - B.T @ np.linalg.solve(A.T, u)) <= 64 * 40 * EPS * np.linalg.norm(found)
    symmetric = 0.5 * (A + A.T)
    for mistake in (
        B.T @ np.linalg.solve(A, u),
        B @ np.linalg.solve(A.T, u),
        -found,
        B.T @ np.linalg.solve(symmetric, u),
        B.T @ A @ u,
    ):
        assert np.linalg.norm(mistake - found) > 0.1 * np.linalg.norm(found)


@pytest.mark.parametrize("solver", [Cholesky(), CG(40, 1e-10), CG(4), MINRES(40, 1e-10)], ids=lambda s: s.label)
def test_a_solver_that_counts_on_symmetry_is_found_out(solver):
    """∂_φF is positive definite, but not symmetric: no solver for curvatures may call its answer converged."""
    A = np.array([[2.0, 1.5, 0.0, 0.2], [-1.5, 3.0, 1.0, 0.0], [0.3, -1.0, 2.5, 1.2], [0.0, 0.1, -1.2, 4.0]])
    F = AutodiffMap(lambda p, t: anp.dot(A, p) - t)
    theta = np.array([1.0, -1.0, 2.0, 0.5])
    derivative = ImplicitFunction(F, solver).vjp(np.linalg.solve(A, theta), theta, np.ones(4))
    wanted = np.linalg.solve(A.T, np.ones(4))
    assert not np.linalg.norm(derivative.value - wanted) <= 1e-3  # NaN is not right either
    assert derivative.status is not Status.CONVERGED
    if solver != CG(4):  # which promises k steps, and no more
        with pytest.raises(ConvergenceError):
            derivative.unwrap()


@given(spec=st.one_of(ridge_specs(), softmax_specs()))
@with_edges(*RIDGE_EDGES)
def test_imaml_is_one_of_them(spec):
    """F = ∇L + λ(φ − θ), traced: ∇F(θ) equals the specialised path."""
    case = spec.build()
    X, y = case.train.X, getattr(case.train, "y", None)

    def gradient(p):
        if y is not None:
            return anp.dot(X.T, anp.dot(X, p) - y) / len(y)
        z = anp.dot(X, anp.reshape(p, (X.shape[1], -1)))
        z = z - anp.max(z, axis=1, keepdims=True)
        e = anp.exp(z)
        labels = np.eye(case.train.n_classes)[case.train.labels]
        return anp.ravel(anp.dot(X.T, e / anp.sum(e, axis=1, keepdims=True) - labels)) / len(X)

    F = AutodiffMap(lambda p, t: gradient(p) + case.lam * (p - t))
    exact = EXACT(case.problem, case.theta)
    for solver in (Cholesky(refinements=2), GeneralLU(refinements=2)):
        estimate = ImplicitFunction(F, solver).gradient(exact.inner, case.theta, case.problem.outer)
        assert np.linalg.norm(estimate.gradient - exact.gradient) <= 2 * case.tol_exact()
        assert estimate.status in (Status.CONVERGED, Status.ILL_CONDITIONED)


def test_the_outer_loss_may_depend_on_theta_directly():
    """E = ½‖φ‖² + θᵀφ + sin θ₀: forgetting ∂_θE is a mistake this sees."""
    F, A, B, phi, theta = MapSpec(size=3, inputs=3, seed=7).build()

    def E(p, t):
        return 0.5 * anp.sum(p**2) + anp.dot(t, p) + anp.sin(t[0])

    estimate = ImplicitFunction(F).gradient(phi, theta, E)
    direct = phi + np.array([np.cos(theta[0]), 0, 0])
    wanted = direct + B.T @ np.linalg.solve(A.T, phi + theta)
    assert np.linalg.norm(estimate.unwrap() - wanted) <= 64 * 30 * EPS * np.linalg.norm(wanted)
    assert np.linalg.norm(direct) > 0.1
    closed = ImplicitFunction(F).gradient(phi, theta, Diagonal(np.ones(3)))
    traced = ImplicitFunction(F).gradient(phi, theta, lambda p, t: 0.5 * anp.sum(p**2))
    assert np.array_equal(closed.gradient, traced.gradient)
    assert closed.cost == traced.cost


# ---- fixed points

W = np.array([[0.3, -0.7, 0.1], [0.6, 0.2, -0.5], [-0.3, 0.4, 0.3]])
U = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.2]])


def layer(phi, theta):
    """One layer of an equilibrium network, with a nonsymmetric W."""
    return anp.tanh(anp.dot(W, phi) + anp.dot(U, theta))


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(3), GeneralGMRES(9, 1e-13)], ids=lambda s: s.label)
def test_a_fixed_point_has_the_derivative_of_its_closed_form(solver):
    """(I − DW)⁻¹DU with D = diag(1 − φ²), and central differences of the iteration run to its end."""
    theta = np.array([0.4, -0.3])

    def iterate(t):
        phi = np.zeros(3)
        for _ in range(2000):
            phi = np.tanh(W @ phi + U @ t)
        return phi

    phi, F = iterate(theta), FixedPoint(AutodiffMap(layer))
    D = 1 - phi[:, None] ** 2
    J = np.linalg.solve(np.eye(3) - D * W, D * U)
    function, kappa = ImplicitFunction(F, solver), np.linalg.cond(np.eye(3) - D * W)
    for i, axis in enumerate(np.eye(3)):
        row = function.vjp(phi, theta, axis).unwrap()
        assert np.linalg.norm(row - J[i]) <= 64 * 3 * kappa * EPS * np.linalg.norm(J)
    for j, axis in enumerate(np.eye(2)):
        column = function.jvp(phi, theta, axis).unwrap()
        assert np.linalg.norm(column - J[:, j]) <= 64 * 3 * kappa * EPS * np.linalg.norm(J)
        h = 1e-3
        slope = (8 * (iterate(theta + h * axis) - iterate(theta - h * axis))) / (12 * h)
        slope -= (iterate(theta + 2 * h * axis) - iterate(theta - 2 * h * axis)) / (12 * h)
        # The next term is h⁴ times a fifth derivative of order 4!·κ⁵; the rounding, κ·eps/h.
        assert np.linalg.norm(slope - column) <= 24 * kappa**5 * h**4 + 8 * kappa * EPS / h
    found = NewtonRoot()(F, theta, np.zeros(3))
    assert np.linalg.norm(found.unwrap() - phi) <= 64 * kappa * EPS * np.linalg.norm(phi)


def test_a_fixed_point_need_not_attract():
    """Φ = 3φ − θ: iterating explodes, φ* = θ/2 all the same."""
    F = FixedPoint(AutodiffMap(lambda p, t: 3 * p - t))
    theta = np.array([1.0, -4.0])
    phi = NewtonRoot()(F, theta, np.zeros(2))
    assert np.array_equal(phi.unwrap(), [0.5, -2.0])
    assert np.array_equal(ImplicitFunction(F).vjp(phi, theta, np.array([1.0, 3.0])).unwrap(), [0.5, 1.5])


def test_fixed_points_of_fixed_points_keep_their_batch():
    many = AutodiffMap(lambda p, t: anp.tanh(0.5 * p[..., ::-1] + t), broadcasts=True)
    theta = np.linspace(-1, 1, 8).reshape(4, 2)
    F = FixedPoint(many)
    phi = NewtonRoot()(F, theta, np.zeros(2))
    loop = FixedPoint(AutodiffMap(lambda p, t: anp.tanh(0.5 * p[::-1] + t)))
    again = NewtonRoot()(loop, theta, np.zeros(2))
    assert np.array_equal(phi.unwrap(), again.unwrap())
    one, two = (ImplicitFunction(f).vjp(phi, theta, np.ones(2)) for f in (F, loop))
    assert np.linalg.norm(one.unwrap() - two.unwrap()) <= 16 * EPS * np.linalg.norm(one.value)


# ---- verdicts


def square_root(p, t):
    return p**2 - t


def test_a_point_that_is_no_root_is_called_so():
    function, theta = ImplicitFunction(AutodiffMap(square_root)), np.array([4.0, 9.0])
    good, bad = function.judge([2.0, 3.0], theta), function.judge([2.0, 3.001], theta)
    assert (good.status, bad.status) == (Status.CONVERGED, Status.MAX_STEPS)
    assert good.residual_norm == 0
    assert abs(bad.residual_norm - (3.001**2 - 9)) <= 16 * EPS
    derivative = function.vjp([2.0, 3.001], theta, np.ones(2))
    assert derivative.status is Status.MAX_STEPS
    assert np.isfinite(derivative.value).all()  # told, not hidden
    assert not derivative.ok
    with pytest.raises(ConvergenceError, match="the given phi"):
        derivative.unwrap()
    # ‖∂_φF φ‖ + ‖∂_θF θ‖ = 3‖θ‖ near the root: the tolerance is relative to that.
    size = 3 * np.linalg.norm(theta)
    for factor, wanted in ((0.9, Status.CONVERGED), (1.1, Status.MAX_STEPS)):
        off = np.sqrt(theta + np.array([0.0, factor * 1e-6 * size]))
        assert function.judge(off, theta).status is wanted


def test_a_solution_brings_its_own_verdict():
    function, theta = ImplicitFunction(AutodiffMap(square_root)), np.array([4.0])
    handed = Solution(np.array([2.1]), 0.0, 7, Status.BUDGET_SPENT, "mine", cost=Cost(gradients=5))
    derivative = function.vjp(handed, theta, np.ones(1))
    assert derivative.ok
    assert derivative.root.status is Status.BUDGET_SPENT
    assert abs(derivative.root.residual_norm - 0.41) <= 4 * EPS  # recomputed: it said 0
    assert derivative.root.solver == "mine"
    failed = function.vjp(replace(handed, status=Status.DIVERGED), theta, np.ones(1))
    assert failed.status is Status.DIVERGED
    with pytest.raises(ConvergenceError, match="DIVERGED"):
        failed.unwrap()
    assert function.vjp(replace(handed, value=np.array([2.0])), theta, np.ones(1)).value == 0.25


def test_a_saddle_is_a_root_and_no_minimum():
    """F = ∇(½φ₀² − ½φ₁² + …): a general solver gives the formal derivative, one for curvatures refuses."""
    F = AutodiffMap(lambda p, t: np.array([1.0, -1.0]) * p - t)
    theta = np.array([0.3, 0.7])
    phi = NewtonRoot()(F, theta, np.zeros(2))
    assert ImplicitFunction(F).vjp(phi, theta, np.ones(2)).unwrap().tolist() == [1.0, -1.0]
    for solver in (Cholesky(), CG(5), CG(5, 1e-9)):
        derivative = ImplicitFunction(F, solver).jvp(phi, theta, np.ones(2))
        assert derivative.status is Status.INDEFINITE
        assert np.isnan(derivative.value).all()
        with pytest.raises(IndefiniteError):
            derivative.unwrap()


def test_a_singular_jacobian_has_no_derivative():
    """φ² = θ at θ = 0: the root is double."""
    derivative = ImplicitFunction(AutodiffMap(square_root)).vjp([0.0], [0.0], [1.0])
    assert derivative.status is Status.NONFINITE
    assert np.isnan(derivative.value).all()


def test_what_does_not_depend_on_theta_is_said_to():
    F = AutodiffMap(lambda p, t: p - np.ones(2))
    with pytest.warns(UserWarning, match="F does not depend on theta"):
        derivative = ImplicitFunction(F).vjp(np.ones(2), np.ones(3), np.ones(2))
    assert np.array_equal(derivative.value, np.zeros(3))
    with warnings.catch_warnings():  # a θ that enters with slope zero is no mistake
        warnings.simplefilter("error")
        flat = ImplicitFunction(AutodiffMap(lambda p, t: p - t**2)).vjp([0.0], [0.0], [1.0])
    assert flat.value == 0


def test_a_map_that_does_not_depend_on_phi_has_a_singular_jacobian():
    derivative = ImplicitFunction(AutodiffMap(lambda p, t: t - np.ones(2))).vjp(np.ones(2), np.ones(2), np.ones(2))
    assert derivative.status is Status.NONFINITE


def test_a_bad_problem_leaves_its_neighbours_alone():
    """Of four problems one is no root, and one infinite."""
    F = AutodiffMap(lambda p, t: anp.exp(p) * (np.inf if p[0] > 900 else 1.0) - t[:1])
    theta = np.array([[2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [0.5, 0.0]])
    phi = np.log(theta[:, :1])
    phi[1] += 0.1
    phi[2] = 1000.0
    with np.errstate(over="ignore"):
        assert not np.isfinite(F.value(phi[2], theta[2])).any()
    derivative = ImplicitFunction(F).vjp(phi, theta, np.ones(1))
    for status in (derivative.status, derivative.root.status):
        assert [s.name for s in status] == ["CONVERGED", "MAX_STEPS", "NONFINITE", "CONVERGED"]
    for i in (0, 3):
        assert abs(derivative.value[i, 0] - 1 / theta[i, 0]) <= 8 * EPS / theta[i, 0]
        alone = ImplicitFunction(F).vjp(phi[i], theta[i], np.ones(1))
        assert np.array_equal(alone.value, derivative.value[i])


def test_batch_axes_broadcast():
    """One φ, many θ; directions and data with axes of their own."""
    A = np.array([[2.0, 1.0], [-1.0, 3.0]])
    F = AutodiffMap(lambda p, t: anp.dot(A, p) - t)
    theta = np.arange(12.0).reshape(3, 2, 2)
    phi = np.linalg.solve(A, theta[..., None])[..., 0]
    u = np.arange(4.0).reshape(2, 2) + 1
    back = ImplicitFunction(F).vjp(phi, theta, u)
    assert back.value.shape == (3, 2, 2)
    for i, j in np.ndindex(3, 2):
        assert np.array_equal(back.value[i, j], ImplicitFunction(F).vjp(phi[i, j], theta[i, j], u[j]).value)
    same = ImplicitFunction(F).jvp(phi[0, 0], theta[0, 0], [1.0, 0.0])
    shared = ImplicitFunction(F).jvp(np.broadcast_to(phi[0, 0], (3, 2)), theta[0, 0], [1.0, 0.0])
    assert np.array_equal(shared.value, np.broadcast_to(same.value, (3, 2)))


# ---- costs


class CountingMap:
    """A map that counts for how many problems it was evaluated, linearised and multiplied."""

    def __init__(self, F):
        self.F, self.calls = F, Counter()

    def value(self, phi, theta):
        self.calls["gradients"] += int(np.prod(phi.shape[:-1]))
        return self.F.value(phi, theta)

    def linearize(self, phi, theta):
        self.calls["gradients"] += int(np.prod(phi.shape[:-1]))
        return self._counted(self.F.linearize(phi, theta))

    def _counted(self, at):
        def count(product):
            def apply(v):
                self.calls["hvps"] += int(np.prod(v.shape[:-1]))
                return product(v)

            return apply

        names = ("phi_product", "phi_adjoint", "theta_product", "theta_adjoint")
        row = None if at.row is None else lambda index: self._counted(at.row(index))
        return replace(at, **{name: count(getattr(at, name)) for name in names}, row=row)


@pytest.mark.parametrize(
    "solver", [GeneralLU(), GeneralLU(3), GeneralGMRES(2), GeneralGMRES(5, 1e-9), CG(2), Cholesky()], ids=str
)
@pytest.mark.parametrize("batch", [(), (4,)])
def test_costs_are_counted_exactly(solver, batch):
    """Per problem of the batch; every solver takes the same number of products for each of these problems."""
    A = np.array([[2.0, 0.5, 0.0], [0.5, 3.0, 1.0], [0.0, 1.0, 4.0]])
    theta = np.broadcast_to(np.array([1.0, -2.0, 0.5]), (*batch, 3))
    phi = np.broadcast_to(np.linalg.solve(A, theta[..., None])[..., 0], (*batch, 3))
    for derive in (
        lambda f: f.vjp(phi, theta, np.arange(1.0, 4)),
        lambda f: f.jvp(phi, theta, np.arange(1.0, 4)),
        lambda f: f.judge(phi, theta),
    ):
        F = CountingMap(AutodiffMap(lambda p, t: anp.dot(A, p) - t))
        cost = derive(ImplicitFunction(F, solver)).cost
        assert {what: n / int(np.prod(batch)) for what, n in F.calls.items()} == {
            "gradients": cost.gradients,
            "hvps": cost.hvps,
        }


@pytest.mark.parametrize("solver", [GeneralLU(), GeneralGMRES(2)], ids=str)
@pytest.mark.parametrize("start", [0.5, 3.0, -40.0])
def test_costs_of_newton_are_counted_exactly(solver, start):
    F = CountingMap(AutodiffMap(lambda p, t: anp.exp(p) + p[::-1] - t))
    root = NewtonRoot(linear_solver=solver)(F, np.array([2.0, 1.0]), np.full(2, start))
    assert {"gradients": root.cost.gradients, "hvps": root.cost.hvps} == dict(F.calls)


def test_f_is_evaluated_once_for_each_argument():
    """However many products are asked for: the second trace is made when ∂_θF is first wanted."""
    calls = Counter()

    def F(p, t):
        calls["F"] += 1
        return p**3 - t

    at = AutodiffMap(F).linearize(np.array([2.0, 1.0]), np.array([8.0, 1.0]))
    for v in np.eye(2):
        at.phi_product(v)
        at.phi_adjoint(v)
    assert calls["F"] == 1
    for v in np.eye(2):
        at.theta_product(v)
        at.theta_adjoint(v)
    assert calls["F"] == 2
    assert np.array_equal(at.phi_product(np.ones(2)), [12.0, 3.0])


# ---- Newton


def test_newton_converges_from_afar_and_says_what_it_found():
    F = AutodiffMap(lambda p, t: anp.arctan(p) - t)
    root = NewtonRoot()(F, np.array([0.5]), np.array([30.0]))  # undamped, it diverges from 1.4 on
    assert root.status is Status.CONVERGED
    assert abs(root.unwrap()[0] - np.tan(0.5)) <= 16 * EPS
    assert NewtonRoot(max_steps=2)(F, np.array([0.5]), np.array([30.0])).status is Status.MAX_STEPS
    assert NewtonRoot(max_steps=0)(F, np.array([0.5]), np.tan([0.5])).status is Status.CONVERGED
    none = NewtonRoot()(AutodiffMap(lambda p, t: p**2 + t), np.array([1.0]), np.array([3.0]))
    assert none.status in (Status.STAGNATED, Status.MAX_STEPS)
    assert none.residual_norm >= 1
    with pytest.raises(ConvergenceError):
        none.unwrap()


def test_newton_steps_back_into_the_domain():
    F = AutodiffMap(lambda p, t: anp.log(p) - t)
    root = NewtonRoot()(F, np.array([-3.0]), np.array([5.0]))  # the full step lands at φ < 0
    assert abs(root.unwrap()[0] - np.exp(-3.0)) <= 16 * EPS * np.exp(-3.0)
    assert NewtonRoot()(F, np.array([-3.0]), np.array([-1.0])).status is Status.NONFINITE


def test_newton_solves_each_problem_as_if_it_were_alone():
    F = AutodiffMap(lambda p, t: anp.sinh(p) - t)
    theta = np.array([[0.1], [50.0], [-1e6], [0.0]])
    start = np.array([[3.0], [0.0], [1.0], [0.0]])
    many = NewtonRoot()(F, theta, start)
    assert (many.ok).all()
    for i in range(4):
        alone = NewtonRoot()(F, theta[i], start[i])
        assert np.array_equal(alone.value, many.value[i])
        assert alone.steps == many.steps[i]
    assert many.steps[3] == 0


# ---- bad input


@pytest.mark.parametrize(
    ("F", "error"),
    [
        (lambda p, t: None, "expected a real array"),
        (lambda p, t: "x", "expected a real array"),
        (lambda p, t: 1.0, "expected a real array"),
        (lambda p, t: p * 1j, "expected a real array"),
        (lambda p, t: anp.sum(p), "expected a real array|shape"),
        (lambda p, t: p[:1], r"returned shape \(1,\)"),
        (lambda p, t: anp.outer(p, t), r"returned shape \(2, 2\)"),
    ],
)
def test_a_map_that_returns_something_else_is_explained(F, error):
    with pytest.raises(LossError, match=error):
        ImplicitFunction(AutodiffMap(F)).vjp(np.ones(2), np.ones(2), np.ones(2))


def test_bad_arguments_are_refused_by_name():
    F = AutodiffMap(square_root)
    function = ImplicitFunction(F)
    for bad, error, name in (
        (np.array([np.nan, 1.0]), NonFiniteError, "phi"),
        (np.array([1j, 1.0]), ArgumentTypeError, "phi"),
        (np.array(["a"]), ArgumentTypeError, "phi"),
        (np.ones((3, 2)), ArgumentError, "phi"),
        (np.ones(2, dtype=np.float32), ArgumentTypeError, "phi"),
    ):
        with pytest.raises(error, match=name):
            function.vjp(bad, np.ones((2, 2)), np.ones(2))
    with pytest.raises(NonFiniteError, match="theta"):
        function.vjp(np.ones(2), [np.inf, 1.0], np.ones(2))
    with pytest.raises(ArgumentError, match="v: expected shape"):
        function.vjp(np.ones(2), np.ones(2), np.ones(3))
    with pytest.raises(ArgumentError, match="w: shape"):
        function.jvp(np.ones(2), np.ones(2), np.ones((3, 2)))
    with pytest.raises(ArgumentTypeError, match=r"F: expected a map.*AutodiffMap"):
        ImplicitFunction(square_root)
    with pytest.raises(ArgumentTypeError, match="update: expected a map"):
        FixedPoint(square_root)
    with pytest.raises(ArgumentTypeError, match="F: expected a callable"):
        AutodiffMap(3.0)
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        ImplicitFunction(F, GeneralLU)
    with pytest.raises(ArgumentError, match="rtol"):
        ImplicitFunction(F, rtol=1.5)
    with pytest.raises(ArgumentTypeError, match="outer"):
        function.gradient(np.ones(2), np.ones(2), 3.0)
    with pytest.raises(LossError, match="shape"):
        function.gradient(np.ones(2), np.ones(2), lambda p, t: p)
    with pytest.raises(ArgumentTypeError, match="max_steps"):
        NewtonRoot(max_steps=2.5)
    assert isinstance(F, StationarityMap)
    assert isinstance(F.linearize(np.ones(2), np.ones(2)), LinearizedMap)


def test_arguments_are_left_alone_and_may_be_integers():
    F = AutodiffMap(square_root)
    phi, theta, v = np.array([2.0, 3.0]), np.array([4.0, 9.0]), np.array([1.0, 6.0])
    for array in (phi, theta, v):
        array.flags.writeable = False
    assert ImplicitFunction(F).vjp(phi, theta, v).unwrap().tolist() == [0.25, 1.0]
    assert ImplicitFunction(F).vjp([2, 3], [4, 9], [1, 6]).unwrap().tolist() == [0.25, 1.0]
    wide = np.zeros((2, 4))
    wide[:, ::2] = phi, theta
    assert ImplicitFunction(F).vjp(wide[0, ::2], wide[1, ::2], v).unwrap().tolist() == [0.25, 1.0]

    def mutating(p, t):
        p[0] = 7.0
        return p - t

    with pytest.raises((ValueError, TypeError)):
        ImplicitFunction(AutodiffMap(mutating)).vjp(phi, theta, v)


def test_float32_is_kept():
    phi, theta, v = (np.array(a, dtype=np.float32) for a in ([2.0], [4.0], [1.0]))
    for solver in (GeneralLU(), Cholesky(), CG(2)):
        derivative = ImplicitFunction(AutodiffMap(square_root), solver).vjp(phi, theta, v)
        assert derivative.value.dtype == np.float32
        assert derivative.unwrap() == 0.25


def test_autodiff_losses_and_closed_forms_give_the_same():
    """An outer loss as `Autodiff`, as a closed form, and as a function of both arguments."""
    F, _, _, phi, theta = MapSpec(seed=9).build()
    y = np.array([0.5, -1.0, 2.0])
    closed = LeastSquares(np.eye(3), y)
    traced = Autodiff(lambda p: anp.mean((p - y) ** 2) / 2)
    g = [ImplicitFunction(F).gradient(phi, theta, E).unwrap() for E in (closed, traced, lambda p, t: traced.f(p))]
    for other in g[1:]:
        assert np.linalg.norm(other - g[0]) <= 64 * 10 * EPS * np.linalg.norm(g[0])
