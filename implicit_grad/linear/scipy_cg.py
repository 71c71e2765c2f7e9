"""SciPy's conjugate gradient behind the same interface, one problem at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import prepare, verdict
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status


@dataclass(frozen=True)
class ScipyCG:
    """`scipy.sparse.linalg.cg` through a `LinearOperator`, with a status that can be trusted.

    SciPy's own `info` is not used: it is 0 for an indefinite matrix that happens to converge, for an
    inconsistent singular one and for `maxiter=0`, and positive for a solve that met its tolerance in the last
    step. Residuals are recomputed, pᵀAp ≤ 0 is noticed in the operator, b is scaled by a power of two (SciPy
    returns b itself for ‖b‖ ~ 1e-200), and a spent budget is not a failure.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        Stop at ‖r‖ ≤ rtol ‖b‖.
    record : bool
        Keep every iterate in `Solution.path`.

    Notes
    -----
    A Python loop over problems, NumPy only: the independent reference for `CG`, which equals it iterate by
    iterate and takes the whole batch at once.
    """

    max_steps: int
    rtol: float = 0.0
    record: bool = field(default=False, kw_only=True)

    card: ClassVar[Card] = Card(
        "k + 1 HVPs",
        "4 vectors",
        "as CG",
        "as CG; one problem at a time",
        saddle="as CG",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("record", self.record)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"SciPy CG-{self.max_steps}" if self.rtol == 0 else f"SciPy CG({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[ScipyCG]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        system = prepare(A, b)
        if namespace(system.b) is not np:
            raise ArgumentTypeError("b: SciPy's cg takes NumPy arrays only; use CG on other backends")
        x = np.zeros_like(system.b)
        steps = np.zeros(system.shape, dtype=np.int64)
        negative = np.zeros(system.shape, dtype=bool)
        smallest, largest = np.full(system.shape, np.inf), np.zeros(system.shape)
        points = np.zeros((self.max_steps + 1, *system.b.shape), system.b.dtype) if self.record else None
        products = 0
        for index, operator, rhs in system.problems():
            watch = _Watch(operator, x[index])
            watch.solve(rhs, self.max_steps, self.rtol)
            x[index], steps[index], negative[index] = watch.x, len(watch.iterates), watch.negative
            smallest[index], largest[index] = watch.smallest, watch.largest
            products = max(products, watch.products)
            if points is not None:
                iterates = [np.zeros_like(rhs), *watch.iterates]
                column: tuple[Any, ...] = (slice(None), *index)
                points[column] = iterates + [iterates[-1]] * (self.max_steps + 1 - len(iterates))
        recorded = range(0 if points is None else len(points))
        return verdict(
            system,
            x,
            solver=self,
            rtol=self.rtol,
            steps=steps,
            budget=self.max_steps,
            operator_norm=largest,
            failed={Status.INDEFINITE: negative},
            iterates=points,
            costs=tuple(system.selection + Cost(hvps=min(k, products) + 1) for k in recorded),
            cost=system.selection + Cost(hvps=products + 1 + len(recorded)),
            smallest_eigenvalue=smallest,
        )


class _Indefinite(Exception):  # a signal out of SciPy's loop, not an error
    pass


class _Watch:
    """Runs one SciPy solve and sees each direction p that it multiplies."""

    def __init__(self, operator: Operator, x: Array) -> None:
        self.operator, self.x = operator, x
        self.iterates: list[Array] = []
        self.negative, self.products = False, 0
        self.smallest, self.largest = np.inf, 0.0

    def _product(self, p: Array) -> Array:
        p = np.asarray(p).reshape(-1)
        Ap = self.operator(p)
        self.products += 1
        curvature, length = float(p @ Ap), float(p @ p)
        if length > 0 and np.isfinite(curvature):
            self.smallest = min(self.smallest, curvature / length)
            self.largest = max(self.largest, curvature / length)
            # The same threshold as in CG: below it the sign is rounding.
            if curvature <= float(np.finfo(p.dtype).eps) * self.largest * length:
                self.negative = True
                raise _Indefinite
        return Ap

    def solve(self, b: Array, max_steps: int, rtol: float) -> None:
        from scipy.sparse.linalg import LinearOperator, cg

        if max_steps == 0 or not b.any():
            return
        # SciPy divides 0/0 after exact convergence with rtol = 0, so it always gets a positive tolerance.
        rtol = max(rtol, float(np.finfo(b.dtype).eps) ** 2)
        A = LinearOperator((b.size, b.size), matvec=self._product, dtype=b.dtype)
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                # The callback's array is overwritten by the next step, so every iterate is copied.
                cg(
                    A,
                    b,
                    rtol=rtol,
                    atol=0.0,
                    maxiter=max_steps,
                    callback=lambda xk: self.iterates.append(xk.copy()),
                )
        except _Indefinite:
            pass
        if self.iterates:
            self.x = self.iterates[-1]
