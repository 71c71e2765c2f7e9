"""Hypothesis strategies for the problems of `specs`: only small integers are drawn, so nothing is ever rejected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example
from hypothesis import strategies as st
from specs import UNIT as UNIT
from specs import Case as Case
from specs import MlpSpec as MlpSpec
from specs import RidgeSpec as RidgeSpec
from specs import SoftmaxSpec as SoftmaxSpec
from specs import SpdSpec as SpdSpec
from specs import Twist as Twist
from specs import design as design
from specs import orthogonal as orthogonal

SEEDS = st.integers(2, 10**6).filter(lambda seed: seed != 42)


def ridge_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[RidgeSpec]:
    """Ridge problems; keyword arguments replace single draws."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "size": st.integers(1, 8),
        "n": st.integers(1, 10),
        "n_test": st.integers(1, 6),
        "rank": st.integers(1, 8),
        "spread": st.integers(0, 4),
        "log10_ratio": st.integers(-3, 6),
        "log10_lam": st.integers(-6, 6),
        "log10_test": st.integers(-2, 2),
        "seed": SEEDS,
        "twist": st.sampled_from(Twist),
    }
    return st.builds(RidgeSpec, **{**draws, **fixed})


def softmax_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[SoftmaxSpec]:
    """Softmax problems; keyword arguments replace single draws."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "features": st.integers(1, 4),
        "classes": st.integers(2, 4),
        "n": st.integers(1, 8),
        "n_test": st.integers(1, 6),
        "spread": st.integers(0, 3),
        "log10_ratio": st.integers(-3, 5),
        "log10_lam": st.integers(-6, 6),
        "log10_test": st.integers(-2, 2),
        "log10_logit": st.integers(-1, 2),
        "seed": SEEDS,
        "twist": st.sampled_from(Twist),
    }
    return st.builds(SoftmaxSpec, **{**draws, **fixed})


def spd_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[SpdSpec]:
    """Positive semidefinite H with λ and b."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "size": st.integers(1, 12),
        "rank": st.integers(1, 12),
        "spread": st.integers(0, 6),
        "log10_ratio": st.integers(-3, 6),
        "log10_lam": st.integers(-6, 6),
        "seed": SEEDS,
    }
    return st.builds(SpdSpec, **{**draws, **fixed})


def mlp_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[MlpSpec]:
    """Small networks with λ large enough for a strict minimum near θ."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "inputs": st.integers(1, 3),
        "hidden": st.sampled_from(((), (1,), (3,), (2, 3), (2, 2, 2))),
        "n": st.integers(1, 6),
        "n_test": st.integers(1, 5),
        "classes": st.sampled_from((0, 2, 3)),
        "softplus": st.booleans(),
        "log10_lam": st.integers(1, 4),
        "seed": SEEDS,
    }
    return st.builds(MlpSpec, **{**draws, **fixed})


def convex_specs() -> st.SearchStrategy[RidgeSpec | SoftmaxSpec]:
    """Problems with a convex train loss."""
    return st.one_of(ridge_specs(), softmax_specs())


RIDGE_EDGES = (
    RidgeSpec(size=1, n=1, n_test=1, seed=7),
    RidgeSpec(size=5, n=1, seed=8),
    RidgeSpec(size=6, n=3, log10_ratio=4, seed=9),
    RidgeSpec(size=4, n=6, twist=Twist.DUPLICATE_ROWS, seed=10),
    RidgeSpec(size=3, n=6, twist=Twist.ZERO_COLUMN, seed=11),
    RidgeSpec(log10_lam=6, seed=12),
    RidgeSpec(log10_lam=-6, seed=13),
    RidgeSpec(twist=Twist.THETA_OPTIMAL, seed=14),
)
SOFTMAX_EDGES = (
    SoftmaxSpec(features=1, classes=2, n=1, n_test=1, seed=7),
    SoftmaxSpec(features=4, n=1, seed=8),
    SoftmaxSpec(features=4, n=2, log10_ratio=4, seed=9),
    SoftmaxSpec(twist=Twist.DUPLICATE_ROWS, seed=10),
    SoftmaxSpec(twist=Twist.ZERO_COLUMN, seed=11),
    SoftmaxSpec(log10_lam=6, log10_logit=2, seed=12),
    SoftmaxSpec(log10_lam=-6, seed=13),
    SoftmaxSpec(twist=Twist.THETA_OPTIMAL, seed=14),
)
CONVEX_EDGES = RIDGE_EDGES + SOFTMAX_EDGES
SPD_EDGES = (
    SpdSpec(size=1, seed=7),
    SpdSpec(size=8, rank=2, seed=8),
    SpdSpec(size=6, spread=0, seed=9),
    SpdSpec(size=5, log10_ratio=6, log10_lam=-6, seed=10),
    SpdSpec(size=5, log10_ratio=-3, log10_lam=6, seed=11),
)
MLP_EDGES = (MlpSpec(inputs=1, hidden=(1,), n=1, n_test=1, seed=7), MlpSpec(hidden=(), seed=8))


def with_edges(*edges: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Always run these specs, too."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for spec in edges:
            test = example(spec=spec)(test)
        return test

    return decorate
