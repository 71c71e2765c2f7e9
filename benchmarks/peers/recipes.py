"""What a recipe is: a library's meta-gradient as its users write it, with what they may leave loose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.cases import Setup


@dataclass(frozen=True)
class Knob:
    """A setting with the value that the library or its examples have, and with a strict one."""

    name: str
    loose: str
    strict: str


@dataclass(frozen=True)
class Recipe:
    """A meta-gradient.

    Attributes
    ----------
    library : str
    name : str
    build : callable
        Setup → (θ tree → gradient tree), in the library's arrays.
    knobs : tuple of Knob
    families : tuple of str
        Problems it is written for.
    remark : str
        What the reader should know about the recipe itself.
    """

    library: str
    name: str
    build: Callable[[Setup], Callable[[Any], Any]]
    knobs: tuple[Knob, ...] = ()
    families: tuple[str, ...] = ("ridge", "softmax", "MLP")
    remark: str = ""

    @property
    def label(self) -> str:
        """Library and name."""
        return f"{self.library}: {self.name}"

    @property
    def strict(self) -> frozenset[str]:
        """Names of all knobs."""
        return frozenset(knob.name for knob in self.knobs)
