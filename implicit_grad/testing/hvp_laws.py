"""Laws of a loss and its Hessian-vector products, at points drawn around the origin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from implicit_grad.testing import strategies
from implicit_grad.testing.comparisons import NotApplicable, at_most, holds, same
from implicit_grad.testing.law import Law
from implicit_grad.testing.matrices import UNIT, Array

norm = np.linalg.norm


@dataclass(frozen=True, eq=False)
class HvpSubject:
    """A loss with its gradient and products.

    Attributes
    ----------
    value, gradient : callable or None
        x ↦ f(x) and x ↦ ∇f(x), where they are known.
    product : callable
        `(x, v) → ∇²f(x) v`.
    size : int
        Number of parameters.
    convex : bool
        Whether f is convex, so that vᵀHv ≥ 0.
    """

    value: Callable[[Array], Any] | None
    gradient: Callable[[Array], Array] | None
    product: Callable[[Array, Array], Array]
    size: int
    convex: bool = False


@dataclass(frozen=True)
class PointSpec:
    """Integers that make a point x of size 10^log10_size and two directions v and w."""

    log10_size: int = 0
    log10_length: int = 0
    seed: int = 5

    def draw(self, size: int) -> tuple[Array, Array, Array]:
        """Return x, v and w."""
        x, v, w = np.random.default_rng(self.seed).standard_normal((3, size))
        return 10.0**self.log10_size * x, 10.0**self.log10_length * v, w


def _curvature(of: HvpSubject, x: Array) -> float:
    """‖H‖ by its columns: what rounding is measured by."""
    return float(norm([of.product(x, e) for e in np.eye(of.size)]))


def check_symmetry(of: HvpSubject, spec: PointSpec) -> None:
    """vᵀHw = wᵀHv."""
    x, v, w = spec.draw(of.size)
    tolerance = 64 * of.size * UNIT * _curvature(of, x) * norm(v) * norm(w)
    same(v @ of.product(x, w), w @ of.product(x, v), tolerance, "vᵀHw and wᵀHv")


def check_linearity(of: HvpSubject, spec: PointSpec) -> None:
    """H(av + bw) = aHv + bHw, and H0 = 0 bit by bit."""
    x, v, w = spec.draw(of.size)
    holds(not np.asarray(of.product(x, np.zeros(of.size))).any(), "H0 is not 0")
    expected = 3.0 * of.product(x, v) - 0.7 * of.product(x, w)
    tolerance = 256 * of.size * UNIT * _curvature(of, x) * (norm(v) + norm(w))
    same(of.product(x, 3 * v - 0.7 * w), expected, tolerance, "H(3v − 0.7w)")


def check_purity(of: HvpSubject, spec: PointSpec) -> None:
    """Neither x nor v moves, shape and dtype are those of v, the same call gives the same bits."""
    x, v, _ = spec.draw(of.size)
    before = x.copy(), v.copy()
    first = np.array(of.product(x, v))
    holds(np.array_equal(x, before[0]) and np.array_equal(v, before[1]), "x or v was overwritten")
    holds(
        first.shape == v.shape and first.dtype == v.dtype, f"Hv is {first.dtype}{first.shape}, v {v.dtype}{v.shape}"
    )
    holds(np.array_equal(first, of.product(x, v)), "the same call gave other numbers")


def check_single(of: HvpSubject, spec: PointSpec) -> None:
    """float32 in: what comes back is right to float32 rounding, whatever its dtype."""
    x, v, _ = (each.astype(np.float32) for each in spec.draw(of.size))
    try:
        single = np.asarray(of.product(x, v), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise NotApplicable(f"float32 is refused: {error}") from None
    wide = x.astype(np.float64), v.astype(np.float64)
    moved = norm(of.product(wide[0] * (1 + 2.0**-24), wide[1]) - of.product(*wide))
    tolerance = 2.0**29 * 64 * of.size * UNIT * _curvature(of, wide[0]) * norm(wide[1]) + 64 * moved
    same(single, of.product(*wide), tolerance, "Hv in float32, and in float64")


def _slope(function: Callable[[Array], Any], x: Array, v: Array) -> tuple[Any, float]:
    """Derivative along v by central differences, extrapolated over a ladder of steps, with its own error estimate.

    Ridders' scheme: steps h, h/2, …; each column of the table cancels one more even power of h, and the entry whose
    two neighbours agree best is taken, with their disagreement for the error.
    """
    table: list[list[Any]] = []
    h, best, error = 0.02 * (1 + norm(x)) / norm(v), None, np.inf
    for level in range(9):
        step = h / 2**level
        row = [(np.asarray(function(x + step * v)) - np.asarray(function(x - step * v))) / (2 * step)]
        for order in range(1, level + 1):
            row.append(row[-1] + (row[-1] - table[-1][order - 1]) / (4.0**order - 1))
            estimate = max(float(norm(row[-1] - row[-2])), float(norm(row[-1] - table[-1][order - 1])))
            if estimate < error:
                best, error = row[-1], estimate
        table.append(row)
    return best, error


def check_derivative(of: HvpSubject, spec: PointSpec) -> None:
    """Hv is the derivative of ∇f along v, by central differences extrapolated to h = 0."""
    if of.gradient is None:
        raise NotApplicable("no gradient is known")
    x, v, _ = spec.draw(of.size)
    slope, error = _slope(of.gradient, x, v)
    rounding = 1e4 * of.size * UNIT * (_curvature(of, x) + norm(of.gradient(x)) / (1 + norm(x))) * norm(v)
    same(of.product(x, v), slope, 4 * error + rounding, "Hv and the derivative of ∇f")


def check_gradient(of: HvpSubject, spec: PointSpec) -> None:
    """⟨∇f, v⟩ is the derivative of f along v."""
    if of.gradient is None or of.value is None:
        raise NotApplicable("no value or no gradient is known")
    x, v, _ = spec.draw(of.size)
    slope, error = _slope(of.value, x, v)
    size = norm(of.gradient(x)) + abs(float(of.value(x))) / (1 + norm(x))
    same(of.gradient(x) @ v, slope, 4 * error + 1e4 * of.size * UNIT * size * norm(v), "⟨∇f, v⟩ and the derivative")


def check_convexity(of: HvpSubject, spec: PointSpec) -> None:
    """vᵀHv ≥ 0 for a convex loss."""
    if not of.convex:
        raise NotApplicable("the loss is not said to be convex")
    x, v, _ = spec.draw(of.size)
    at_most(0.0, v @ of.product(x, v), 64 * of.size * UNIT * _curvature(of, x) * norm(v) ** 2, "vᵀHv ≥ 0")


_points = st.builds(PointSpec, st.integers(-2, 0), st.integers(-3, 3), strategies.SEEDS)

HVP_LAWS: tuple[Law, ...] = (
    Law("53", "symmetry", "vᵀHw = wᵀHv", "64·N·u·‖H‖‖v‖‖w‖", check_symmetry, _points),
    Law("54", "linearity", "H(av + bw) = aHv + bHw, H0 = 0", "256·N·u·‖H‖(‖v‖ + ‖w‖)", check_linearity, _points),
    Law("54b", "float32", "float32 in: Hv to float32 rounding", "64·N·2⁻²⁴·‖H‖‖v‖", check_single, _points),
    Law(
        "55", "derivative", "Hv = d∇f(x + tv)/dt", "4·(Ridders' estimate) + 10⁴·N·u·‖H‖‖v‖", check_derivative, _points
    ),
    Law(
        "55b",
        "gradient",
        "⟨∇f, v⟩ = df(x + tv)/dt",
        "4·(Ridders' estimate) + 10⁴·N·u·‖∇f‖‖v‖",
        check_gradient,
        _points,
    ),
    Law("57", "convexity", "f convex: vᵀHv ≥ 0", "64·N·u·‖H‖‖v‖²", check_convexity, _points),
    Law(
        "pure",
        "purity",
        "x and v stay, shape and dtype are kept, same bits",
        "none: bit by bit",
        check_purity,
        _points,
    ),
)
"""What `check_hvp` tries."""
