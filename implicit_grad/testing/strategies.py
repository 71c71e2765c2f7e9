"""Hypothesis strategies: spectra, systems and bilevel problems. Small integers are drawn and nothing is rejected.

The `*_specs` strategies draw the integers, which is what a shrunk failure shows; the `*_problems`, `spd_matrices` and
`linear_systems` draw what they make. Every keyword replaces one draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import example
from hypothesis import strategies as st

from implicit_grad.testing.matrices import (
    Array,
    Clustered,
    Geometric,
    Indefinite,
    LinearSystem,
    Singular,
    SpdSpec,
    Spectrum,
)
from implicit_grad.testing.problems import (
    Case,
    ConvexSpec,
    LogisticSpec,
    MlpSpec,
    NetworkCase,
    RidgeSpec,
    SoftmaxSpec,
    Twist,
)

SEEDS = st.integers(2, 10**6).filter(lambda seed: seed != 42)
"""Seeds of the random parts."""


def definite_spectra(decades: int = 6) -> st.SearchStrategy[Spectrum]:
    """Positive spectra with κ up to 10^decades: evenly spread or clustered."""
    return st.one_of(geometric_spectra(decades), clustered_spectra(decades))


def geometric_spectra(decades: int = 6) -> st.SearchStrategy[Geometric]:
    """Spectra spread evenly on a log scale; κ = 1 is the identity."""
    return st.builds(Geometric, st.integers(0, decades))


def clustered_spectra(decades: int = 6) -> st.SearchStrategy[Clustered]:
    """Spectra with one to four distinct eigenvalues."""
    return st.builds(Clustered, st.integers(0, decades), st.integers(1, 4))


def singular_spectra(decades: int = 4) -> st.SearchStrategy[Singular]:
    """Positive semidefinite spectra with a null space."""
    return st.builds(Singular, st.integers(0, decades), st.integers(0, 6))


def indefinite_spectra(decades: int = 3) -> st.SearchStrategy[Indefinite]:
    """Spectra of a saddle: at least one negative eigenvalue."""
    return st.builds(Indefinite, st.integers(0, decades), st.integers(1, 3))


def scales(decades: int = 150) -> st.SearchStrategy[int]:
    """Powers of ten of a scale: everyday ones, and the ends ±`decades`, where squares leave the range."""
    ends = st.sampled_from((-decades, -decades // 3, decades // 3, decades))
    return st.one_of(st.integers(-min(4, decades), min(4, decades)), ends)


def lambdas(decades: int = 6) -> st.SearchStrategy[float]:
    """λ, log-uniform in quarters of a decade from 10^−decades to 10^decades."""
    return st.integers(-4 * decades, 4 * decades).map(lambda quarter: 10.0 ** (quarter / 4))


def batch_shapes() -> st.SearchStrategy[tuple[int, ...]]:
    """Leading axes: none, one, several, and axes of length one."""
    return st.sampled_from(((), (1,), (3,), (2, 2), (2, 1), (1, 3)))


def linear_systems(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[LinearSystem]:
    """Positive definite systems A x = b; see `LinearSystem` for the keywords."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "size": st.integers(1, 10),
        "spectrum": definite_spectra(),
        "seed": SEEDS,
    }
    return st.builds(LinearSystem, **{**draws, **fixed})


def spd_matrices(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Array]:
    """Symmetric matrices `(..., N, N)`; keywords as in `linear_systems`.

    With `spectrum=indefinite_spectra()` or `singular_spectra()` they are what their spectrum says.
    """
    return linear_systems(**fixed).map(LinearSystem.matrix)


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


def logistic_specs(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[LogisticSpec]:
    """Logistic problems; keyword arguments replace single draws."""
    draws: dict[str, st.SearchStrategy[Any]] = {
        "size": st.integers(1, 6),
        "n": st.integers(1, 10),
        "n_test": st.integers(1, 6),
        "spread": st.integers(0, 3),
        "log10_ratio": st.integers(-3, 5),
        "log10_lam": st.integers(-6, 6),
        "log10_test": st.integers(-2, 2),
        "log10_margin": st.integers(-1, 2),
        "seed": SEEDS,
        "twist": st.sampled_from(Twist),
    }
    return st.builds(LogisticSpec, **{**draws, **fixed})


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
    """Ridge and softmax problems: convex train losses of this package."""
    return st.one_of(ridge_specs(), softmax_specs())


def ridge_problems(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    """Ridge problems, as `Case`: problem, θ, λ, φ*, g and the tolerances; keywords as in `RidgeSpec`."""
    return ridge_specs(**fixed).map(_built)


def logistic_problems(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    """Logistic problems, as `Case`, with a loss from outside the package; keywords as in `LogisticSpec`."""
    return logistic_specs(**fixed).map(_built)


def softmax_problems(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Case]:
    """Softmax problems, as `Case`; keywords as in `SoftmaxSpec`."""
    return softmax_specs(**fixed).map(_built)


def mlp_problems(**fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[NetworkCase]:
    """Small networks with a strict minimum near θ; keywords as in `MlpSpec`."""
    return mlp_specs(**fixed).map(lambda spec: NetworkCase(spec, *spec.build()))


def _built(spec: ConvexSpec) -> Case:
    return spec.build()


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
LOGISTIC_EDGES = (
    LogisticSpec(size=1, n=1, n_test=1, seed=7),
    LogisticSpec(size=4, n=2, log10_ratio=4, seed=9),
    LogisticSpec(log10_lam=6, log10_margin=2, seed=12),
    LogisticSpec(twist=Twist.THETA_OPTIMAL, seed=14),
)
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
