"""Laws (c) of meta-gradient estimators, continued: what must not change the answer, or change it in a known way."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from implicit_grad import BilevelProblem, LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.testing.comparisons import holds, same
from implicit_grad.testing.matrices import orthogonal
from implicit_grad.testing.problems import Case, MlpSpec, RidgeSpec, SoftmaxSpec
from implicit_grad.testing.transforms import Combination, Turned

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec


def changed(case: Case, **parts: Any) -> BilevelProblem:
    """The problem with another inner or outer loss, or λ."""
    return replace(case.problem, **parts)


def check_law_40(estimate: Any, spec: Spec) -> None:
    """Linear in T."""
    case, other = spec.build(), replace(spec, seed=spec.seed + 1000).build()
    first, second = case.problem.outer, other.problem.outer
    other = replace(case, problem=changed(case, outer=second), test=other.test)
    sum_ = changed(case, outer=Combination(((3.0, first), (-0.5, second))))
    expected = 3.0 * estimate(case.problem, case.theta).gradient
    expected = expected - 0.5 * estimate(other.problem, case.theta).gradient
    tolerance = 6 * case.tol_exact() + other.tol_exact()
    same(estimate(sum_, case.theta).gradient, expected, tolerance, "law 40: linear in T")


def check_law_40_constants(estimate: Any, spec: Spec) -> None:
    """Blind to constants added to T and to L."""
    case = spec.build()
    inner, outer = case.problem.inner, case.problem.outer
    constant = 10 * case.train.value_abs(case.theta)
    moved = BilevelProblem(Combination(((1.0, inner),), constant), Combination(((1.0, outer),), -3.0), case.lam)
    same(estimate(moved, case.theta).gradient, case.g, 2 * case.tol_exact(), "law 40: constants")


def check_law_41(estimate: Any, spec: Spec, exponent: int) -> None:
    """(L, λ) → (cL, cλ) leaves φ* and g; T → cT scales g by c."""
    case, c = spec.build(), 10.0**exponent
    inner, outer = case.problem.inner, case.problem.outer
    scaled = estimate(changed(case, inner=Combination(((c, inner),)), lam=c * case.lam), case.theta)
    same(scaled.inner.value, case.star, 2 * case.tol_phi(), "law 41: φ* under (cL, cλ)")
    same(scaled.gradient, case.g, 2 * case.tol_exact(), "law 41: g under (cL, cλ)")
    louder = estimate(changed(case, outer=Combination(((c, outer),))), case.theta)
    same(louder.gradient, c * case.g, 2 * c * case.tol_exact(), "law 41: g under cT")


def check_law_41_unrolled(make: Any, spec: Spec, exponent: int) -> None:
    """(L, λ, α) → (cL, cλ, α/c) leaves g_K."""
    case, c, alpha = spec.build(), 10.0**exponent, 1 / spec.build().curvature
    scaled = changed(case, inner=Combination(((c, case.problem.inner),)), lam=c * case.lam)
    for steps in (1, 5):
        expected = make(alpha, steps)(case.problem, case.theta).gradient
        g = make(alpha / c, steps)(scaled, case.theta).gradient
        same(g, expected, 2 * case.tol_exact(), f"law 41: g_K, K = {steps}")


def check_law_42(estimate: Any, spec: Spec, relative: float = 0.0) -> None:
    """φ = Qψ: g_ψ = Qᵀg. `relative` adds what truncation makes of rounding, in units of ‖g‖."""
    case = spec.build()
    Q = orthogonal(np.random.default_rng([spec.seed, 42]), case.size)
    problem = BilevelProblem(Turned(case.problem.inner, Q), Turned(case.problem.outer, Q), case.lam)
    g = estimate(case.problem, case.theta).gradient
    turned = estimate(problem, case.theta @ Q).gradient
    same(turned, g @ Q, 4 * case.tol_exact() + relative * norm(g), "law 42: turned coordinates")


def check_law_42_units(estimate: Any, spec: MlpSpec) -> None:
    """tanh is odd: flipping and permuting the units of a hidden layer turns the parameters, and g with them."""
    train = spec.losses()[0]
    problem, theta = spec.build()
    P = unit_symmetry(train, np.random.default_rng([spec.seed, 42]))
    holds(np.array_equal(np.abs(P).sum(axis=0), np.ones(theta.size)), "a signed permutation")
    first, second = estimate(problem, theta).gradient, estimate(problem, P @ theta).gradient
    scale, lam = spec.curvature_scale(), float(problem.lam)
    tolerance = 64 * theta.size * (1 + scale / lam) ** 2 * scale * 2.0**-53
    same(second, P @ first, tolerance, "law 42: signed permutation of hidden units")


def unit_symmetry(loss: MultilayerPerceptron, rng: np.random.Generator) -> Any:
    """Signed permutation of the parameters that leaves a tanh network's outputs alone."""
    hidden = [np.eye(w)[rng.permutation(w)] * rng.choice([-1.0, 1.0], w)[:, None] for w in loss.hidden]
    maps = [np.eye(loss.widths[0]), *hidden, np.eye(loss.widths[-1])]
    P = np.zeros((loss.size, loss.size))
    start = 0
    for before, after in pairwise(maps):
        for block in (np.kron(before, after), after):  # W (in, out) row-major, then b
            stop = start + len(block)
            P[start:stop, start:stop] = block
            start = stop
    return P


def check_law_43(estimate: Any, spec: SoftmaxSpec) -> None:
    """Softmax: rows of g sum to 0 over the classes, and a shift θ + c⊗1 shifts φ* and leaves g."""
    case, C = spec.build(), spec.classes
    first = estimate(case.problem, case.theta)
    sums = first.gradient.reshape(-1, C).sum(axis=1)
    same(sums, np.zeros_like(sums), case.tol_exact(), "law 43: rows sum to 0")
    draw = np.random.default_rng([spec.seed, 43]).standard_normal(spec.features)
    shift = np.repeat(draw / norm(draw) * norm(case.theta), C)
    second = estimate(case.problem, case.theta + shift)
    same(second.inner.value, first.inner.value + shift, 2 * case.tol_phi(shift), "law 43: φ* shifts")
    same(second.gradient, first.gradient, 2 * case.tol_exact(), "law 43: g stays")


def check_law_44_classes(estimate: Any, spec: SoftmaxSpec) -> None:
    """Renaming classes permutes the columns of g."""
    case, C = spec.build(), spec.classes
    X, labels, X_test, test_labels, theta = spec.data()
    new = np.random.default_rng([spec.seed, 44]).permutation(C)
    columns = np.argsort(new)
    renamed = spec.case(X, new[labels], X_test, new[test_labels], theta.reshape(-1, C)[:, columns].reshape(-1))
    g = estimate(case.problem, theta).gradient.reshape(-1, C)[:, columns].reshape(-1)
    same(estimate(renamed.problem, renamed.theta).gradient, g, 2 * case.tol_exact(), "law 44: classes")


def check_law_44_samples(estimate: Any, spec: Spec) -> None:
    """The order of the samples does not matter."""
    case = spec.build()
    X, y, X_test, y_test, theta = spec.data()
    rng = np.random.default_rng([spec.seed, 44])
    i, j = rng.permutation(len(y)), rng.permutation(len(y_test))
    shuffled = spec.case(X[i], y[i], X_test[j], y_test[j], theta)
    g = estimate(shuffled.problem, theta).gradient
    same(g, estimate(case.problem, theta).gradient, 2 * case.tol_exact(), "law 44: samples")


def check_law_45(estimate: Any, spec: Spec) -> None:
    """Every sample r times: nothing changes for a mean; a sum turns λ into λ/r."""
    case, r = spec.build(), 3
    X, y, X_test, y_test, theta = spec.data()
    repeated = spec.case(np.repeat(X, r, axis=0), np.repeat(y, r), X_test, y_test, theta).problem
    same(estimate(repeated, theta).gradient, case.g, 2 * case.tol_exact(), "law 45: mean losses")
    summed = replace(repeated, inner=Combination(((r, repeated.inner),)))
    weaker = replace(case, problem=changed(case, lam=case.lam / r), lam=case.lam / r)
    tolerance = 2 * weaker.tol_exact()
    same(estimate(summed, theta).gradient, weaker.g, tolerance, "law 45: sum losses")


def check_law_46(estimate: Any, spec: RidgeSpec) -> None:
    """Ridge: y → y + Xc, y_test → y_test + X_test c, θ → θ + c leaves g."""
    case = spec.build()
    X, y, X_test, y_test, theta = spec.data()
    c = np.random.default_rng([spec.seed, 46]).standard_normal(spec.size)
    moved = spec.case(X, y + X @ c, X_test, y_test + X_test @ c, theta + c)
    tolerance = case.tol_exact() + moved.tol_exact()
    g = estimate(moved.problem, moved.theta).gradient
    same(g, estimate(case.problem, theta).gradient, tolerance, "law 46: translation")


def check_law_52(estimate: Any, spec: Spec) -> None:
    """A batch of tasks is its tasks one by one, in any order; so is its mean."""
    specs = [replace(spec, seed=spec.seed + 1000 * i) for i in range(3)]
    cases, lams = [s.build() for s in specs], spec.lam * np.array([1.0, 2.0, 5.0])
    columns = [np.stack(part) for part in zip(*(s.data() for s in specs), strict=True)]
    for order in ([0, 1, 2], [2, 0, 1]):
        X, y, X_test, y_test, theta = (column[order] for column in columns)
        if isinstance(spec, RidgeSpec):
            losses = LeastSquares(X, y), LeastSquares(X_test, y_test)
        else:
            losses = tuple(SoftmaxCrossEntropy(*d, spec.classes) for d in ((X, y), (X_test, y_test)))
        batch = estimate(BilevelProblem(*losses, lams[order]), theta).gradient
        each = [estimate(cases[i].problem.with_lam(lams[i]), cases[i].theta).gradient for i in order]
        tolerances = np.array([2 * cases[i].tol_exact() for i in order])
        same(batch, np.array(each), tolerances, f"law 52: tasks in order {order}")
        same(batch.mean(axis=0), np.mean(each, axis=0), tolerances.mean(), "law 52: the mean")
