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
    CURVATURE = "the size of λ and of H, as the first scene has them"
    STEP = "1/M̄, the usual step size of the first scene"

    def of(self, scene: Scene) -> float:
        """Return the unit of a scene."""
        if self is Unit.CURVATURE:
            return float(np.mean(scene.weights) + np.linalg.norm(scene.H) / np.sqrt(scene.size))
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
    """

    symbol: str
    unit: Unit
    lowest: float
    highest: float
    example: float


Rows = Callable[[Scene, float], Any]
"""`(scene, number) → (d,) or (len(counts), d)`."""


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
        Scene and number to the vector, or to one for each of `counts`.
    number : Number or None
        A free real number in the formula.
    counts : tuple of int
        Values of a free count in the formula, one row each.
    symbol : str
        Of that count.
    scaled : bool
        Whether any constant times the vector is meant.
    part_of : str
        Name of a formula that contains this one for some value of its free number.
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
    part_of: str = ""
    most: int = 1000

    @property
    def freedom(self) -> int:
        """How many numbers are free."""
        return (self.number is not None) + bool(self.counts) + self.scaled

    def table(self, scene: Scene, number: float = float("nan")) -> Array:
        """Return the vectors of all counts: `(max(1, len(counts)), d)`."""
        with np.errstate(all="ignore"):
            return np.atleast_2d(self.rows(scene, number))

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
        rows = self.table(scene, number)
        if not self.counts:
            return factor * rows[0]
        if count is None:
            count = self.counts[min(2, len(self.counts) - 1, len(rows) - 1)]
        if count not in self.counts[: len(rows)]:
            raise ArgumentError(f"count: {self.symbol} = {count} is none of {self.counts[: len(rows)]}")
        return factor * rows[self.counts.index(count)]
