"""Contenders side by side: equal results first, then turns that alternate, then medians of paired ratios."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, LIBRARY, Contender
from benchmarks.workers import LONG, ContenderError, Reading, Worker

TOLERANCE = 1e-9
"""Largest relative disagreement of a contender's result with the library's, per problem."""

SETTLE = 0.04
"""Seconds between two turns: BLAS threads spin a while after a product, and would spin into the next turn."""

_FEWEST = 3

Say = Callable[[str], None]


class Disagreement(AssertionError):
    """A contender computes something else: there is nothing to compare."""


@dataclass(frozen=True)
class Effort:
    """How long to time.

    Attributes
    ----------
    screening : int
        Rounds in which every form under every setting takes a turn; the fastest of each contender goes on.
    rounds : int
        Rounds of the comparison itself.
    block : float
        Seconds of one turn.
    limit : float
        Seconds after which no further round of a comparison begins, once there are three.
    """

    screening: int = 3
    rounds: int = 21
    block: float = 0.06
    limit: float = 10.0


@dataclass(frozen=True)
class Ratio:
    """Median, least and greatest of the ratios of paired turns."""

    median: float
    low: float
    high: float


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Return the ratio ours/theirs over the rounds.

    Raises
    ------
    ValueError
        If the turns are not paired, or there are none.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"ratios need paired turns, got {len(ours)} and {len(theirs)}")
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


@dataclass(frozen=True)
class Timed:
    """One form under one setting: median seconds per call in the screening, and seconds of the first call."""

    setting: str
    form: str
    seconds: float
    first_call: float


@dataclass(frozen=True)
class Row:
    """One contender at one quantity of one case.

    Attributes
    ----------
    job, case, quantity, contender : str
    note : str
        Why there is no number, else empty.
    setting, form : str
        What was fastest.
    seconds : float
        Median per call.
    cores : float
        Cores kept busy, median.
    first_call : float
        Seconds of the first call, which compiles.
    disagreement : float
        Largest relative distance from the library's result, over problems.
    ratio : Ratio or None
        Library over contender.
    forms : tuple of Timed
        Every form under every setting, as the screening found them.
    """

    job: str
    case: str
    quantity: str
    contender: str
    note: str = ""
    setting: str = ""
    form: str = ""
    seconds: float = float("nan")
    cores: float = float("nan")
    first_call: float = float("nan")
    disagreement: float = 0.0
    ratio: Ratio | None = None
    forms: tuple[Timed, ...] = ()


@dataclass(eq=False)
class _Lane:
    """One form under one setting."""

    worker: Worker
    form: str
    first_call: float = float("nan")
    disagreement: float = 0.0
    calls: int = 1

    @property
    def contender(self) -> Contender:
        return self.worker.contender

    @property
    def name(self) -> str:
        return f"{self.worker.setting.name}: {self.form}"

    def turn(self, quantity: str) -> Reading:
        time.sleep(SETTLE)
        reading: Reading = self.worker.ask("block", quantity, self.form, self.calls)
        return reading


class Contest:
    """All contenders, started once; each case goes to all of them."""

    def __init__(self, effort: Effort, say: Say, contenders: Sequence[Contender] = CONTENDERS) -> None:
        self.effort, self.say, self.contenders = effort, say, contenders
        self.absent: dict[str, str] = {}
        self.workers: list[Worker] = []

    def __enter__(self) -> Contest:
        for contender in self.contenders:
            if contender.missing:
                self.absent[contender.name] = contender.missing
                continue
            try:
                self.workers += [Worker(contender, setting) for setting in contender.settings]
            except ContenderError as error:
                self.absent[contender.name] = f"could not be imported: {error}"
        for name, why in self.absent.items():
            self.say(f"{name}: {why}")
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.close()

    def compare(self, job: str, case: Any, quantities: Sequence[str], offered_by: Sequence[str]) -> list[Row]:
        """Time a case.

        Parameters
        ----------
        job : str
            Function of the contenders' modules that prepares it.
        case : object
            With a label and `data()`.
        quantities : sequence of str
            Those of the contenders' forms that are compared.
        offered_by : sequence of str
            Names of the contenders that have this job: the missing ones among them are reported.

        Raises
        ------
        Disagreement
            If results differ by more than `TOLERANCE`, before any timing.
        """
        data, rows = case.data(), []
        offers: dict[Worker, dict[str, list[str]]] = {}
        notes = {name: why for name, why in self.absent.items() if name in offered_by}
        for worker in self.workers:
            try:
                offers[worker] = worker.ask("load", job, case, data)
            except ContenderError as error:
                notes[worker.contender.name] = f"failed: {error}"
        for quantity in quantities:
            self.say(f"{case.label}: {quantity}")
            lanes = [_Lane(worker, form) for worker, offer in offers.items() for form in offer.get(quantity, ())]
            self._agree(lanes, quantity)
            rows += self._race(lanes, Row(job, case.label, quantity, ""))
            rows += [Row(job, case.label, quantity, name, note) for name, note in notes.items()]
        for worker in offers:
            worker.ask("load", "nothing", None, None)  # give its arrays back
        return rows

    def cold(self, job: str, case: Any, warm: Sequence[Row], rounds: int) -> list[Row]:
        """Time first calls in fresh processes: compilation included, imports not.

        Parameters
        ----------
        job, case
            As for `compare`.
        warm : sequence of Row
            Its rows of one quantity; of every contender the form with the shortest first call is taken.
        rounds : int
            Fresh processes of each.
        """
        data, seconds = case.data(), {row.contender: list[float]() for row in warm if row.forms}
        picks = {row.contender: min(row.forms, key=lambda timed: timed.first_call) for row in warm if row.forms}
        by_name = {contender.name: contender for contender in self.contenders}
        for _ in range(rounds):
            for name, pick in picks.items():
                self.say(f"{case.label}: first call of {name}")
                setting = next(each for each in by_name[name].settings if each.name == pick.setting)
                fresh = Worker(by_name[name], setting)
                fresh.ask("load", job, case, data)
                time.sleep(SETTLE)
                seconds[name].append(fresh.ask("first", warm[0].quantity, pick.form))
                fresh.close()
        ours = seconds.get(LIBRARY.name)
        return [
            Row(
                job,
                case.label,
                f"{row.quantity}, first call",
                row.contender,
                row.note,
                *((picks[row.contender].setting, picks[row.contender].form) if row.forms else ("", "")),
                seconds=statistics.median(seconds[row.contender]) if row.forms else float("nan"),
                ratio=ratio(ours, seconds[row.contender]) if ours and row.forms else None,
            )
            for row in warm
        ]

    def _agree(self, lanes: list[_Lane], quantity: str) -> None:
        """Call every lane once, and compare its result with the library's."""
        reference = None
        for lane in sorted(lanes, key=lambda lane: lane.contender is not LIBRARY):
            lane.first_call = lane.worker.ask("first", quantity, lane.form)
            result = lane.worker.ask("result", quantity, lane.form)
            reference = result if reference is None else reference
            lane.disagreement = disagreement(result, reference)
            if not lane.disagreement <= TOLERANCE:
                raise Disagreement(
                    f"{quantity}: {lane.contender.name} ({lane.name}) differs from {LIBRARY.name} by "
                    f"{lane.disagreement:.3g} relative, more than {TOLERANCE:g}"
                )

    def _race(self, lanes: list[_Lane], blank: Row) -> list[Row]:
        screened: dict[_Lane, list[Reading]] = {}
        for lane in lanes:
            lane.calls, reading = lane.worker.ask("calls_for", blank.quantity, lane.form, self.effort.block)
            screened[lane] = [reading]
        quick = [lane for lane in lanes if screened[lane][0].seconds < LONG]
        screened |= self._rounds(quick, blank.quantity, self.effort.screening)
        finalists: dict[str, _Lane] = {}
        for lane in sorted(lanes, key=lambda lane: _median(screened[lane])):
            finalists.setdefault(lane.contender.name, lane)
        timed = self._rounds(list(finalists.values()), blank.quantity, self.effort.rounds)
        ours = timed[finalists[LIBRARY.name]] if LIBRARY.name in finalists else None
        return [
            replace(
                blank,
                contender=name,
                setting=lane.worker.setting.name,
                form=lane.form,
                seconds=_median(timed[lane]),
                cores=statistics.median(reading.cores for reading in timed[lane]),
                first_call=lane.first_call,
                disagreement=lane.disagreement,
                ratio=None if ours is None else ratio(*([r.seconds for r in each] for each in (ours, timed[lane]))),
                forms=tuple(
                    Timed(other.worker.setting.name, other.form, _median(screened[other]), other.first_call)
                    for other in lanes
                    if other.contender.name == name
                ),
            )
            for name, lane in finalists.items()
        ]

    def _rounds(self, lanes: list[_Lane], quantity: str, rounds: int) -> dict[_Lane, list[Reading]]:
        """Turns that alternate: A B C, A B C, …"""
        readings: dict[_Lane, list[Reading]] = {lane: [] for lane in lanes}
        began = time.perf_counter()
        for done in range(rounds):
            if done >= min(rounds, _FEWEST) and time.perf_counter() - began > self.effort.limit:
                break
            for lane in lanes:
                readings[lane].append(lane.turn(quantity))
        return readings

    def alone(self, job: str, case: Any, quantity: str) -> float:
        """Median seconds of the library by itself, in its first form and under its first setting."""
        worker = next(each for each in self.workers if each.contender is LIBRARY)
        form = worker.ask("load", job, case, case.data())[quantity][0]
        lane = _Lane(worker, form, calls=worker.ask("calls_for", quantity, form, self.effort.block)[0])
        return _median(self._rounds([lane], quantity, self.effort.rounds)[lane])

    def function(self, contender: Contender, name: str, *arguments: Any) -> Any:
        """Call a function of a contender's module under its first setting.

        Raises
        ------
        ContenderError
            If the contender is absent, or fails.
        """
        for worker in self.workers:
            if worker.contender is contender:
                return worker.ask("function", name, *arguments)
        raise ContenderError(self.absent.get(contender.name, "does not take part"))


def _median(readings: Sequence[Reading]) -> float:
    return statistics.median(reading.seconds for reading in readings)


def disagreement(result: Any, reference: Any) -> float:
    """Largest relative distance over the problems; NaN where shapes or names differ, or anything is not finite."""
    if isinstance(reference, dict):
        if not isinstance(result, dict) or result.keys() != reference.keys():
            return float("nan")
        return max((disagreement(result[name], reference[name]) for name in reference), key=_nan_first)
    result, reference = np.asarray(result), np.asarray(reference)
    if result.shape != reference.shape or result.dtype != reference.dtype:
        return float("nan")
    distance = np.linalg.norm(result - reference, axis=-1)
    length = np.linalg.norm(reference, axis=-1)
    return float(np.max(distance / np.where(length > 0, length, 1.0)))


def _nan_first(value: float) -> float:
    return float("inf") if np.isnan(value) else value
