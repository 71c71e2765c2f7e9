"""Laws (d) of Hessian-vector products and (e) of the losses they come from.

`product(loss, x)` returns v ↦ ∇²f(x) v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from oracles import traced

from implicit_grad import Autodiff, BilevelProblem, LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.testing.comparisons import at_most, holds, same
from implicit_grad.testing.matrices import UNIT
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec

norm = np.linalg.norm
Spec = RidgeSpec | SoftmaxSpec | MlpSpec


def closed_form_product(loss: Any, x: Any) -> Any:
    """The product that every solver here uses."""
    return loss.linearize(x).hvp


@dataclass(frozen=True, eq=False)
class Point:
    """A loss, a point, directions, and the sizes that rounding is measured by."""

    loss: Any
    x: Any
    v: Any
    w: Any
    curvature: float
    analytic: bool

    @property
    def unit(self) -> float:
        """64·N·u·‖H‖ with the global curvature bound for ‖H‖."""
        return 64 * self.x.size * UNIT * self.curvature


def point(spec: Spec) -> Point:
    """Where a spec looks at its train loss."""
    if isinstance(spec, MlpSpec):
        loss, _, x = spec.losses()
        curvature, analytic = spec.curvature_scale(), not spec.softplus
    else:
        case = spec.build()
        loss, x, curvature, analytic = case.problem.inner, case.theta, case.train.curvature, True
    v, w = np.random.default_rng([spec.seed, 53]).standard_normal((2, x.size))
    return Point(loss, x, v, w, curvature, analytic)


def check_law_53(product: Any, spec: Spec) -> None:
    """vᵀHw = wᵀHv."""
    at = point(spec)
    hvp = product(at.loss, at.x)
    same(at.v @ hvp(at.w), at.w @ hvp(at.v), at.unit * norm(at.v) * norm(at.w), "law 53: symmetry")


def check_law_54(product: Any, spec: Spec) -> None:
    """Linear in v, H0 = 0 bit by bit, v untouched, shape and dtype kept."""
    at = point(spec)
    hvp, before = product(at.loss, at.x), at.v.copy()
    first, second = hvp(at.v), hvp(at.w)
    holds(before.tobytes() == at.v.tobytes(), "law 54: v was mutated")
    holds(first.shape == at.v.shape and first.dtype == at.v.dtype, "law 54: shape and dtype")
    holds(not hvp(np.zeros_like(at.v)).any(), "law 54: H0 = 0")
    tolerance = 4 * at.unit * (norm(at.v) + norm(at.w))
    same(hvp(3 * at.v - 0.7 * at.w), 3 * first - 0.7 * second, tolerance, "law 54: linear")
    stacked = hvp(np.stack([at.v, at.w]))
    same(stacked, np.stack([first, second]), tolerance, "law 54: further leading axes")


def check_law_54_dtype(product: Any, spec: RidgeSpec) -> None:
    """float32 in, float32 out, to float32 rounding."""
    at = point(spec)
    single = LeastSquares(at.loss.X.astype(np.float32), at.loss.y.astype(np.float32))
    rounded = LeastSquares(single.X.astype(float), single.y.astype(float))
    v = at.v.astype(np.float32)
    result = product(single, at.x.astype(np.float32))(v)
    holds(result.dtype == np.float32, f"law 54: float32 turned into {result.dtype}")
    reference = product(rounded, at.x)(v.astype(float))
    same(result, reference, at.unit * 2.0**29 * norm(at.v), "law 54: float32 product")


def check_law_55(product: Any, spec: Spec) -> None:
    """Equal to Im ∇f(x + ihv)/h, which subtracts nothing, for analytic losses."""
    at = point(spec)
    holds(at.analytic, "law 55 needs an analytic loss")
    h = 1e-30 * (1 + norm(at.x))
    imaginary = at.loss.gradient(at.x + 1j * h * at.v).imag / h
    same(product(at.loss, at.x)(at.v), imaginary, at.unit * norm(at.v), "law 55: complex step")


def check_law_55_differences(product: Any, spec: MlpSpec) -> None:
    """Equal to central differences of ∇f with h = u^{1/3}(1 + ‖x‖)/‖v‖, to 1e-8 of the curvature scale."""
    at = point(spec)
    h = UNIT ** (1 / 3) * (1 + norm(at.x)) / norm(at.v)
    difference = (at.loss.gradient(at.x + h * at.v) - at.loss.gradient(at.x - h * at.v)) / (2 * h)
    tolerance = 1e-8 * at.curvature * norm(at.v)
    same(product(at.loss, at.x)(at.v), difference, tolerance, "law 55: central differences")


def check_law_56(product: Any, spec: RidgeSpec | SoftmaxSpec) -> None:
    """The columns are the dense Hessian's."""
    case = spec.build()
    columns = product(case.problem.inner, case.theta)(np.eye(case.size))
    tolerance = 64 * case.size * UNIT * case.train.curvature
    same(columns, case.train.hessian(case.theta), tolerance, "law 56: dense Hessian")


def check_law_56_modes(product: Any, spec: MlpSpec) -> None:
    """Forward over reverse (ours) is reverse over reverse (tracing the same network)."""
    at = point(spec)
    shape = (at.loss.widths, "softplus" if spec.softplus else "tanh", spec.classes or None)
    other = Autodiff(traced.network(at.loss.X, at.loss.y, *shape))
    line = other.linearize(at.x)
    same(at.loss.value(at.x), line.value, at.unit, "law 56: value")
    same(at.loss.gradient(at.x), line.gradient, at.unit * (1 + norm(at.x)), "law 56: gradient")
    same(product(at.loss, at.x)(at.v), line.hvp(at.v), at.unit * norm(at.v), "law 56: product")


def check_law_57(product: Any, spec: RidgeSpec | SoftmaxSpec) -> None:
    """Convex: vᵀHv ≥ 0 to rounding."""
    at = point(spec)
    at_most(0.0, at.v @ product(at.loss, at.x)(at.v), at.unit * norm(at.v) ** 2, "law 57: convex")


def check_law_57_proximal(curvature: Any, spec: Spec) -> None:
    """The product of the inner objective is that of L plus λv; `curvature(problem, x)` is its operator."""
    at = point(spec)
    for lam in (1e-6, 0.3, 1e6):
        problem = BilevelProblem(at.loss, at.loss, lam)
        expected = at.loss.linearize(at.x).hvp(at.v) + lam * at.v
        rounding = 4 * UNIT * (lam * norm(at.v) + norm(expected))
        same(curvature(problem, at.x)(at.v), expected, rounding, f"law 57: H + λI at λ = {lam}")


def check_law_58(product: Any, spec: Spec) -> None:
    """n·H = n₁·H₁ + n₂·H₂ over any split of the samples; so are value and gradient (law 63)."""
    at = point(spec)
    n = len(at.loss.X)
    cut = n // 2
    if cut == 0:
        return
    parts = [(cut, _part(at.loss, slice(0, cut))), (n - cut, _part(at.loss, slice(cut, n)))]
    total = sum(k * product(part, at.x)(at.v) for k, part in parts) / n
    same(product(at.loss, at.x)(at.v), total, 2 * at.unit * norm(at.v), "law 58: additive over samples")
    value = sum(k * part.value(at.x) for k, part in parts) / n
    same(at.loss.value(at.x), value, 16 * n * UNIT * (abs(value) + at.curvature * norm(at.x) ** 2), "law 63: value")


def _part(loss: Any, rows: slice) -> Any:
    X = loss.X[rows]
    if isinstance(loss, LeastSquares):
        return LeastSquares(X, loss.y[rows])
    if isinstance(loss, SoftmaxCrossEntropy):
        return SoftmaxCrossEntropy(X, loss.labels[rows], loss.n_classes)
    return MultilayerPerceptron(X, loss.y[rows], loss.hidden, loss.activation, loss.n_classes)


def check_law_58_homogeneous(product: Any, spec: tuple[int, int, int]) -> None:
    """A loss of degree p has Hx = (p − 1)∇f (Euler); the spec is p, a seed and the size."""
    import autograd.numpy as anp

    degree, seed, size = spec
    rng = np.random.default_rng(seed)
    c, M, x = rng.standard_normal(size), rng.standard_normal((4, size)), rng.standard_normal(size)
    loss = Autodiff(lambda z: anp.sum(c * z**degree) + anp.sum(anp.dot(M, z) ** degree))
    terms = degree**2 * (np.sum(np.abs(c)) + np.sum(np.abs(M)) ** degree) * (1 + norm(x)) ** degree
    expected = (degree - 1) * loss.gradient(x)
    same(product(loss, x)(x), expected, 64 * size * UNIT * terms, f"law 58: Euler, degree {degree}")


def check_law_62(make: Any, spec: SoftmaxSpec) -> None:
    """Cross-entropy is log C at W = 0, its gradient's rows sum to 0, and shifts and huge logits do no harm."""
    case, C = spec.build(), spec.classes
    loss, X = make(case.problem.inner.X, case.problem.inner.labels, C), case.train.X
    same(loss.value(np.zeros(case.size)), np.log(C), 4 * UNIT * np.log(C), "law 62: log C")
    sums = loss.gradient(case.theta).reshape(-1, C).sum(axis=1)
    rounding = 64 * case.size * UNIT * case.train.gradient_rounding(case.theta)
    same(sums, np.zeros_like(sums), rounding, "law 62: rows of ∇L sum to 0")
    shift = np.repeat(np.random.default_rng([spec.seed, 62]).standard_normal(spec.features), C)
    tolerance = 64 * case.size * UNIT * (np.log(C) + np.mean(norm(X, axis=1)) * (norm(case.theta) + norm(shift)))
    same(loss.value(case.theta + shift), loss.value(case.theta), tolerance, "law 62: shift of the logits")
    largest = np.abs(X @ case.theta.reshape(-1, C)).max()
    huge = case.theta * (1e4 / largest if largest > 0 else 1.0)
    line = loss.linearize(huge)
    for part in (line.value, line.gradient, line.hvp(huge)):
        holds(np.isfinite(part).all(), "law 62: logits of ±1e4 overflow")
