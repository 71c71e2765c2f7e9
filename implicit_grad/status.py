"""How solves end: one `Status` a problem, kept as small integers where the arrays live until somebody looks."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np

from implicit_grad._deferred import Deferred, Found, held
from implicit_grad.backend import Array, namespace, to_numpy
from implicit_grad.errors import ArgumentTypeError


class Status(Enum):
    """How a solve ended; the value is the help text.

    `CONVERGED` and `BUDGET_SPENT` are successes: a solver asked for k steps that takes k steps has done its
    work, and what the residual is worth is for the reader of `residual_norm` to say.
    """

    CONVERGED = "the recomputed residual meets the requested tolerance"
    BUDGET_SPENT = "the requested number of steps was taken; no tolerance was asked for"
    MAX_STEPS = "the step limit came before the tolerance; raise max_steps or loosen rtol"
    INDEFINITE = "H + λI is not positive definite here: φ is no strict minimum; raise λ or solve further"
    STAGNATED = "no further progress is possible in this precision, and the tolerance is not met"
    DIVERGED = "the iterates grow without bound; lower the step size, or leave it to the solver (None)"
    NONFINITE = "NaN or infinity appeared; check the data, the loss and the scale of λ"
    # New members come last: tables store positions.
    ILL_CONDITIONED = "κ > 1/√eps: more than half of the digits may be wrong; raise λ, or use float64 for float32"

    @property
    def ok(self) -> bool:
        """Whether the value may be used as what was asked for."""
        return self in (Status.CONVERGED, Status.BUDGET_SPENT)

    @property
    def code(self) -> int:
        """Position in the enumeration, for storage in numeric tables."""
        return _CODES[self]

    def __repr__(self) -> str:
        return f"Status.{self.name}"


STATUSES: tuple[Status, ...] = tuple(Status)
_CODES = {status: code for code, status in enumerate(STATUSES)}
_BY_ID = {id(status): code for status, code in _CODES.items()}
_TABLE = np.empty(len(STATUSES), dtype=object)
_TABLE[:] = STATUSES


class Judged:
    """What has one status a problem, in a field that may be deferred."""

    @property
    def codes(self) -> Array:
        """`Status.code` of each problem `(...)`, where the values live: on a device nobody waits for these."""
        return status_codes(held(self, "status"))

    @property
    def ok(self) -> Any:
        """`(...)` boolean, on the host: whether each problem succeeded, in every stage there was."""
        return succeeded(to_numpy(self.codes))


class _Elsewhere(Deferred):
    """Statuses whose codes are not the host's: on a device, looking at them waits for it."""

    def __init__(self, codes: Array) -> None:
        super().__init__(lambda: _TABLE[to_numpy(codes)])
        self.codes = codes


def statuses(codes: Array) -> Any:
    """Turn an integer array of codes into `Status` members: one `Status`, or an object array of them.

    Codes that are not NumPy's stay where they are, in a `Deferred`.
    """
    return _TABLE[codes] if namespace(codes) is np else _Elsewhere(codes)


def status_codes(status: Any) -> Array:
    """Invert `statuses`; a result that has `codes` may stand for its statuses."""
    if isinstance(status, Status):
        return np.asarray(status.code)
    if hasattr(status, "codes"):
        return status.codes
    members = np.asarray(status.value if isinstance(status, Found) else status)
    # Members are singletons, and their identity is at hand: their hash is a Python function.
    try:
        return np.array([_BY_ID[id(each)] for each in members.flat], dtype=int).reshape(members.shape)
    except KeyError:
        foreign = next(each for each in members.flat if not isinstance(each, Status))
        raise ArgumentTypeError(f"status: expected members of Status, got {foreign!r}") from None


def all_codes(like: Array, status: Status) -> Array:
    """Return an array of codes shaped as `like`, all of one status."""
    return namespace(like).full(like.shape, status.code, dtype=namespace(like).int8)


def marked(codes: Array, mask: Array, status: Status) -> Array:
    """Return `codes` with those under `mask` turned into `status`; on the host they are changed in place."""
    if isinstance(codes, np.ndarray):
        codes[mask] = status.code
        return codes
    xp = namespace(codes)
    return xp.where(mask, xp.full_like(codes, status.code), codes)


def succeeded(codes: Array) -> Array:
    """Whether each code is that of a success."""
    return (codes == Status.CONVERGED.code) | (codes == Status.BUDGET_SPENT.code)


def worst_status(*each: Any) -> Any:
    """Combine per-problem statuses, or results, of successive stages: the first that is no success, else the last."""
    codes = [status_codes(status) for status in each]
    # One status for a whole batch may have come from the host.
    xp = next((own for own in map(namespace, codes) if own is not np), np)
    codes = [own if namespace(own) is xp else xp.asarray(own) for own in codes]
    result = codes[-1]
    for own in reversed(codes[:-1]):
        result = xp.where(succeeded(own), result, own)
    return statuses(result)
