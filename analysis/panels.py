"""The three problems that every figure shows, and the estimators compared on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from implicit_grad import (
    CG,
    EXACT,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    InnerSolver,
    MetaGradient,
    Newton,
    UnrolledGradient,
)
from implicit_grad.data.lookup import candidates
from implicit_grad.data.packed import FILE_NAME, FOLDER
from implicit_grad.tasks import Digits, Omniglot, RandomRidge, Sinusoid, TaskSource


@dataclass(frozen=True)
class Panel:
    """One problem with the settings at which it is shown.

    Attributes
    ----------
    title : str
    source : TaskSource
    lam : float
        λ where it does not vary.
    tasks : int
    last : int
        Largest number of inner steps, a power of two.
    decades : tuple of int
        First and last exponent of 10 where λ varies.
    reference_solver : InnerSolver
    """

    title: str
    source: TaskSource
    lam: float
    tasks: int
    last: int
    decades: tuple[int, int] = (-3, 3)
    reference_solver: InnerSolver = EXACT.inner_solver

    def quick(self) -> Panel:
        """Return the panel at a size for a look: fewer tasks, shorter runs."""
        return replace(self, tasks=min(self.tasks, 3), last=min(self.last, 64))


RIDGE = Panel(
    "ridge, d = 50",
    RandomRidge(dim=50, train_samples=60, test_samples=60, condition=1e4),
    0.02,
    16,
    2048,
    # H is not singular here: far below its smallest eigenvalue, 1e-4, the limit λ → 0 shows.
    (-6, 3),
)
SINUSOID = Panel(
    "sinusoid, MLP 1-40-40-1",
    Sinusoid(),
    10.0,
    8,
    256,
    (-1, 3),
    # d = 1761: Newton's systems by conjugate gradient; the reference gradient itself by dense Cholesky.
    Newton(rtol=1e-13, linear_solver=CG(400, 1e-11)),
)
DIGITS = Panel("digits 5-way 5-shot, softmax", Digits(), 0.1, 12, 2048)
PANELS = {"ridge": RIDGE, "sinusoid": SINUSOID, "digits": DIGITS}


def panels(quick: bool) -> dict[str, Panel]:
    """Return the panels by name, small ones with `quick`."""
    return {name: panel.quick() if quick else panel for name, panel in PANELS.items()}


def methods(cg_steps: tuple[int, ...] = (2, 5, 10)) -> tuple[MetaGradient, ...]:
    """Return the estimators of every comparison; step counts are the sweep's to set."""
    inner = GradientDescent(None, 0)
    plain = replace(inner, proximal=False)
    implicit = [ImplicitGradient(CG(k), require_minimum=False) for k in cg_steps]
    estimators = [ImplicitGradient(Cholesky()), *implicit, UnrolledGradient()]
    return (
        *(MetaGradient(inner, estimator) for estimator in estimators),
        MetaGradient(plain, UnrolledGradient()),
        MetaGradient(inner, FirstOrderGradient()),
    )


OMNIGLOT = "omniglot"
"""Name of the panels that need Omniglot's files."""


def omniglot(**settings: Any) -> list[Omniglot]:
    """Return the source in a list, or an empty one where its file is not: no figure needs a download."""
    there = any(place.is_file() for place in candidates(FILE_NAME, FOLDER))
    return [Omniglot(**settings)] if there else []
