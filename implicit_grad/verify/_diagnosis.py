"""Why is it wrong? The formulas that explain a candidate, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from implicit_grad.verify._catalogue import CATALOGUE
from implicit_grad.verify._fit import Fit, Fitter, Sample
from implicit_grad.verify._formula import WrongFormula

_CLEARLY = 10.0
"""Units of noise that the next best formula must be away."""

_CLOSE = 0.3
"""Share of the error that may be left unexplained where a formula is called close."""


@dataclass(frozen=True)
class Cause:
    """One explanation.

    Attributes
    ----------
    name : str
    formula : str
        What is computed, with the fitted values.
    remedy : str
        What to do, in one line.
    residual : float
        What it leaves of the error: 0 explains all, 1 nothing.
    """

    name: str
    formula: str
    remedy: str
    residual: float

    def __str__(self) -> str:
        return f"{self.name}: {self.formula}"


@dataclass(frozen=True)
class Diagnosis:
    """What explains a wrong gradient.

    Attributes
    ----------
    causes : tuple of Cause
        All formulas that leave nothing but rounding, at the θ they were fitted to and at one that was held out. More
        than one: they cannot be told apart here.
    closest : tuple of Cause
        Where none does: the three that explain most.
    confident : bool
        One cause, and every other formula is at least ten times rounding away.
    """

    causes: tuple[Cause, ...] = ()
    closest: tuple[Cause, ...] = ()
    confident: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the causes."""
        return tuple(cause.name for cause in self.causes)

    def __str__(self) -> str:
        if self.causes:
            if self.confident:
                head = "cause:"
            elif len(self.causes) == 1:
                head = "likely cause (another formula is nearly as close):"
            else:
                head = f"ambiguous: these {len(self.causes)} cannot be told apart on this problem:"
            lines = [head]
            for cause in self.causes:
                lines += [f"  {cause}", f"    remedy: {cause.remedy}"]
            if len(self.causes) > 1:
                lines.append("  another λ or another problem may tell them apart")
            return "\n".join(lines)
        if not self.closest or self.closest[0].residual > _CLOSE:
            return "no formula of the catalogue comes close"
        lines = ["no formula of the catalogue explains it; the closest:"]
        lines += [f"  {cause} (leaves {cause.residual:.0%} of the error)" for cause in self.closest]
        return "\n".join([*lines, f"    remedy, if it is the first: {self.closest[0].remedy}"])


def diagnose(samples: tuple[Sample, ...], elsewhere: tuple[Sample, ...] = ()) -> Diagnosis:
    """Fit all formulas to the samples but the last, and let that one judge.

    Parameters
    ----------
    samples : tuple of Sample
    elsewhere : tuple of Sample
        At another λ: of formulas that cannot be told apart at one λ, these say which one it is.
    """
    fitter = Fitter(samples)
    fits = [fit for formula in CATALOGUE if (fit := fitter.fit(formula)) is not None]
    found = _decide(fitter, fits, elsewhere)
    if not found.causes and samples[0].scene.size >= 2 and not samples[0].scene.loops:
        # One more number in front: a mean over tasks for a sum, a lost ½, a learning rate.
        more = [fit for f in CATALOGUE if not f.scaled and (fit := fitter.fit(f, with_factor=True)) is not None]
        scaled = _decide(fitter, [replace(fit, formula=_times_c(fit.formula)) for fit in more], elsewhere)
        if scaled.causes:
            near = any(_far(fit) < _CLEARLY for fit in fits)
            return replace(scaled, confident=scaled.confident and not near)
    return found


def _times_c(formula: WrongFormula) -> WrongFormula:
    part_of = tuple(f"{name}, times c" for name in formula.part_of)
    remedy = f"{formula.remedy}; and the length is off by c: a sum for a mean, or a lost ½"
    return replace(
        formula, name=f"{formula.name}, times c", formula=f"c · {formula.formula}", remedy=remedy, part_of=part_of
    )


def _far(fit: Fit) -> float:
    return max(fit.misfit, fit.held_out)


def _decide(fitter: Fitter, fits: list[Fit], elsewhere: tuple[Sample, ...]) -> Diagnosis:
    explaining = [fit for fit in fits if fit.fits]
    parents = {fit.formula.name: fit.formula.part_of for fit in fits}
    containers = {name for fit in explaining for name in _ancestors(fit.formula.name, parents)}
    explaining = [fit for fit in explaining if fit.formula.name not in containers]
    if not explaining:
        nearest = sorted(fits, key=lambda fit: fit.unexplained)[:3]
        return Diagnosis(closest=tuple(map(_cause, nearest)))
    others = [fit for fit in fits if not fit.fits and fit.formula.name not in containers]
    distinct = all(_far(fit) >= _CLEARLY for fit in others)
    if len(explaining) > 1 and elsewhere:
        away = [max(fitter.away(fit, sample) for sample in elsewhere) for fit in explaining]
        if min(away) <= 1:
            distinct = distinct and all(x <= 1 or x >= _CLEARLY for x in away)
            explaining = [fit for fit, x in zip(explaining, away, strict=True) if x <= 1]
    explaining.sort(key=lambda fit: (fit.formula.freedom, _far(fit)))
    return Diagnosis(causes=tuple(map(_cause, explaining)), confident=distinct and len(explaining) == 1)


def _ancestors(name: str, parents: dict[str, tuple[str, ...]]) -> list[str]:
    found: list[str] = []
    for parent in parents.get(name, ()):
        found += [parent, *_ancestors(parent, parents)]
    return found


def _cause(fit: Fit) -> Cause:
    formula = fit.formula
    values = f"   with {fit.values}" if fit.values else ""
    return Cause(formula.name, f"{formula.formula}{values}", formula.remedy, fit.unexplained)
