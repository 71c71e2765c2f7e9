"""Anyone's meta-gradient, seen the way the laws look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from implicit_grad.status import Status
from implicit_grad.testing.comparisons import NotApplicable, Violation
from implicit_grad.testing.matrices import Array
from implicit_grad.testing.problems import Case
from implicit_grad.testing.promises import Budget, Promise


@dataclass(frozen=True, eq=False)
class MetaSubject:
    """A meta-gradient with what it promises.

    Attributes
    ----------
    function : callable
        `(problem, theta) → g`, an array or an `Estimate`.
    promise : Promise
    """

    function: Callable[[Any, Array], Any]
    promise: Promise

    def __call__(self, problem: Any, theta: Array) -> Array:
        """Return g, after a look at its shape and dtype; NaN where an estimate says that it has none.

        Raises
        ------
        Violation
            For another shape than θ's, or what are no real numbers.
        """
        result = self.function(problem, theta)
        g = np.asarray(getattr(result, "gradient", result))
        if g.shape != theta.shape:
            raise Violation(f"g has shape {g.shape}, and θ has shape {theta.shape}")
        if g.dtype.kind != "f":
            raise Violation(f"g has dtype {g.dtype}, and θ has dtype {theta.dtype}")
        status = getattr(result, "status", None)
        return g if not isinstance(status, Status) or status.ok else np.full_like(g, np.nan)

    def exact(self, problem: Any, theta: Array) -> Array:
        """Return g for a law about ∇F itself.

        Raises
        ------
        NotApplicable
            For a budget, which promises nothing about ∇F.
        """
        if isinstance(self.promise, Budget):
            raise NotApplicable("a budget promises nothing about ∇F")
        return self(problem, theta)

    def tolerance(self, case: Case) -> float:
        """`Case.tol_exact()`, and the share of ‖∇L_test‖ that the promise leaves; 1e-7 of it for a budget."""
        share = 1e-7 if isinstance(self.promise, Budget) else getattr(self.promise, "rtol", 0.0)
        return case.tol_exact() + share * float(np.linalg.norm(case.b))
