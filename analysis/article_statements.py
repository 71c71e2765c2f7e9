"""The statements of the popular article that do not hold, and what in `popular_article` refutes each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from analysis.claims import Claim, Relation
from analysis.statements import Effect, Statement
from analysis.study import median_slope

ARTICLE = "popular article"
MATTERS = 0.1
"""From an error of a tenth on we call a gradient wrong."""
PERCENT = 0.01

RIGHT = "The linear system for the meta-gradient has the gradient of the training loss on its right-hand side."
FEW = "Conjugate gradient finds the solution in a small number of steps, whatever the problem."
EXISTS = "Conjugate gradient finds the meta-gradient if there is one."
STEP = "One gradient step, as in the formula of MAML, stands for a number of them."
ORDER = "Jacobian times gradient and gradient times Jacobian are the same vector."
TENDS = "MAML's gradient, unrolled far enough, is the gradient that iMAML computes."
BALANCE = "After the inner loop the pull of the data and the pull towards θ are in balance."
ZERO = "The formula with I + H/λ serves for every λ ≥ 0."
PROVEN = "Feasible approximations are proven to behave well, without conditions."
BETTER = "iMAML gives better results than MAML, first-order MAML and Reptile."
PRIOR = "Early stopping is equivalent to a Bayesian prior."
NOTATION = "Data sets, tasks and the expectation need no index."

INSTEAD = {
    RIGHT: "The test loss is on the right; the training loss only bends the system: (I + H/λ) g = ∇L_test(φ*). At φ* "
    "the train gradient is λ(θ − φ*), which knows nothing of the test data.",
    FEW: "As many steps as A has distinct eigenvalues, in exact arithmetic; before that a rate set by √κ(A). Five "
    "suffice where λ is large beside the curvature.",
    EXISTS: "A must be positive definite. At a saddle there is no minimum to differentiate, and conjugate gradient "
    "may still return a vector with residual 0 and report success.",
    STEP: "The gradient through one step is another vector than the gradient through ten.",
    ORDER: "g = Jᵀ∇L_test. J is symmetric for one λ only; with one λ a parameter g = Λ(H + Λ)⁻¹v, not (I + Λ⁻¹H)⁻¹v.",
    TENDS: "Only the regularised objective, unrolled, tends to the implicit gradient. The plain one forgets θ where "
    "the loss curves: its Jacobian tends to 0 there.",
    BALANCE: "They balance at φ*. Ten steps leave ‖∇G‖ as measured, relative to λ‖φ − θ‖.",
    ZERO: "I + H/λ is not defined at λ = 0 and overflows before; g = λ(H + λI)⁻¹v is, and tends to 0 like λ where H "
    "is regular.",
    PROVEN: "The proof needs δ < μ/(2ρ), Lipschitz constants and a strongly convex G. Networks have none of these "
    "globally; for small λ their G bends down where the inner loop starts.",
    BETTER: "There is no clear winner, and the article's own comparison says so.",
    PRIOR: "For quadratic losses; otherwise a heuristic.",
    NOTATION: "g belongs to one task τ, with its own φ_τ and training set; the average over tasks comes after it.",
}
QUOTED = {
    BETTER: "Its tables: MiniImageNet 5-way 1-shot, Reptile 49.97 above iMAML 48.96 (gradient "
    "descent) and 49.30 (Hessian-free); Omniglot 20-way 1-shot, MAML 95.8 above iMAML 94.46 (gradient descent).",
    NOTATION: "A slip of notation: no number.",
}
PROBLEMS = ("ridge", "digits", "sinusoid")
_ERRORS = {
    RIGHT: "train loss on the right",
    FEW: "five CG steps",
    STEP: "one inner step for ten",
    ORDER: "one λ a parameter, factors swapped",
    TENDS: "plain objective, unrolled",
    BALANCE: "forces after ten steps, ‖∇G‖/λ‖φ − θ‖",
}
_NAMES = {
    RIGHT: "error with the train loss on the right",
    FEW: "error of CG-5 at φ*",
    STEP: "gradient of one step against ten",
    ORDER: "(I + Λ⁻¹H)⁻¹v against Λ(H + Λ)⁻¹v",
    TENDS: "error of the plain objective, 256 steps unrolled",
    BALANCE: "‖∇G‖/λ‖φ − θ‖ after ten steps",
}


def _median(table: Any, says: str) -> Any:
    return table.relative_error.sel(estimator=_ERRORS[says]).median("task")


def _refuting(says: str, name: str, measured: Any, wanted: float, relation: Relation = Relation.AT_LEAST) -> Claim:
    tolerance = 0.1 if relation is Relation.NEAR else 0.0
    return Claim(name, measured, wanted, tolerance, relation, ARTICLE, says)


def claims(tables: Mapping[str, Any]) -> list[Claim]:
    """Return what refutes each statement: at every λ for the right-hand side, at the worst for the others."""
    found = []
    for problem in PROBLEMS:
        table = tables[problem]
        lowest = f"λ = {float(table.lam.min()):.3g}"
        found.append(
            _refuting(
                RIGHT, f"{problem}: {_NAMES[RIGHT]}, smallest median over λ", _median(table, RIGHT).min(), MATTERS
            )
        )
        found.append(_refuting(FEW, f"{problem}: {_NAMES[FEW]}, {lowest}", _median(table, FEW).isel(lam=0), PERCENT))
        moderate = table.where(table.lam <= 10, drop=True)
        found.append(
            _refuting(
                TENDS, f"{problem}: {_NAMES[TENDS]}, smallest median, λ ≤ 10", _median(moderate, TENDS).min(), MATTERS
            )
        )
        found += [
            _refuting(says, f"{problem}: {_NAMES[says]}, largest median over λ", _median(table, says).max(), MATTERS)
            for says in (STEP, ORDER, BALANCE)
        ]
    saddle, limit, network = tables["saddle"], tables["limit"], tables["sinusoid"]
    nothing, small = limit.sel(lam=0.0), limit.where((limit.lam > 1e-300) & (limit.lam <= 1e-6), drop=True)
    return [
        *found,
        _refuting(EXISTS, "saddles that SciPy's CG solves and calls a success, share", saddle.accepted.mean(), 0.9),
        _refuting(
            ZERO,
            "ridge: problems with a finite I + H/λ at λ = 0, share",
            nothing.finite.mean(),
            0.0,
            Relation.AT_MOST,
        ),
        _refuting(
            ZERO,
            "ridge: slope of ‖λ(H + λI)⁻¹v‖ over λ, λ ≤ 1e-6",
            median_slope(np.log(small.lam.values), np.log(small["size"].values)),
            1.0,
            Relation.NEAR,
        ),
        _refuting(
            PROVEN,
            f"sinusoid: tasks whose G bends down at θ, share, λ = {float(network.lam[0]):.3g}",
            network.bends_down.isel(lam=0).mean(),
            0.5,
        ),
    ]


def statements(tables: Mapping[str, Any]) -> list[Statement]:
    """Return every statement, with its measured effects over λ."""
    return [
        Statement(says, instead, _effects(says, tables), QUOTED.get(says, "")) for says, instead in INSTEAD.items()
    ]


def _effects(says: str, tables: Mapping[str, Any]) -> tuple[Effect, ...]:
    found = []
    if says in _ERRORS:
        found += [_over_lam(_NAMES[says], name, _median(tables[name], says)) for name in PROBLEMS]
    found += [
        _over_lam(quantity, name, select(tables[name]))
        for of, quantity, names, select in _MORE
        if of == says
        for name in names
    ]
    return tuple(found)


def _over_lam(quantity: str, problem: str, values: Any) -> Effect:
    return Effect(quantity, problem, tuple(values.lam.values.tolist()), tuple(values.values.tolist()))


_MORE: tuple[tuple[str, str, tuple[str, ...], Callable[[Any], Any]], ...] = (
    (RIGHT, "cosine of the angle to the right gradient", PROBLEMS, lambda table: table.cosine.median("task")),
    (FEW, "CG steps to an error of 1e-6", PROBLEMS, lambda table: table.steps_to_goal.median("task")),
    (FEW, "κ(A) at φ*", PROBLEMS, lambda table: table.condition.median("task")),
    (TENDS, "‖Jᵀv‖/‖v‖ of the plain objective", PROBLEMS, lambda table: table.shrunk.median("task")),
    (EXISTS, "relative residual of SciPy's CG", ("saddle",), lambda table: table.residual.median("task")),
    (EXISTS, "smallest eigenvalue of A", ("saddle",), lambda table: table.smallest.median("task")),
    (ZERO, "‖g‖/‖v‖ by λ(H + λI)⁻¹v", ("limit",), lambda table: table["size"].median("task")),
    (ZERO, "share of problems with a finite I + H/λ", ("limit",), lambda table: table.finite.mean("task")),
    (PROVEN, "share of tasks whose G bends down at θ", PROBLEMS, lambda table: table.bends_down.mean("task")),
)
"""Statement, quantity, panels, and how to read it from a panel's table."""
