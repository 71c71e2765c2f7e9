"""SciPy's minimum residual method, with a status that can be trusted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array
from implicit_grad.linear._scipy import Lanczos, Stop, Trail, Watch, solve_each
from implicit_grad.linear._system import verdict
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status, marked


@dataclass(frozen=True)
class MINRES:
    r"""`scipy.sparse.linalg.minres`: the smallest residual in the Krylov space, definite or not.

    .. math:: x_k = \arg\min_{x \in K_k(A, b)} \lVert b - A x\rVert, \qquad
              K_k(A, b) = \operatorname{span}\{b, Ab, \dots, A^{k-1}b\}

    The residuals never increase, and are never above CG's. SciPy's stopping rule compares ‖r‖ with ‖A‖‖x‖, not
    with ‖b‖, takes least squares solutions of inconsistent systems for success, and measures A against absolute
    numbers. None of it is used: A is scaled by a power of two, the residual is followed by the rotations that
    triangularise the Lanczos matrix T_k (which the products reveal for free), and the final one is recomputed.

    Parameters
    ----------
    max_steps : int
        Largest number of steps; with `rtol=0` the number of steps.
    rtol : float
        Stop at ‖b − A x‖ ≤ rtol ‖b‖; where the recomputed residual disagrees, the iteration restarts from it.
    record : bool
        Keep every iterate in `Solution.path`.

    Notes
    -----
    Each step costs one product, and the final residual another. A Python loop over problems, NumPy only.
    `Solution.smallest_eigenvalue` is the smallest eigenvalue of T_k, a Ritz value and so an upper bound of
    λ_min(A). Where it is not positive by more than rounding the status is `INDEFINITE`; the value is the formal
    solution all the same. Negative curvature outside the Krylov space of b is not seen.

    References
    ----------
    Paige & Saunders, Solution of sparse indefinite systems of linear equations, SIAM J. Numer. Anal. 12, 1975.

    Examples
    --------
    >>> import numpy as np
    >>> solution = MINRES(2)(np.diag([1.0, -2.0]), np.array([1.0, 1.0]))
    >>> solution.value.round(12), solution.status, round(float(solution.smallest_eigenvalue), 12)
    (array([ 1. , -0.5]), Status.INDEFINITE, -2.0)
    """

    max_steps: int
    rtol: float = 0.0
    record: bool = field(default=False, kw_only=True)
    card: ClassVar[Card] = Card(
        "k + 1 HVPs",
        "–",
        "((κ−1)/(κ+1))^{k/2} at worst",
        "slow without a clustered spectrum",
        saddle="refused once a Ritz value is ≤ 0; unseen where k steps from b do not reach it",
    )

    def __post_init__(self) -> None:
        border.count("max_steps", self.max_steps)
        border.tolerance("rtol", self.rtol)
        border.flag("record", self.record)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return f"MINRES-{self.max_steps}" if self.rtol == 0 else f"MINRES({self.rtol:g})"

    def __call__(self, A: Any, b: Array) -> Solution[MINRES]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that do not live on the host.
        """
        system, trails, known = solve_each(self, A, b, self._run, space=Lanczos, each_step=self.record)
        if not self.record:
            return verdict(system, **known)
        points = np.zeros((self.max_steps + 1, *system.b.shape), system.b.dtype)
        onset = np.full(system.shape, np.inf)
        for index, trail in trails:
            iterates = [np.zeros_like(trail.x), *trail.iterates]
            column: tuple[Any, ...] = (slice(None), *index)
            points[column] = iterates + [iterates[-1]] * (self.max_steps + 1 - len(iterates))
            onset[index] = trail.negative_from
        costs = tuple(system.selection + _cost_of([t for _, t in trails], k) for k in range(self.max_steps + 1))
        known["cost"] += Cost(hvps=self.max_steps + 1)
        solution = verdict(system, iterates=points, costs=costs, **known)
        path = solution.path
        assert path is not None
        assert path.codes is not None
        # MINRES goes on past the first sign of a saddle, so the runs that see it are marked here.
        counts = np.arange(self.max_steps + 1).reshape(-1, *[1] * len(system.shape))
        codes = marked(path.codes, counts >= onset, Status.INDEFINITE)
        return replace(solution, path=replace(path, codes=codes))

    def _run(self, watch: Watch, b: Array, limit: int, rtol: float) -> tuple[Array, int]:
        from scipy.sparse.linalg import LinearOperator, minres

        def step(x: Array) -> None:
            watch.keep(x)
            if watch.space.residual <= rtol:
                raise Stop

        A = LinearOperator((b.size, b.size), matvec=watch.product, dtype=b.dtype)
        with contextlib.suppress(Stop):
            minres(A, b, rtol=0.0, maxiter=limit, callback=step)
        taken = len(watch.iterates)
        watch.basis = taken
        return (watch.iterates[-1] if taken else np.zeros_like(b)), taken


def _cost_of(trails: list[Trail], k: int) -> Cost:
    """What a run of k steps costs the slowest problem."""
    products = [min(k, t.products) + sum(c < k for c in t.checks) for t in trails]
    return Cost(hvps=max(products, default=0) + 1)
