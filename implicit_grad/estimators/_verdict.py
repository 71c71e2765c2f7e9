"""Successes that an estimator takes back: differences lost in noise, and saddles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from implicit_grad.backend import Array, namespace
from implicit_grad.status import Status, status_codes, statuses, succeeded


@dataclass(frozen=True, eq=False)
class Resolution:
    """What a difference quotient can tell, in the units of the gradient: `(...)` each.

    Attributes
    ----------
    truncation : array
        Change of the result between its step and twice its step: three times the leading error of a central rule.
    noise : array
        What residuals r of the solves and rounding may leave, with 1/λ for ‖A⁻¹‖.
    """

    truncation: Array
    noise: Array


def refused(status: Any, mask: Any) -> Any:
    """Return the statuses with every success under `mask` turned into `STAGNATED`."""
    return _turned(status, mask, Status.STAGNATED)


def indefinite(status: Any, saddle: Any) -> Any:
    """Return the statuses with every success at a saddle turned into `INDEFINITE`."""
    return _turned(status, saddle, Status.INDEFINITE)


def _turned(status: Any, mask: Any, into: Status) -> Any:
    codes = status_codes(status)
    xp = namespace(mask)
    # One status for a whole batch may have come from the host.
    codes = xp.asarray(codes)
    return statuses(xp.where(succeeded(codes) & mask, xp.full_like(codes, into.code), codes))
