"""Values of a result that are computed, or fetched from a device, when somebody looks at them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


class Deferred:
    """A value that is known how to find: found once, by whoever asks first."""

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find: Callable[[], Any] | None = find
        self._found: Any = None

    @property
    def value(self) -> Any:
        """The value itself."""
        if self._find is not None:
            self._found = self._find()
            self._find = None  # and with it all that finding took
        return self._found

    def __reduce__(self) -> Any:
        # What is sent elsewhere is sent as found: the way there may lead over this machine's device.
        return Found, (self.value,)


class Found(Deferred):
    """A value that was found before it came here."""

    def __init__(self, value: Any) -> None:
        super().__init__(lambda: value)


class Deferrable:
    """A field of a dataclass that may be given a `Deferred`, which readers do not see.

    Parameters
    ----------
    default : object, optional
        Default of the field; without one it is required.
    """

    def __init__(self, *default: Any) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:  # how a dataclass asks for the default
            if self._default:
                return self._default[0]
            raise AttributeError(self._name)
        held = instance.__dict__[self._name]
        return held.value if isinstance(held, Deferred) else held

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


def held(instance: Any, name: str) -> Any:
    """Return what a field holds, without looking into it."""
    return instance.__dict__[name]


def replaced(instance: ResultT, **changes: Any) -> ResultT:
    """`dataclasses.replace`, which does not look into what is deferred."""
    as_it_is = {f.name: held(instance, f.name) for f in dataclasses.fields(instance)}  # type: ignore[arg-type]
    return dataclasses.replace(instance, **as_it_is | changes)  # type: ignore[type-var]
