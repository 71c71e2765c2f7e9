"""What an entry of the catalogue of wrong formulas is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad.backend import Array
from implicit_grad.errors import ArgumentError
from implicit_grad.verify._scene import Scene


class Unit(Enum):
    """What a free number is measured in; the value is the help text."""

    ONE = "a pure number"
    LAMBDA = "λ, as the first scene has it"
    CURVATURE = "the size of λ and of H, as the first scene has them"
    STEP = "1/M̄, the usual step size of the first scene"

    def of(self, scene: Scene) -> float:
        """Return the unit of a scene."""
        if self is Unit.CURVATURE:
            return float(np.mean(scene.weights) + np.linalg.norm(scene.H) / np.sqrt(scene.size))
        if self is Unit.LAMBDA:
            return float(np.mean(scene.weights))
        return scene.step_size if self is Unit.STEP else 1.0


@dataclass(frozen=True)
class Number:
    """A positive number that the diagnosis fits.

    Attributes
    ----------
    symbol : str
    unit : Unit
    lowest, highest : float
        In that unit.
    example : float
        In that unit: what it is where nobody says.
    grid : int
        Values that a fit starts from.
    """

    symbol: str
    unit: Unit
    lowest: float
    highest: float
    example: float
    grid: int = 33


Rows = Callable[[Scene, Array], Any]
"""`(scene, numbers (J,)) → (J, d) or (J, len(counts), d)`; without a free number `(d,)` or `(len(counts), d)`."""


@dataclass(frozen=True)
class WrongFormula:
    """A wrong meta-gradient that people compute.

    Attributes
    ----------
    name : str
    formula : str
        What is computed, in the symbols of the README.
    remedy : str
        One line: what to do.
    rows : callable
        Scene and values of the free number to vectors, one for each value and for each of `counts`.
    number : Number or None
        A free real number in the formula.
    counts : tuple of int
        Values of a free count in the formula, one row each.
    symbol : str
        Of that count.
    scaled : bool
        Whether any constant times the vector is meant.
    part_of : tuple of str
        Names of formulas that contain this one for some value of their free numbers, or in the limit.
    pairs : callable or None
        Scene, numbers (J,) and counts (J,) to vectors (J, d), where that is cheaper than whole rows.
    grid_of : str
        Name of a formula that gives the same vectors at the first scene for the same multiples of the unit.
    most : int
        Parameters above which it is not tried: it would be too dear.
    """

    name: str
    formula: str
    remedy: str
    rows: Rows
    number: Number | None = None
    counts: tuple[int, ...] = ()
    symbol: str = "K"
    scaled: bool = False
    part_of: tuple[str, ...] = ()
    pairs: Callable[[Scene, Array, Array], Array] | None = None
    grid_of: str = ""
    most: int = 1000

    @property
    def freedom(self) -> int:
        """How many numbers are free."""
        return (self.number is not None) + bool(self.counts) + self.scaled

    def table(self, scene: Scene, numbers: Any = float("nan")) -> Array:
        """Return the vectors of J values of the free number and of all counts: `(J, max(1, counts), d)`.

        A method that ends early has fewer counts than the formula names.
        """
        x = np.atleast_1d(np.asarray(numbers, dtype=float))
        with np.errstate(all="ignore"):
            rows = np.asarray(self.rows(scene, x))
        if self.number is None:
            rows = rows[None]
        return rows if self.counts else rows[:, None, :]

    def at(self, scene: Scene, numbers: Array, places: Array) -> Array:
        """Return the vectors of pairs of a number and of a place in `counts`: `(J, d)`, NaN where there is none."""
        if self.pairs is not None:
            with np.errstate(all="ignore"):
                return self.pairs(scene, numbers, np.asarray(self.counts)[places])
        table = self.table(scene, numbers)
        beyond = places >= table.shape[1]
        found = table[np.arange(len(table)) if len(table) > 1 else 0, np.where(beyond, 0, places)]
        return np.where(beyond[:, None], np.nan, found)

    def __call__(
        self,
        problem: Any,
        theta: Array,
        *,
        number: float | None = None,
        count: int | None = None,
        factor: float = 1.0,
    ) -> Array:
        """Return the wrong vector at θ.

        Parameters
        ----------
        problem : BilevelProblem, or RegularizedProblem with a quadratic regulariser
            Without batch axes.
        theta : (d,) array
        number : float, optional
            The free number, in the problem's own units; the default is the formula's example.
        count : int, optional
            The free count; the default is the third value, or the last where there are fewer.
        factor : float
            For `scaled` formulas.

        Raises
        ------
        ArgumentError
            For a count that the formula does not have.
        """
        scene = Scene.of(problem, theta)
        if number is None:
            number = float("nan") if self.number is None else self.number.example * self.number.unit.of(scene)
        rows = self.table(scene, number)[0]
        if not self.counts:
            return factor * rows[0]
        if count is None:
            count = self.counts[min(2, len(self.counts) - 1, len(rows) - 1)]
        if count not in self.counts[: len(rows)]:
            raise ArgumentError(f"count: {self.symbol} = {count} is none of {self.counts[: len(rows)]}")
        return factor * rows[self.counts.index(count)]
