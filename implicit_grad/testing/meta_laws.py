"""Laws of meta-gradients: what they equal, what they are the derivative of, and what must not change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from implicit_grad.objectives import LeastSquares
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.regularizers import DiagonalQuadratic
from implicit_grad.testing import strategies
from implicit_grad.testing.closed_forms import outer_value
from implicit_grad.testing.comparisons import NotApplicable, at_most, holds, same
from implicit_grad.testing.law import Law
from implicit_grad.testing.linear_subject import REFUSALS
from implicit_grad.testing.matrices import UNIT, orthogonal
from implicit_grad.testing.meta_subject import MetaSubject
from implicit_grad.testing.problems import ConvexSpec, MlpSpec, RidgeSpec, SoftmaxSpec
from implicit_grad.testing.promises import Budget
from implicit_grad.testing.transforms import Combination, Diagonal, Linear, Turned

norm = np.linalg.norm


def check_closed_form(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """Closed form: g = λ(H + λI)⁻¹∇T(φ*), Hessian of the train loss, right-hand side of the test loss, both at φ*."""
    case = spec.build()
    same(g_of.exact(case.problem, case.theta), case.g, g_of.tolerance(case), "g and λ(H + λI)⁻¹∇T(φ*)")


def check_large_lambda(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """‖g − ∇T(θ)‖ ≤ (β_T‖∇L(θ)‖ + M‖b‖)/λ, which goes to zero as λ grows."""
    case = spec.build()
    g = g_of.exact(case.problem, case.theta)
    bound = case.test.curvature * norm(case.train.gradient(case.theta)) + case.train.curvature * norm(case.b)
    at_most(norm(g - case.test.gradient(case.theta)), bound / case.lam, g_of.tolerance(case), "‖g − ∇T(θ)‖")


def check_small_lambda(g_of: MetaSubject, spec: RidgeSpec) -> None:
    """‖g − Π_null(H) b‖ ≤ λ/(λ + μ)‖b‖ with μ the smallest positive eigenvalue of H."""
    case = spec.build()
    mu, V = np.linalg.eigh(case.train.hessian(case.star))
    dead = mu <= 64 * case.size * UNIT * max(mu[-1], 0)
    projection = V[:, dead] @ (V[:, dead].T @ case.b)
    rate = case.lam / (case.lam + mu[~dead].min()) if (~dead).any() else 0.0
    g = g_of.exact(case.problem, case.theta)
    at_most(norm(g - projection), rate * norm(case.b), g_of.tolerance(case), "‖g − Π_null(H) b‖")


def check_flat(g_of: MetaSubject, spec: RidgeSpec) -> None:
    """H = 0: g = b."""
    case = spec.build()
    X, y = spec.data()[:2]
    flat = LeastSquares(np.zeros_like(X), y)
    g = g_of.exact(BilevelProblem(flat, case.problem.outer, case.lam), case.theta)
    b = case.test.gradient(case.theta)
    same(g, b, g_of.tolerance(case) + case.tol_g(case.theta), "g and ∇T(θ)")


def check_contraction(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """‖g‖ ≤ ‖b‖ and ⟨g, b⟩ ≥ ‖g‖²."""
    case = spec.build()
    g = g_of.exact(case.problem, case.theta)
    at_most(norm(g), norm(case.b), g_of.tolerance(case), "‖g‖ ≤ ‖b‖")
    at_most(g @ g, g @ case.b, g_of.tolerance(case) * (norm(case.b) + norm(g)), "‖g‖² ≤ ⟨g, b⟩")


def check_total_derivative(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """⟨g, v⟩ is the derivative of T(φ*(θ + hv)), the inner problem solved again, by a complex step."""
    case = spec.build()
    g = g_of.exact(case.problem, case.theta)
    for v in np.random.default_rng([spec.seed, 50]).standard_normal((2, case.size)):
        h = 1e-30 * (norm(case.theta) + case.train.gradient_abs(case.star) / case.curvature)
        slope = outer_value(case.train, case.test, case.lam, case.theta + 1j * h * v, case.star).imag / h
        same(g @ v, slope, g_of.tolerance(case) * norm(v), "⟨g, v⟩ and dF(θ + hv)/dh")


def check_lambda_derivative(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """dF/dλ = −⟨g, φ* − θ⟩/λ, by a complex step in λ."""
    case = spec.build()
    g, h = g_of.exact(case.problem, case.theta), 1e-30 * case.lam
    slope = outer_value(case.train, case.test, case.lam + 1j * h, case.theta, case.star).imag / h
    pull = case.star - case.theta
    tolerance = g_of.tolerance(case) * (norm(pull) + norm(case.theta)) + norm(case.g) * case.tol_phi()
    same(-g @ pull / case.lam, slope, tolerance / case.lam, "−⟨g, φ* − θ⟩/λ and dF/dλ")


def check_network(g_of: MetaSubject, spec: MlpSpec) -> None:
    """⟨g, v⟩ is the derivative of a network's T(φ*(θ + hv)), where nothing is convex, by complex steps."""
    problem, theta = spec.build()
    lam, h = float(problem.lam), 1e-30
    g = g_of.exact(problem, theta)
    v = np.random.default_rng([spec.seed, 50]).standard_normal(theta.size)
    A, phi = np.eye(theta.size), theta.astype(complex)
    for _ in range(30):  # Newton on ∇G, its Hessian by complex steps, θ moved by ihv throughout
        H = np.array([problem.inner.gradient(phi.real + 1j * h * e).imag / h for e in np.eye(theta.size)])
        A = 0.5 * (H + H.T) + lam * np.eye(theta.size)
        phi = phi - np.linalg.solve(A, problem.inner.gradient(phi) + lam * (phi - theta - 1j * h * v))
    slope, scale = problem.outer.value(phi).imag / h, spec.curvature_scale()
    kappa = (lam + scale) / np.linalg.eigvalsh(A)[0]
    holds(kappa > 0, "φ* is no strict minimum")
    b = problem.outer.gradient(phi.real)
    tolerance = 64 * theta.size * kappa * UNIT * scale * (1 + scale / lam) + (
        g_of.promise.rtol * norm(b) if hasattr(g_of.promise, "rtol") else 0.0
    )
    same(g @ v, slope, tolerance * norm(v), "⟨g, v⟩ and dF(θ + hv)/dh of a network")


def check_linear_in_test_loss(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """T → 3T − ½T′ gives 3g − ½g′; constants added to T or L change nothing."""
    case, other = spec.build(), replace(spec, seed=spec.seed + 1000).build()
    second = replace(case, problem=replace(case.problem, outer=other.problem.outer), test=other.test)
    both = Combination(((3.0, case.problem.outer), (-0.5, other.problem.outer)), 7.0)
    expected = 3.0 * g_of.exact(case.problem, case.theta) - 0.5 * g_of.exact(second.problem, case.theta)
    tolerance = 6 * g_of.tolerance(case) + g_of.tolerance(second)
    same(g_of.exact(replace(case.problem, outer=both), case.theta), expected, tolerance, "g of 3T − ½T′ + 7")


def check_scaling(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """(L, λ) → (cL, cλ) leaves g; T → cT scales it by c."""
    case = spec.build()
    g, inner, outer = g_of.exact(case.problem, case.theta), case.problem.inner, case.problem.outer
    for c in (1e-5, 1e4):
        scaled = replace(case.problem, inner=Combination(((c, inner),)), lam=c * case.lam)
        same(g_of.exact(scaled, case.theta), g, 2 * g_of.tolerance(case), f"g under {c:g}·(L, λ)")
        louder = g_of.exact(replace(case.problem, outer=Combination(((c, outer),))), case.theta)
        same(louder / c, g, 2 * g_of.tolerance(case), f"g under {c:g}·T")


def check_rotation(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """φ = Qψ with orthogonal Q: g_ψ = Qᵀg."""
    case = spec.build()
    Q = orthogonal(np.random.default_rng([spec.seed, 42]), case.size)
    turned = BilevelProblem(Turned(case.problem.inner, Q), Turned(case.problem.outer, Q), case.lam)
    g = g_of.exact(case.problem, case.theta)
    same(g_of.exact(turned, case.theta @ Q), g @ Q, 4 * g_of.tolerance(case), "g_ψ and Qᵀg")


def check_classes(g_of: MetaSubject, spec: SoftmaxSpec) -> None:
    """Rows of g sum to 0 over the classes; θ + c⊗1 leaves g; renamed classes permute its columns."""
    case, C = spec.build(), spec.classes
    g, tolerance = g_of(case.problem, case.theta), 2 * g_of.tolerance(case)
    sums = g.reshape(-1, C).sum(axis=1)
    same(sums, np.zeros_like(sums), tolerance, "rows of g sum to 0")
    rng = np.random.default_rng([spec.seed, 43])
    draw, new = rng.standard_normal(spec.features), rng.permutation(C)
    shift = np.repeat(draw / norm(draw) * norm(case.theta), C)
    same(g_of(case.problem, case.theta + shift), g, tolerance, "g after θ + c⊗1")
    X, labels, X_test, test_labels, theta = spec.data()
    renamed = spec.case(X, new[labels], X_test, new[test_labels], _columns(theta, np.argsort(new), C))
    same(g_of(renamed.problem, renamed.theta), _columns(g, np.argsort(new), C), tolerance, "g of renamed classes")


def _columns(vector: Any, order: Any, classes: int) -> Any:
    """Reorder the columns of W (p, C), given as a vector."""
    return vector.reshape(-1, classes)[:, order].reshape(-1)


def check_samples(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """The order of the samples does not matter, nor does a mean over each of them three times."""
    case = spec.build()
    X, y, X_test, y_test, theta = spec.data()
    rng = np.random.default_rng([spec.seed, 44])
    i, j = rng.permutation(len(y)), rng.permutation(len(y_test))
    g, tolerance = g_of(case.problem, theta), 2 * g_of.tolerance(case)
    shuffled = spec.case(X[i], y[i], X_test[j], y_test[j], theta)
    same(g_of(shuffled.problem, theta), g, tolerance, "g of shuffled samples")
    thrice = spec.case(np.repeat(X, 3, axis=0), np.repeat(y, 3), X_test, y_test, theta)
    same(g_of(thrice.problem, theta), g, tolerance, "g of every sample three times")


def check_translation(g_of: MetaSubject, spec: RidgeSpec) -> None:
    """Ridge: y + Xc, y_test + X_test c and θ + c leave g."""
    case = spec.build()
    X, y, X_test, y_test, theta = spec.data()
    c = np.random.default_rng([spec.seed, 46]).standard_normal(spec.size)
    moved = spec.case(X, y + X @ c, X_test, y_test + X_test @ c, theta + c)
    tolerance = g_of.tolerance(case) + g_of.tolerance(moved)
    same(g_of(moved.problem, moved.theta), g_of(case.problem, theta), tolerance, "g of the moved problem")


def check_diagonal(g_of: MetaSubject, spec: RidgeSpec) -> None:
    """A λ for each parameter: g = Λ(H + Λ)⁻¹b, the transpose matters."""
    case = spec.build()
    rng = np.random.default_rng([spec.seed, 11])
    weights = case.lam * 10.0 ** rng.uniform(-0.5, 0.5, case.size)
    c = case.curvature * rng.standard_normal(case.size)
    H = case.train.hessian(case.theta)
    problem = RegularizedProblem(case.problem.inner, Linear(c), DiagonalQuadratic(weights))
    try:
        g = g_of.exact(problem, case.theta)
    except (*REFUSALS, AttributeError) as error:
        raise NotApplicable(f"a diagonal Λ is refused: {error}") from None
    expected = weights * np.linalg.solve(H + np.diag(weights), c)
    rtol = getattr(g_of.promise, "rtol", 0.0)
    tolerance = (64 * case.size * 10 * case.kappa * UNIT + rtol) * norm(c)
    same(g, expected, tolerance, "g and Λ(H + Λ)⁻¹b")


def check_saddle(g_of: MetaSubject, spec: RidgeSpec) -> None:
    """G has no minimum: there is no meta-gradient, and no finite number is passed off as one."""
    if isinstance(g_of.promise, Budget):
        raise NotApplicable("a budget does not look at the curvature")
    size = max(spec.size, 2)
    rng = np.random.default_rng([spec.seed, 5])
    h = spec.lam * np.concatenate([[-2.0 - spec.spread], 1 + np.arange(size - 1.0)])
    problem = BilevelProblem(Diagonal(h), Diagonal(np.ones(size)), spec.lam)
    try:
        g = g_of(problem, rng.standard_normal(size))
    except REFUSALS:
        return
    holds(not np.all(np.isfinite(g)), f"a saddle got the meta-gradient {g}")


def check_purity(g_of: MetaSubject, spec: ConvexSpec) -> None:
    """θ is as it was, and the same call gives the same bits."""
    case = spec.build()
    before = case.theta.copy()
    first = g_of(case.problem, case.theta)
    holds(np.array_equal(before, case.theta), "θ was overwritten")
    kept = first.copy()
    holds(np.array_equal(g_of(case.problem, case.theta), kept, equal_nan=True), "the same call gave other numbers")
    holds(np.array_equal(first, kept, equal_nan=True), "a second call overwrote the first answer")


_range = {"log10_ratio": st.integers(-3, 4)}
_ridge = strategies.ridge_specs(**_range)
_softmax = strategies.softmax_specs(**_range)
_convex = st.one_of(_ridge, _softmax, strategies.logistic_specs(**_range))
_EDGES = (
    *(edge for edge in strategies.RIDGE_EDGES if edge.log10_ratio <= 4),
    *strategies.SOFTMAX_EDGES[:3],
    *strategies.LOGISTIC_EDGES[:2],
)
_G = "64·N·κ̄·u·|b|·(1 + β_T/λ)"

META_LAWS: tuple[Law, ...] = (
    Law("g", "closed form", "g = λ(H + λI)⁻¹∇T(φ*)", _G, check_closed_form, _convex, _EDGES),
    Law("33", "large λ", "‖g − ∇T(θ)‖ ≤ (β_T‖∇L(θ)‖ + M‖b‖)/λ", _G, check_large_lambda, _convex),
    Law("34", "small λ", "‖g − Π_null(H) b‖ ≤ λ/(λ + μ)‖b‖", _G, check_small_lambda, _ridge),
    Law("35", "flat", "H = 0: g = b", f"2·{_G}", check_flat, _ridge),
    Law("40", "linear in T", "T → 3T − ½T′: 3g − ½g′", f"6·{_G}", check_linear_in_test_loss, _convex),
    Law("41", "scaling", "(L, λ) → (cL, cλ): g; T → cT: cg", f"2·{_G}", check_scaling, _convex),
    Law("42", "rotation", "φ = Qψ: g_ψ = Qᵀg", f"4·{_G}", check_rotation, _convex),
    Law("43", "classes", "softmax: rows of g sum to 0; shifts, renamed classes", f"2·{_G}", check_classes, _softmax),
    Law("44", "samples", "their order, and repeating each, change nothing", f"2·{_G}", check_samples, _convex),
    Law("46", "translation", "y + Xc, y_test + X_test c, θ + c: g", f"2·{_G}", check_translation, _ridge),
    Law("48", "contraction", "‖g‖ ≤ ‖b‖, ⟨g, b⟩ ≥ ‖g‖²", _G, check_contraction, _convex),
    Law("49", "derivative in λ", "dF/dλ = −⟨g, φ* − θ⟩/λ", f"{_G}·‖φ* − θ‖/λ", check_lambda_derivative, _convex),
    Law("50", "total derivative", "⟨g, v⟩ = dF(θ + hv)/dh", f"{_G}·‖v‖", check_total_derivative, _convex),
    Law(
        "50b",
        "network",
        "the same for networks",
        "64·N·κ̄·u·M̄·‖v‖",
        check_network,
        strategies.mlp_specs(softplus=st.just(False)),
    ),
    Law(
        "Λ",
        "diagonal Λ",
        "g = Λ(H + Λ)⁻¹b",
        "640·N·κ̄·u·‖b‖",
        check_diagonal,
        strategies.ridge_specs(size=st.integers(2, 5), **_range),
    ),
    Law("saddle", "saddle", "G without a minimum: no finite g", "none", check_saddle, _ridge),
    Law("pure", "purity", "θ stays, the same call gives the same bits", "none: bit by bit", check_purity, _convex),
)
"""What `check_meta_gradient` tries."""
