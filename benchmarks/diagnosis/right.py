"""Right gradients of random problems, each computed in several ways: none may be called wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.diagnosis.wrong import SLOW
from implicit_grad import EXACT, BilevelProblem, Cholesky, LeastSquares, Newton, verify
from implicit_grad.estimators import ImplicitGradient, MetaGradient
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec


def _solve(problem: BilevelProblem, theta: Any) -> tuple[Any, Any, float]:
    phi = Newton(1e-13)(problem, theta).value
    return problem.inner.linearize(phi).hvp(np.eye(theta.size)), problem.outer.gradient(phi), float(problem.lam)


def by_division(problem: BilevelProblem, theta: Any) -> Any:
    """(I + H/λ)⁻¹ b as the paper writes it."""
    H, b, lam = _solve(problem, theta)
    return np.linalg.solve(np.eye(theta.size) + H / lam, b)


def by_inverse(problem: BilevelProblem, theta: Any) -> Any:
    """λ inv(H + λI) b."""
    H, b, lam = _solve(problem, theta)
    return lam * (np.linalg.inv(H + lam * np.eye(theta.size)) @ b)


def by_eigenvectors(problem: BilevelProblem, theta: Any) -> Any:
    """Through the spectrum of H."""
    H, b, lam = _solve(problem, theta)
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    return vectors @ ((vectors.T @ b) * lam / (values + lam))


def in_single(problem: BilevelProblem, theta: Any) -> Any:
    """Data, θ and every operation in float32."""
    low = [_single_loss(loss) for loss in (problem.inner, problem.outer)]
    return _SINGLE(BilevelProblem(*low, problem.lam), theta.astype(np.float32)).gradient


def _single_loss(loss: Any) -> Any:
    arrays = {name: getattr(loss, name, None) for name in ("X", "y")}
    floats = {name: a for name, a in arrays.items() if a is not None and a.dtype.kind == "f"}
    return replace(loss, **{name: a.astype(np.float32) for name, a in floats.items()})


_SINGLE = MetaGradient(Newton(rtol=1e-6), ImplicitGradient(Cholesky(refinements=1)))
METHODS: dict[str, Callable[[BilevelProblem, Any], Any]] = {
    "EXACT": EXACT,
    "(I + H/λ)⁻¹b by LU": by_division,
    "λ·inv(H + λI) b": by_inverse,
    "eigenvectors of H": by_eigenvectors,
    "float32 throughout": in_single,
}


@dataclass(frozen=True)
class Right:
    """A right gradient: how it is computed, on what."""

    method: str
    family: str
    seed: int


def right_trials(count: int) -> list[Right]:
    """Methods and families in turn."""
    families, methods = ("ridge", "scaled ridge", "softmax", "network"), tuple(METHODS)
    return [Right(methods[i % 5], families[(i // 5) % 4], 1000 + i) for i in range(count)]


def right_problem(family: str, seed: int) -> tuple[BilevelProblem, Any]:
    """A random problem with θ: condition numbers to 1e6, λ from 1e-6 to 1e6, losses scaled by 1e-12 to 1e12."""
    rng = np.random.default_rng(seed)

    def pick(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    if family == "network":
        spec = MlpSpec(pick(1, 2), (pick(1, 3),), pick(2, 6), pick(2, 5), log10_lam=pick(1, 3), seed=seed)
        return spec.build()
    if family == "softmax":
        case = SoftmaxSpec(
            pick(1, 4),
            pick(2, 3),
            pick(1, 8),
            pick(1, 6),
            pick(0, 3),
            pick(-3, 4),
            pick(-6, 6),
            pick(-2, 2),
            seed=seed,
        ).build()
        return case.problem, case.theta
    case = RidgeSpec(
        pick(1, 8), pick(1, 10), pick(1, 6), pick(1, 8), pick(0, 4), pick(-3, 6), pick(-6, 6), pick(-2, 2), seed
    ).build()
    problem: Any = case.problem
    if family == "scaled ridge":
        both, test = 10.0 ** pick(-12, 12), 10.0 ** pick(-12, 12)
        losses = [
            LeastSquares(loss.X * c**0.5, loss.y * c**0.5)
            for loss, c in ((problem.inner, both), (problem.outer, test))
        ]
        problem = BilevelProblem(*losses, problem.lam * both)
    return problem, case.theta


def right_outcome(right: Right) -> tuple[Right, str, float]:
    """Verify one right gradient."""
    problem, theta = right_problem(right.family, right.seed)
    method = METHODS[right.method]
    report = verify(lambda theta: method(problem, theta), problem, theta, diagnosis=False, without=SLOW)
    return right, report.verdict.name, report.error
