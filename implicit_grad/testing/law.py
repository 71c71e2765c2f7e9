"""Laws: what a sound subject obeys, how it is tried, and how a violation reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from implicit_grad import border
from implicit_grad.testing.comparisons import NotApplicable, Violation


@dataclass(frozen=True, eq=False)
class Law:
    """One law, and the examples it is tried on.

    Attributes
    ----------
    number : str
        Its number in the documentation, or a short word where it has none.
    name : str
        What it is called.
    equation : str
        What must hold.
    tolerance : str
        How far off it may be, as factor × u × condition number.
    check : callable
        `(subject, spec)`: raises `Violation`, or `NotApplicable` where the law says nothing.
    specs : SearchStrategy
        What `spec` is drawn from. A spec may have a `describe()` that a failure shows.
    edges : tuple
        Specs that are always tried, too.
    """

    number: str
    name: str
    equation: str
    tolerance: str
    check: Callable[[Any, Any], None]
    specs: st.SearchStrategy[Any]
    edges: tuple[Any, ...] = ()

    @property
    def title(self) -> str:
        """Number and name, said once where they are the same."""
        return self.name if self.name == self.number else f"{self.number} {self.name}"

    def __repr__(self) -> str:
        return f"<law {self.title}: {self.equation}>"


class Result(Enum):
    """What came of a law; the value is the help text."""

    HOLDS = "every example obeyed it"
    VIOLATED = "an example did not"
    SILENT = "it says nothing about this subject"


@dataclass(frozen=True, eq=False)
class Finding:
    """What came of one law tried on one subject.

    Attributes
    ----------
    law : Law
    result : Result
    message : str
        Of a violation: what was measured and allowed, the smallest example found, its matrix and spectrum. Of a law
        that is silent: why.
    examples : int
        How many were tried, the shrinking included.
    """

    law: Law
    result: Result
    message: str
    examples: int

    def __str__(self) -> str:
        if self.result is not Result.VIOLATED:
            return f"law {self.law.title}: {self.result.name.lower()}{': ' * bool(self.message)}{self.message}"
        return f"law {self.law.title}\n    {self.law.equation}\n    tolerance: {self.law.tolerance}\n{self.message}"


class LawViolation(AssertionError):
    """At least one law does not hold.

    Attributes
    ----------
    findings : tuple of Finding
        Of every law that was tried.
    """

    def __init__(self, subject: str, findings: tuple[Finding, ...]) -> None:
        violated = [finding for finding in findings if finding.result is Result.VIOLATED]
        self.findings = findings
        head = f"{subject} violates {len(violated)} of {len(findings)} laws"
        super().__init__("\n\n".join([head, *map(str, violated)]))

    def __reduce__(self) -> tuple[Any, ...]:
        # Laws hold strategies, which do not travel between processes: the message does.
        return AssertionError, (str(self),)


def examine(
    laws: Iterable[Law], subject: Any, *, examples: int = 50, seed: int | None = None, shrink: bool = True
) -> tuple[Finding, ...]:
    """Try every law on a subject, and raise nothing.

    Parameters
    ----------
    laws : iterable of Law
    subject : object
        What their checks take.
    examples : int
        Drawn for each law, besides its edges.
    seed : int, optional
        Of the draws. Without one they are the same in every run.
    shrink : bool
        Look for a smaller example where a law is violated.
    """
    border.count("examples", examples, minimum=1)
    return tuple(_try(law, subject, examples, seed, shrink) for law in laws)


def judge(subject: str, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Return the findings, unless one is a violation.

    Raises
    ------
    LawViolation
        With every violated law in its message.
    """
    if any(finding.result is Result.VIOLATED for finding in findings):
        raise LawViolation(subject, findings)
    return findings


@dataclass(eq=False)
class _Trial:
    """A law under way: how often it was tried, how often it was silent, and the last example that broke it."""

    law: Law
    subject: Any
    tried: int = 0
    silent: str = ""
    silences: int = 0
    broken: tuple[Any, BaseException] | None = None

    def __call__(self, spec: Any) -> None:
        self.tried += 1
        try:
            # Warnings and floating point flags are the subject's affair: laws are about values.
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.law.check(self.subject, spec)
        except NotApplicable as reason:
            self.silences, self.silent = self.silences + 1, str(reason)
        except Exception as error:
            self.broken = spec, error
            raise


def _try(law: Law, subject: Any, examples: int, seed: int | None, shrink: bool) -> Finding:
    trial = _Trial(law, subject)
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    @hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=phases,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )
    @hypothesis.given(spec=law.specs)
    def attempt(spec: Any) -> None:
        trial(spec)

    try:
        if seed is not None:
            attempt = hypothesis.seed(seed)(attempt)
        attempt()
        for edge in law.edges:
            trial(edge)
    except Exception as error:
        if trial.broken is None:
            raise
        return Finding(law, Result.VIOLATED, _message(*trial.broken, error), trial.tried)
    if trial.silences == trial.tried:
        return Finding(law, Result.SILENT, trial.silent, trial.tried)
    return Finding(law, Result.HOLDS, "", trial.tried)


def _message(spec: Any, broken: BaseException, raised: BaseException) -> str:
    """Say what was seen, on which example, with which matrix."""
    crashed = "" if isinstance(broken, Violation) else f"raised {type(broken).__name__}: "
    lines = [f"{crashed}{broken}", f"on {spec!r}"]
    if isinstance(raised, hypothesis.errors.Flaky):
        lines.append("and not again on the same input: the subject is not deterministic")
    describe = getattr(spec, "describe", None)
    if describe is not None:
        try:
            lines.append(describe())
        except (ArithmeticError, ValueError) as error:  # what broke the subject may break the description
            lines.append(f"(no description: {error})")
    return "\n".join("    " + line for text in lines for line in text.split("\n"))
