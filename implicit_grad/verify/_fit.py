"""Fit formulas of the catalogue to what a candidate returned, at several θ at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.verify._formula import WrongFormula
from implicit_grad.verify._scene import Scene

_STARTS = 4
"""Values of the free count that are refined."""

_HOPELESS = 0.5
_ROUNDS = 10
_PATIENCE = 4
_WALK = 12
_EDGE = 1.01
_SHIFT = 1e-6
_FINE = np.linspace(-1.0, 1.0, 41)


@dataclass(frozen=True, eq=False)
class Sample:
    """What a candidate returned at one θ, and what it should have.

    Attributes
    ----------
    scene : Scene
    candidate, right : (d,) arrays
    noise : float
        How far apart two computations of one vector may be here.
    """

    scene: Scene
    candidate: Array
    right: Array
    noise: float

    @property
    def error(self) -> float:
        """‖candidate − right‖."""
        return float(np.linalg.norm(self.candidate - self.right))


@dataclass(frozen=True, eq=False)
class Fit:
    """One formula with the values of its free numbers that fit best.

    Attributes
    ----------
    formula : WrongFormula
    misfit : float
        Largest distance from the candidate over the samples that were fitted, in units of their noise.
    held_out : float
        The same at the θ that was not fitted.
    unexplained : float
        Distance from the candidate in units of the candidate's error: 0 explains all of it, 1 nothing.
    number, count, factor : float, int, float
        Values of the free number, of the free count, and of the factor in front; None where the formula has none.
    """

    formula: WrongFormula
    misfit: float
    held_out: float
    unexplained: float
    number: float | None = None
    count: int | None = None
    factor: float | None = None

    @property
    def fits(self) -> bool:
        """Whether nothing but rounding is left, also where it was not fitted."""
        return self.misfit <= 1 and self.held_out <= 1

    @property
    def values(self) -> str:
        """The fitted values, for a reader."""
        parts = []
        if self.number is not None and self.formula.number is not None:
            parts.append(f"{self.formula.number.symbol} = {self.number:.6g}")
        if self.count is not None:
            parts.append(f"{self.formula.symbol} = {self.count}")
        if self.factor is not None:
            parts.append(f"c = {_near_one(self.factor)}")
        return ", ".join(parts)


class Fitter:
    """All fits of one set of samples; the last sample is held out."""

    def __init__(self, samples: tuple[Sample, ...]) -> None:
        self.samples, self.fitted, self.kept = samples, samples[:-1], samples[-1]

    def fit(self, formula: WrongFormula, *, with_factor: bool = False) -> Fit | None:
        """Return the best fit; None where the formula has no meaning here, or only at the end of its range.

        Parameters
        ----------
        with_factor : bool
            Fit a number in front, too.
        """
        if self.kept.scene.size > formula.most:
            return None
        scaled = formula.scaled or with_factor
        if formula.number is None:
            return self._best(formula, [(i, None) for i in range(self._counts(formula))], scaled)
        starts, hopeful = self._starts(formula, scaled)
        if hopeful and not scaled:
            # The shape may be near where the length, between two values of the grid, is not.
            starts = list(dict.fromkeys([*starts, *self._starts(formula, True)[0]]))
        choices = self._refined(formula, starts, scaled) if hopeful else starts
        best = self._best(formula, [(i, x) for i, x in choices], scaled)
        return self._walked(formula, best, scaled) if hopeful and formula.counts else best

    def _walked(self, formula: WrongFormula, fit: Fit | None, scaled: bool) -> Fit | None:
        """Try the next counts as long as that helps: K steps of α are nearly K + 1 steps of αK/(K + 1)."""
        for _ in range(_WALK):
            if fit is None or fit.fits or fit.count is None or fit.number is None or fit.unexplained > _HOPELESS:
                break
            i, counts = formula.counts.index(fit.count), formula.counts
            beside = [j for j in (i - 1, i + 1) if 0 <= j < len(counts)]
            starts = [(j, fit.number * fit.count / counts[j]) for j in beside]
            other = self._best(formula, [(j, x) for j, x in self._refined(formula, starts, scaled)], scaled)
            if other is None or other.unexplained >= fit.unexplained:
                break
            fit = other
        return fit

    def away(self, fit: Fit, sample: Sample) -> float:
        """Distance of a fitted formula from what the candidate made of another sample, in units of its noise."""
        i = fit.formula.counts.index(fit.count) if fit.count is not None else 0
        vector = self._vector(fit.formula, sample, i, fit.number) * (1.0 if fit.factor is None else fit.factor)
        away = float(np.linalg.norm(vector - sample.candidate)) / sample.noise
        return away if np.isfinite(away) else np.inf

    def _counts(self, formula: WrongFormula) -> int:
        return min(self._table(formula, sample).shape[1] for sample in self.samples)

    def _table(self, formula: WrongFormula, sample: Sample) -> Array:
        return sample.scene.once(formula, lambda: formula.table(sample.scene))

    def _vector(self, formula: WrongFormula, sample: Sample, i: int, number: float | None) -> Array:
        if number is None:
            rows = self._table(formula, sample)[0]
            return rows[i] if i < len(rows) else np.full(sample.scene.size, np.nan)
        return formula.at(sample.scene, np.array([number]), np.array([i]))[0]

    def _starts(self, formula: WrongFormula, scaled: bool) -> tuple[list[tuple[int, float]], bool]:
        """Counts and numbers near which the first sample is matched best, and whether they are worth refining."""
        number, sample = formula.number, self.fitted[0]
        assert number is not None
        grid = 1 + number.grid // 2 if sample.scene.loops else number.grid
        x = np.geomspace(number.lowest, number.highest, grid) * number.unit.of(sample.scene)
        table = sample.scene.once(("grid", formula.grid_of or formula.name), lambda: formula.table(sample.scene, x))
        table = np.where(np.isfinite(table).all(axis=-1, keepdims=True), table, np.inf)
        candidate = sample.candidate
        off = _distance(candidate, table, scaled)
        found = []
        for i in range(table.shape[1]):
            inner = off[1:-1, i]
            dips = 1 + np.flatnonzero((inner <= off[:-2, i]) & (inner <= off[2:, i]) & np.isfinite(inner))
            for j in sorted(dips, key=lambda k: off[k, i])[:2]:
                three = table[j - 1 : j + 2, i]
                if not np.isfinite(three).all():
                    three = np.broadcast_to(three[1], three.shape)
                t = _FINE[:, None]
                curve = three[1] + 0.5 * t * (three[2] - three[0]) + 0.5 * t**2 * (three[2] - 2 * three[1] + three[0])
                between = _distance(candidate, curve, scaled)
                best = int(np.argmin(between))
                found.append((float(between[best]), i, float(x[j] * (x[j + 1] / x[j]) ** _FINE[best])))
        near = sorted(found)[: 2 if sample.scene.loops else _STARTS]
        # Where the best of a formula leaves most of the error, no refinement will make it fit.
        hopeful = near and near[0][0] <= _HOPELESS * sample.error
        return [(i, start) for _, i, start in (near if hopeful else near[:1])], bool(hopeful)

    def _refined(
        self, formula: WrongFormula, starts: list[tuple[int, float]], scaled: bool
    ) -> list[tuple[int, float]]:
        """Gauss–Newton in the logarithm of the number, for all starts together."""
        if not starts or formula.number is None:
            return []
        counts = [i for i, _ in starts]
        u = np.log([x for _, x in starts])
        first = u.copy()
        best, best_u = np.full(len(starts), np.inf), u.copy()
        at_first = np.inf
        for turn in range(_ROUNDS):
            r, slope = self._residuals(formula, u, counts, scaled)
            off = np.linalg.norm(r, axis=-1)
            better = off < best
            best, best_u = np.where(better, off, best), np.where(better, u, best_u)
            with np.errstate(all="ignore"):
                step = -np.sum(r * slope, axis=-1) / np.sum(slope * slope, axis=-1)
            step = np.clip(np.where(np.isfinite(step), step, 0.0), -0.7, 0.7)
            at_first = float(best.min()) if turn == 0 else at_first
            done = np.all(np.abs(step) <= 1e-15 * np.abs(u)) or best.min() <= 0.05
            if done or (turn == _PATIENCE and best.min() > 0.3 * at_first):
                break
            u = np.clip(u + step, first - 4.0, first + 4.0)
        return [(i, float(np.exp(x))) for i, x in zip(counts, best_u, strict=True)]

    def _residuals(self, formula: WrongFormula, u: Array, counts: list[int], scaled: bool) -> tuple[Array, Array]:
        """Residuals in units of noise, and their derivatives: `(starts, samples · d)` each."""
        here, ahead = [], []
        numbers, places = np.exp(np.concatenate([u, u + _SHIFT])), np.array([*counts, *counts])
        for sample in self.fitted:
            vectors = formula.at(sample.scene, numbers, places) / sample.noise
            here.append(vectors[: u.size])
            ahead.append(vectors[u.size :])
        wanted = np.concatenate([sample.candidate / sample.noise for sample in self.fitted])
        f, g = np.concatenate(here, axis=-1), np.concatenate(ahead, axis=-1)
        if scaled:
            f, g = _factors(wanted, f)[:, None] * f, _factors(wanted, g)[:, None] * g
        bad = ~np.isfinite(f).all(axis=-1) | ~np.isfinite(g).all(axis=-1)
        r, slope = f - wanted, (g - f) / _SHIFT
        r[bad], slope[bad] = np.inf, 0.0
        return r, slope

    def _best(self, formula: WrongFormula, choices: list[tuple[int, float | None]], scaled: bool) -> Fit | None:
        fits = [fit for i, x in choices if (fit := self._judged(formula, i, x, scaled)) is not None]
        return min(fits, key=lambda fit: (fit.unexplained, fit.misfit), default=None)

    def _judged(self, formula: WrongFormula, i: int, number: float | None, scaled: bool) -> Fit | None:
        free = formula.number
        if free is not None and number is not None:
            share = number / free.unit.of(self.fitted[0].scene)
            if not _EDGE * free.lowest < share < free.highest / _EDGE:
                return None
        vectors = [self._vector(formula, sample, i, number) for sample in self.samples]
        if not all(np.isfinite(vector).all() for vector in vectors):
            return None
        factor = None
        if scaled:
            wanted = np.concatenate([each.candidate / each.noise for each in self.fitted])
            f = np.concatenate([v / each.noise for v, each in zip(vectors[:-1], self.fitted, strict=True)])
            factor = float(_factors(wanted, f[None])[0])
            vectors = [factor * vector for vector in vectors]
            # A factor of zero, of a formula that says nothing, fits a candidate that says nothing.
            if any(np.linalg.norm(v) <= each.noise for v, each in zip(vectors, self.samples, strict=True)):
                return None
        off = [float(np.linalg.norm(v - each.candidate)) for v, each in zip(vectors, self.samples, strict=True)]
        units = [a / each.noise for a, each in zip(off, self.samples, strict=True)]
        error = max(sum(each.error / each.noise for each in self.samples), 5e-324)
        count = formula.counts[i] if formula.counts else None
        return Fit(formula, max(units[:-1]), units[-1], sum(units) / error, number, count, factor)


def _factors(wanted: Array, f: Array) -> Array:
    """Best number in front of each row, NaN for rows of zeros."""
    with np.errstate(all="ignore"):
        return (f @ wanted) / np.sum(f * f, axis=-1)


def _distance(candidate: Array, table: Array, scaled: bool) -> Array:
    """‖candidate − row‖, after scaling the row where that is free."""
    with np.errstate(all="ignore"):
        if scaled:
            table = ((table @ candidate) / np.sum(table * table, axis=-1))[..., None] * table
        off = np.linalg.norm(candidate - table, axis=-1)
    return np.where(np.isnan(off), np.inf, off)


def _near_one(c: float) -> str:
    """A factor in digits that tell it from 1."""
    return f"1 {'+' if c > 1 else '−'} {abs(c - 1):.1e}" if 0 < abs(c - 1) < 1e-4 else f"{c:.6g}"
