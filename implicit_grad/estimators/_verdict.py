"""The verdict on a difference quotient whose difference is lost in rounding or in solver noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from implicit_grad.backend import to_numpy
from implicit_grad.results import Status, status_codes, statuses


def refused(status: Any, mask: Any) -> Any:
    """Return the statuses with every success under `mask` turned into `STAGNATED`."""
    codes = status_codes(status)
    ok = np.vectorize(lambda s: s.ok, otypes=[bool])(statuses(codes))
    return statuses(np.where(ok & to_numpy(mask), Status.STAGNATED.code, codes))
