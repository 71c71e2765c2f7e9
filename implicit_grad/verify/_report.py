"""What `verify` found: three verdicts, with the numbers they rest on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.check import Finding
from implicit_grad.verify._candidate import Fault, Observation
from implicit_grad.verify._diagnosis import Diagnosis
from implicit_grad.verify._right import RightAnswer

_SHOWN = 3


class Verdict(Enum):
    """Whether a meta-gradient is right; the value is the help text."""

    PASS = "right: within the tolerance of what independent oracles agree on"
    FAIL = "wrong: further from ∇F than the tolerance, or not usable as a gradient"
    INCONCLUSIVE = "cannot tell: the oracles do not agree, or cannot resolve the difference"

    @property
    def exit_code(self) -> int:
        """Exit code of the command line: 0, 1 or 2."""
        return {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}[self.name]

    def __repr__(self) -> str:
        return f"Verdict.{self.name}"

    def __bool__(self) -> NoReturn:
        """Refuse: there are three of them.

        Raises
        ------
        TypeError
        """
        raise TypeError("a verdict is no boolean, there are three of them: compare with Verdict.PASS")


@dataclass(frozen=True, eq=False)
class Point:
    """The comparison at one θ.

    Attributes
    ----------
    theta : (d,) array
    gradient : (d,) array
        The candidate's: the worse of two calls; NaN where it gave no vector.
    right : RightAnswer
        ∇F(θ), with the oracles' agreement.
    error : float
        ‖gradient − ∇F‖.
    allowed : float
        Error up to which it passes.
    refused : float
        Error from which it fails; between the two nobody can tell.
    verdict : Verdict
    reason : str
        One line.
    """

    theta: Array
    gradient: Array
    right: RightAnswer
    error: float
    allowed: float
    refused: float
    verdict: Verdict
    reason: str = ""

    @property
    def relative_error(self) -> float:
        """‖gradient − ∇F‖/‖∇F‖."""
        return _over(self.error, self.right.size)

    @property
    def resolution(self) -> float:
        """What the oracles leave open, over ‖∇F‖."""
        return _over(self.right.resolution, self.right.size)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the candidate and ∇F."""
        g, right = _unit(self.gradient), _unit(self.right.gradient)
        return float(g @ right)

    @property
    def norm_ratio(self) -> float:
        """‖gradient‖/‖∇F‖."""
        return _over(float(np.linalg.norm(self.gradient)), self.right.size)

    @property
    def coordinates(self) -> Array:
        """(gradient − ∇F)/‖∇F‖, entry by entry: `(d,)`."""
        return (self.gradient - self.right.gradient) / _nonzero(self.right.size)

    @property
    def directions(self) -> Array:
        """The same along the eigenvectors of H + λI, stiff directions last: `(d,)`; NaN where ∇F is not known."""
        if not self.right.known:
            return np.full_like(self.gradient, np.nan)
        scene = self.right.scene
        _, vectors = np.linalg.eigh(scene.H + np.diag(scene.weights))
        return self.coordinates @ vectors


@dataclass(frozen=True, eq=False)
class Report:
    """What `verify` found. `str()` is the page; there is no `bool()`.

    Attributes
    ----------
    name : str
        Of the candidate.
    verdict : Verdict
    points : tuple of Point
        One per θ.
    observations : tuple of Observation
        Faults that were seen, whatever the numbers.
    diagnosis : Diagnosis or None
        Of a failure.
    findings : tuple of Finding
        What is wrong with the problem's own losses, looked for where the verdict is not a pass.
    rtol : float or None
        The tolerance asked for.
    notes : tuple of str
    """

    name: str
    verdict: Verdict
    points: tuple[Point, ...]
    observations: tuple[Observation, ...]
    diagnosis: Diagnosis | None
    findings: tuple[Finding, ...]
    rtol: float | None
    notes: tuple[str, ...] = ()

    def __bool__(self) -> NoReturn:
        """Refuse: a report has three verdicts.

        Raises
        ------
        TypeError
        """
        raise TypeError("a report is no boolean, there are three verdicts: compare report.verdict with Verdict.PASS")

    def __contains__(self, fault: Fault) -> bool:
        return any(each.fault is fault for each in self.observations)

    @property
    def worst(self) -> Point:
        """The point with the largest relative error; one without a number, if there is any."""
        return max(self.points, key=lambda p: np.inf if np.isnan(p.relative_error) else p.relative_error)

    @property
    def error(self) -> float:
        """Largest ‖gradient − ∇F‖/‖∇F‖; NaN where some could not be measured."""
        return float(np.max([p.relative_error for p in self.points]))

    @property
    def resolution(self) -> float:
        """Largest resolution of the oracles, over ‖∇F‖."""
        return max(p.resolution for p in self.points)

    def __str__(self) -> str:
        """Return the page."""
        parts = [f"{self.verdict.name}: {self.name}: {self._sentence()}", self._table()]
        if self.observations:
            parts.append("\n".join(["seen:", *(f"  {each}" for each in self.observations)]))
        # A fault of the interface fails a gradient whose numbers are right: there is nothing to point at.
        if self.worst.allowed < self.worst.error < np.inf:
            parts.append(self._worst_directions())
        if self.diagnosis is not None:
            parts.append(str(self.diagnosis))
        if self.findings:
            parts.append("\n".join(["the problem itself:", *(f"  {each}" for each in self.findings)]))
        parts += [f"note: {note}" for note in self.notes]
        agreement = self.worst.right.agreement
        if agreement is not None:
            parts.append(f"oracles at θ {self.points.index(self.worst)}\n{agreement}")
        return "\n\n".join(parts)

    def _sentence(self) -> str:
        worst = self.worst
        if worst.reason and worst.verdict is self.verdict:
            return worst.reason
        deciding = [p for p in self.points if p.verdict is self.verdict]
        return max(deciding, key=lambda p: np.nan_to_num(p.relative_error)).reason if deciding else worst.reason

    def _table(self) -> str:
        lines = [f"{'θ':<3}{'verdict':<14}{'error':>9}{'allowed':>10}{'resolution':>12}{'cosine':>12}{'norm':>10}"]
        for i, p in enumerate(self.points):
            allowed = _over(p.allowed, p.right.size)
            lines.append(
                f"{i:<3}{p.verdict.name:<14}{p.relative_error:>9.1e}{allowed:>10.1e}{p.resolution:>12.1e}"
                f"{p.cosine:>12.6f}{p.norm_ratio:>10.4g}"
            )
        return "\n".join([*lines, "error, allowed and resolution over ‖∇F‖; norm: ‖gradient‖/‖∇F‖"])

    def _worst_directions(self) -> str:
        point = self.worst
        lines = [f"where it is off at θ {self.points.index(point)}, over ‖∇F‖"]
        for title, off in (("entry", point.coordinates), ("eigenvector of H + λI", point.directions)):
            largest = np.argsort(-np.abs(off))[:_SHOWN]
            cells = ", ".join(f"{int(i)}: {off[i]:+.1e}" for i in largest)
            lines.append(f"  {title} (of {off.size}): {cells}")
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return the page as one HTML file without scripts or references to other files."""
        from implicit_grad.verify._html import page

        return page(self)


def _nonzero(x: float) -> float:
    return x if x > 0 else 5e-324


def _over(a: float, b: float) -> float:
    if a == 0:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.float64(a) / np.float64(_nonzero(b)))


def _unit(v: Array) -> Array:
    with np.errstate(all="ignore"):
        v = v / np.max(np.abs(v))
        return v / np.linalg.norm(v)
