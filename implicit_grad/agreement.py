"""Do independent ways to the same meta-gradient agree, each within what it can tell?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, epsilon, namespace, norm
from implicit_grad.certificates import certify
from implicit_grad.errors import ArgumentError, ArgumentTypeError, MissingDependency
from implicit_grad.estimators import (
    ComplexStepGradient,
    ContrastiveGradient,
    FiniteDifferenceGradient,
    ImplicitGradient,
    UnrolledGradient,
)
from implicit_grad.inner import LBFGS, GradientDescent, InnerSolver, Newton
from implicit_grad.linear import Cholesky, spectrum_ends
from implicit_grad.problem import BilevelProblem, expect_problem
from implicit_grad.reference import reference
from implicit_grad.results import Estimate, Solution
from implicit_grad.status import Status

_UNRESOLVED = 0.1
"""A floor above this share of the gradient's size tells nothing."""

_LARGEST = {"finite difference": 200, "complex step": 200, "exact": 3000, "reference": 24}
"""Sizes d above which an oracle is left out, as too dear."""

_MOST_STEPS = 20_000


@dataclass(frozen=True, eq=False)
class Agreement:
    """Meta-gradients of several oracles, what each can tell, and how far apart they are.

    Attributes
    ----------
    oracles : tuple of str
        Names; candidates come first, the reference, where there is one, last.
    gradients : (k, ..., d) array
        NaN where an oracle refused.
    floors : (k, ...) array
        The error that each oracle may have: its resolution. Infinite where it refused.
    differences : (k, k, ...) array
        ‖g_i − g_j‖.
    left_out : dict
        Oracles that were not asked, or refused for every problem, with the reason.
    """

    oracles: tuple[str, ...]
    gradients: Array
    floors: Array
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> Array:
        """‖g_i − g_j‖: `(k, k, ...)`."""
        with np.errstate(invalid="ignore", over="ignore"):
            return norm(self.gradients[:, None] - self.gradients[None, :])

    @property
    def ratios(self) -> Array:
        """‖g_i − g_j‖ in units of the two floors together: `(k, k, ...)`; above 1 the two disagree."""
        together = self.floors[:, None] + self.floors[None, :]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = self.differences / together
        ratio = np.where(np.isnan(ratio) & np.isfinite(together), np.inf, ratio)  # a candidate that is not finite
        # Two that are equal agree, whatever they can tell; what can tell nothing contradicts nobody.
        return np.where((self.differences == 0) | np.isinf(together), 0.0, ratio)

    @property
    def resolved(self) -> Array:
        """Whether an oracle's floor is below a tenth of ‖g‖, as the sharpest one sees it: `(k, ...)`.

        Candidates always count: one that is far too large has a large floor, and is as wrong as any.
        """
        sharp = (self.floors <= _UNRESOLVED * self.size) | (self.floors == 0)
        return np.isfinite(self.floors) & (sharp | ~self._asked)

    @property
    def _asked(self) -> Array:
        """Which rows are oracles and no candidates: `(k, 1, ...)` booleans."""
        own = np.array([name in _ORACLES for name in self.oracles], dtype=bool)
        return own.reshape(-1, *(1,) * (self.floors.ndim - 1))

    @property
    def size(self) -> Array:
        """‖g‖ as the sharpest oracle sees it, and a candidate only where no oracle answers: `(...)`."""
        if not self.oracles:
            return np.zeros(self.floors.shape[1:])
        asked = np.where(self._asked, self.floors, np.inf)
        sharpest = np.argmin(np.where(np.isinf(asked).all(axis=0), self.floors, asked), axis=0)
        return norm(np.take_along_axis(self.gradients, sharpest[None, ..., None], axis=0)[0])

    @property
    def agrees(self) -> Array:
        """Whether at least two oracles can tell anything, and no two of those disagree: `(...)`."""
        usable = self.resolved
        both = usable[:, None] & usable[None, :]
        return (usable.sum(axis=0) >= 2) & ~(both & (self.ratios > 1)).any(axis=(0, 1))

    @property
    def dissenters(self) -> Array:
        """Which oracles are outside the largest set that agrees among itself: `(k, ...)` booleans.

        Sets are compared by size, then by whether the reference is in them; where two different sets are equal in
        both, nobody can say who is wrong, and all that disagree with anyone are dissenters.
        """
        found = np.zeros(self.floors.shape, dtype=bool)
        ratios, usable = self.ratios, self.resolved
        for index in np.ndindex(self.floors.shape[1:]):
            found[(slice(None), *index)] = _outside(
                ratios[(slice(None), slice(None), *index)], usable[(slice(None), *index)], self._authority
            )
        return found

    @property
    def _authority(self) -> int | None:
        return self.oracles.index("reference") if "reference" in self.oracles else None

    def at(self, index: tuple[int, ...]) -> Agreement:
        """Return the agreement on one problem of the batch."""
        rows = (slice(None), *index)
        return replace(self, gradients=self.gradients[rows], floors=self.floors[rows])

    def __str__(self) -> str:
        """Return the table, one per problem: floors, and the ratios of all pairs."""
        shape = self.floors.shape[1:]
        tables = []
        for index in np.ndindex(shape):
            title = f"problem {index}\n" if shape else ""
            tables.append(title + _table(self.at(index)))
        notes = [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        return "\n\n".join([*tables, *(["\n".join(notes)] if notes else [])])


def _outside(ratios: Array, usable: Array, authority: int | None) -> Array:
    """Return who is outside the largest set without a ratio above 1."""
    members = np.flatnonzero(usable)
    clash = ratios > 1
    outside = np.zeros(len(usable), dtype=bool)
    for size in range(len(members), 0, -1):
        sets = [s for s in combinations(members, size) if not clash[np.ix_(s, s)].any()]
        if not sets:
            continue
        trusted = [s for s in sets if authority in s] or sets
        if len(trusted) == 1 or size == len(members):
            outside[members] = True
            outside[list(trusted[0])] = False
        else:
            outside[members] = clash[np.ix_(members, members)].any(axis=1)
        break
    return outside


def _table(one: Agreement) -> str:
    names, ratios, usable = one.oracles, one.ratios, one.resolved
    size = float(one.size)
    width = max(map(len, ("oracle", *names))) + 2
    columns = [f"{i + 1}" for i in range(len(names))]
    lines = [f"{'oracle':<{width}}{'floor/‖g‖':>11}" + "".join(f"{c:>9}" for c in columns)]
    for i, name in enumerate(names):
        floor = one.floors[i] / size if size > 0 else one.floors[i]
        cells = []
        for j in range(len(names)):
            if i == j or not (usable[i] and usable[j]):
                cells.append(f"{'·':>9}")
            else:
                cells.append(f"{ratios[i, j]:>8.2g}{'*' if ratios[i, j] > 1 else ' '}")
        shown = f"{floor:>11.1e}" if np.isfinite(floor) else f"{'—':>11}"
        lines.append(f"{f'{i + 1} {name}':<{width}}{shown}" + "".join(cells))
    lines.append("entries: distance in units of both floors; * disagrees; · cannot tell")
    lines.append(_verdict(one, usable))
    return "\n".join(lines)


def _verdict(one: Agreement, usable: Array) -> str:
    if usable.sum() < 2:
        return "verdict: inconclusive, fewer than two oracles can tell anything"
    if bool(one.agrees):
        return f"verdict: all {int(usable.sum())} that can tell agree"
    wrong = [name for name, out in zip(one.oracles, one.dissenters, strict=True) if out]
    return f"verdict: disagreement; outside the consensus: {', '.join(wrong)}"


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # what fails is left out, with its reason
def agree(
    problem: BilevelProblem,
    theta: Array,
    *,
    candidates: Mapping[str, Any] | None = None,
    solver: InnerSolver | None = None,
    without: tuple[str, ...] = (),
) -> Agreement:
    r"""Compute one meta-gradient in independent ways, and compare each pair in units of what the two can tell.

    ==================  ===========================================  =======================================
    oracle              uses                                         floor
    ==================  ===========================================  =======================================
    exact               ∇L, Hessian-vector products, Cholesky        its certificate
    contrastive         ∇L of both losses only                       change from s to 2s, + λδ/s
    finite difference   ∇L_train, L_test                             change from h to 2h, + √d·η/h
    complex step        losses of its own (closed forms only)        rounding share of the certificate
    unrolled limit      ∇L, products; no linear solve                (1 − αm)^K ‖g‖ + rounding
    reference           losses of its own in ball arithmetic         its proven radius, + ½ eps ‖g‖
    ==================  ===========================================  =======================================

    An oracle whose floor exceeds a tenth of ‖g‖ contradicts nobody.

    Parameters
    ----------
    problem : BilevelProblem
    theta : (..., d) array
        Problems of a batch are compared one by one.
    candidates : dict of (..., d) arrays, optional
        Gradients under test, by name; their floor is rounding, ½ eps ‖g‖. One that is not finite disagrees with all.
    solver : InnerSolver, optional
        Solves for φ and, perturbed, for the contrastive rule and for finite differences. The default, L-BFGS, asks
        for gradients only: an error in a Hessian cannot reach those two.
    without : tuple of str
        Oracles to leave out.

    Returns
    -------
    Agreement
        `str()` of it is the table.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For θ, candidates or names that do not fit, and for arrays that do not live on the host.

    Notes
    -----
    All oracles stand at the minimum that `solver` finds from θ; it is polished by Newton where that succeeds. About
    4d inner solves, d products and, for d ≤ 24, a solve in 30 digits a problem: for tests, not for training.

    Examples
    --------
    >>> from implicit_grad import LeastSquares
    >>> rng = np.random.default_rng(5)
    >>> X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    >>> problem = BilevelProblem(LeastSquares(X[:10], y[:10]), LeastSquares(X[10:], y[10:]), lam=0.5)
    >>> found = agree(problem, np.zeros(3), candidates={"mine": np.ones(3)})
    >>> [name for name, out in zip(found.oracles, found.dissenters) if out]
    ['mine']
    """
    expect_problem(problem)
    theta = problem.parameters(theta)
    if namespace(theta) is not np:
        raise ArgumentTypeError("theta: oracles are compared on the host; move the problem with to_numpy")
    border.strategy("solver", solver or LBFGS(1), "LBFGS(1000, rtol=1e-14)")
    unknown = set(without) - set(_ORACLES)
    if unknown:
        raise ArgumentError(f"without: {sorted(unknown)} are none of {list(_ORACLES)}")
    if candidates is not None and not isinstance(candidates, Mapping):
        raise ArgumentTypeError(f"candidates: expected a dict of gradients by name, got {type(candidates).__name__}")
    mine = {str(name): _candidate(str(name), g, theta) for name, g in (candidates or {}).items()}
    names = [name for name in _ORACLES if name not in without]
    left_out = {name: why for name in names if (why := _too_dear(name, int(theta.shape[-1])))}
    names = [name for name in names if name not in left_out]
    shape = theta.shape[:-1]
    gradients = np.full((len(mine) + len(names), *theta.shape), np.nan)
    floors = np.full((len(mine) + len(names), *shape), np.inf)
    for i, g in enumerate(mine.values()):
        gradients[i], floors[i] = g, np.where(np.isfinite(norm(g)), 0.5 * epsilon(theta) * norm(g), 0.0)
    refusals: dict[str, list[str]] = {name: [] for name in names}
    solve = solver or LBFGS(2000, rtol=1e-14)
    for index in np.ndindex(shape):
        row = _Row(problem.select(index, shape), theta[index], solve)
        if not row.inner.ok:
            status = row.inner.status
            for reasons in refusals.values():
                reasons.append(f"no φ: {status.name}: {status.value}")
            continue
        for k, name in enumerate(names, start=len(mine)):
            try:
                g, floor = _ORACLES[name](row)
            except (ArgumentTypeError, MissingDependency, _Refused) as reason:
                refusals[name].append(str(reason))
                continue
            gradients[(k, *index)] = g
            floors[(k, *index)] = floor if np.isfinite(floor) and np.isfinite(g).all() else np.inf
    for name, reasons in refusals.items():
        if len(reasons) == int(np.prod(shape, dtype=int)) and reasons:
            left_out[name] = reasons[0]
    keep = [i for i, name in enumerate([*mine, *names]) if name not in left_out]
    every = [*mine, *names]
    return Agreement(tuple(every[i] for i in keep), gradients[keep], floors[keep], left_out)


class _Refused(Exception):
    """An oracle has no answer here."""


def _candidate(name: str, gradient: Any, theta: Array) -> Array:
    g = border.real_array(f"candidates[{name!r}]", gradient, min_ndim=1)
    if name in _ORACLES:
        raise ArgumentError(f"candidates: {name!r} is the name of an oracle")
    try:
        return np.broadcast_to(g, theta.shape)
    except ValueError:
        raise ArgumentError(
            f"candidates[{name!r}]: shape {tuple(g.shape)} does not fit θ {tuple(theta.shape)}"
        ) from None


def _too_dear(name: str, d: int) -> str:
    most = _LARGEST.get(name, d)
    return "" if d <= most else f"d = {d} is more than {most}"


class _Row:
    """One problem with its minimum, and what floors are made of."""

    def __init__(self, problem: BilevelProblem, theta: Array, solver: InnerSolver) -> None:
        self.problem, self.theta, self.solver = problem, theta, solver
        self.inner: Solution[Any] = solver(problem, theta)
        if self.inner.status not in (Status.DIVERGED, Status.NONFINITE):
            polished = Newton(1e-13)(problem, theta, start=self.inner.value)
            self.inner = polished if polished.ok else self.inner
        self.lowest, self.largest = np.nan, np.nan
        if self.inner.ok:
            self.lowest, self.largest = map(float, spectrum_ends(problem.curvature(self.inner.value)))

    def worth(self) -> float:
        """λ/m: what noise that was computed with 1/λ for ‖A⁻¹‖ is to be multiplied with."""
        return max(1.0, float(self.problem.lam) / self.lowest) if self.lowest > 0 else np.inf

    def rounding(self, g: Array) -> float:
        """Rounding share of a certificate of g at φ, and of g itself."""
        at_phi = certify(self.problem, self.theta, g, self.inner.value, gradient_steps=0)
        return float(at_phi.rounding_share) + _grain(g)


def _grain(g: Array) -> float:
    return 0.5 * epsilon(g) * float(norm(g))


def _gradient(estimate: Estimate) -> Array:
    if not estimate.ok:
        raise _Refused(f"{estimate.status.name}: {estimate.status.value}")
    return estimate.gradient


def _exact(row: _Row) -> tuple[Array, float]:
    g = _gradient(ImplicitGradient(Cholesky(refinements=2))(row.problem, row.theta, row.inner))
    return g, float(certify(row.problem, row.theta, g, row.inner.value).bound) + _grain(g)


def _contrastive(row: _Row) -> tuple[Array, float]:
    estimate, floor = ContrastiveGradient(None, row.solver).resolved(row.problem, row.theta, row.inner)
    return _gradient(estimate), float(floor.truncation) + row.worth() * float(floor.noise)


def _finite_difference(row: _Row) -> tuple[Array, float]:
    estimate, floor = FiniteDifferenceGradient(row.solver).resolved(row.problem, row.theta, row.inner)
    return _gradient(estimate), float(floor.truncation) + row.worth() * float(floor.noise)


def _complex_step(row: _Row) -> tuple[Array, float]:
    g = _gradient(ComplexStepGradient()(row.problem, row.theta, row.inner))
    return g, row.rounding(g)


def _unrolled(row: _Row) -> tuple[Array, float]:
    """Reverse K gradient steps taken at φ*, the start held constant: its error is (I − αA)^K g exactly."""
    if not row.lowest > 0:
        raise _Refused("H + λI is not positive definite")
    alpha = 1 / row.largest
    q = 1 - alpha * row.lowest
    if q**_MOST_STEPS > _UNRESOLVED:
        raise _Refused(f"κ = {row.largest / row.lowest:.1e} is too large for {_MOST_STEPS} steps")
    wanted = int(np.ceil(np.log(epsilon(row.theta)) / np.log(q))) if q > 0 else 1
    steps = max(1, min(wanted, _MOST_STEPS))
    run = GradientDescent(alpha, steps, record=True)(row.problem, row.theta, start=row.inner.value)
    g = _gradient(UnrolledGradient()(row.problem, row.theta, run))
    return g, q**steps / max(1 - q**steps, epsilon(g)) * float(norm(g)) + row.rounding(g)


def _reference(row: _Row) -> tuple[Array, float]:
    found = reference(row.problem, row.theta, digits=30, start=row.inner.value)
    return found.gradient, float(found.radius) + _grain(found.gradient)


_ORACLES: dict[str, Callable[[_Row], tuple[Array, float]]] = {
    "exact": _exact,
    "contrastive": _contrastive,
    "finite difference": _finite_difference,
    "complex step": _complex_step,
    "unrolled limit": _unrolled,
    "reference": _reference,
}
