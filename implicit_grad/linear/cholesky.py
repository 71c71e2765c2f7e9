"""Exact inversion: the dense matrix, its Cholesky factor, and refinement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np

from implicit_grad import border
from implicit_grad._deferred import Deferred
from implicit_grad.backend import Array, device_of, epsilon, namespace, norm, to_numpy
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._dense import factors_of
from implicit_grad.linear._system import System, prepare, verdict
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Card, Cost, Solution
from implicit_grad.status import Status

_INVERSE_STEPS = 3


@dataclass(frozen=True)
class Cholesky:
    r"""Solve A x = b by the Cholesky factor of the whole dense matrix.

    .. math:: A = L L^\top, \quad L z = b, \quad L^\top x = z, \quad
              x \leftarrow x + A^{-1}(b - A x) \ \text{(refinement)}

    Every entry of A is used, off-diagonal blocks included. A matrix that is not positive definite is refused:
    its value is NaN, its status `INDEFINITE`, and `Solution.unwrap` names the smallest eigenvalue. Convergence
    of any solver proves nothing at a saddle. Where κ(A) > 1/√eps the value is there, its status is
    `ILL_CONDITIONED`, and `Solution.condition` says how much so: no residual shows the digits that are lost.

    Parameters
    ----------
    refinements : int
        Steps of iterative refinement, with residuals from the operator itself (not from the dense copy).

    Notes
    -----
    Needs d Hessian-vector products, d² numbers a problem and d³/3 operations. κ is LAPACK's estimate in the 1-norm,
    O(d²), from the factor. On a device the whole batch is factored at once; a factor is known by its product, so that
    nobody waits; the smallest eigenvalue is found for whoever asks, and κ by a few steps of inverse iteration.

    Examples
    --------
    >>> import numpy as np
    >>> Cholesky()(np.array([[2.0, 1.0], [1.0, 2.0]]), np.array([3.0, 3.0])).value
    array([1., 1.])
    >>> Cholesky()(np.diag([1.0, -2.0]), np.array([1.0, 1.0])).status
    Status.INDEFINITE
    """

    refinements: int = 1

    card: ClassVar[Card] = Card(
        "d + 2 HVPs (2 and an assembled H) + d³/3",
        "d²",
        "rounding, eps·κ",
        "κ > 1/√eps (said so); d in the thousands",
        saddle="refused: there is no factor",
    )

    def __post_init__(self) -> None:
        border.count("refinements", self.refinements)

    @property
    def label(self) -> str:
        """Short name for legends."""
        return "exact inversion"

    def __call__(self, A: Any, b: Array) -> Solution[Cholesky]:
        """Solve A x = b.

        Raises
        ------
        ArgumentTypeError
            For arrays that live neither on the host nor on a registered device.
        """
        system = prepare(A, b)
        if device_of(system.b) is not None:
            return self._on_device(system)
        if namespace(system.b) is not np:
            raise ArgumentTypeError("b: Cholesky factors NumPy arrays only; use CG on other backends")
        shape = system.shape
        x = np.full_like(system.b, np.nan)
        norms = np.ones(shape)
        smallest, condition = np.full(shape, np.nan), np.full(shape, np.nan)
        negative = np.zeros(shape, dtype=bool)
        for index, operator, rhs in system.problems():
            with np.errstate(over="ignore", invalid="ignore"):
                matrix = to_numpy(operator.dense())
            if not np.isfinite(matrix).all():
                continue
            norms[index] = np.abs(matrix).sum(axis=-1).max()
            factor = _factor(matrix)
            if factor is None:
                negative[index], smallest[index] = True, _smallest_eigenvalue(matrix)
            else:
                x[index] = self._solve(factor, operator, rhs)
                condition[index] = _condition(factor[0], norms[index])
        # Where no factor exists there is nothing to refine.
        refined = self.refinements if bool(np.isfinite(x).any()) else 0
        found = bool(np.isfinite(smallest).any())
        return verdict(
            system,
            x,
            solver=self,
            # A backward stable solve always attains 10·d·eps·(‖A‖‖x‖ + ‖b‖): the tightest tolerance there is.
            rtol=float(np.finfo(x.dtype).eps),
            steps=np.full(shape, 1),
            budget=None,
            operator_norm=norms,
            failed={Status.ILL_CONDITIONED: condition > epsilon(x) ** -0.5, Status.INDEFINITE: negative},
            cost=system.selection + system.A.dense_cost + Cost(hvps=refined + 1),
            smallest_eigenvalue=smallest if found else None,
            condition=condition,
        )

    def _on_device(self, system: System) -> Solution[Cholesky]:
        device, xp, shape = device_of(system.b), namespace(system.b), system.shape
        assert device is not None  # the caller asked
        with np.errstate(over="ignore", invalid="ignore"):
            matrices = system.A.dense()
        finite = xp.all(xp.isfinite(matrices), axis=(-2, -1))
        matrices = xp.where(finite[..., None, None], matrices, xp.eye(system.A.size, dtype=matrices.dtype))
        factors, positive = factors_of(matrices)
        factors = xp.broadcast_to(factors, (*shape, *factors.shape[-2:]))

        def solve(rhs: Array) -> Array:
            return device.solve_triangular(factors, device.solve_triangular(factors, rhs, False), True)

        x = solve(system.b)
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.refinements):
                x = x + solve(system.b - system.A(x))
        usable = finite & positive & xp.ones_like(system.finite)
        x = xp.where((usable & system.finite)[..., None], x, xp.full_like(x, float("nan")))
        norms = xp.max(xp.sum(xp.abs(matrices), axis=-1), axis=-1)
        condition = norms * _inverse_norm(solve, system.b)
        condition = xp.where(usable, condition, xp.full_like(condition, float("nan")))
        return verdict(
            system,
            x,
            solver=self,
            rtol=epsilon(x),
            steps=xp.ones(shape, dtype=xp.int64),
            budget=None,
            operator_norm=norms,
            failed={
                Status.ILL_CONDITIONED: condition > epsilon(x) ** -0.5,
                Status.INDEFINITE: ~positive & xp.ones_like(system.finite),
            },
            cost=system.A.dense_cost + Cost(hvps=self.refinements + 1),
            # Many times the price of a factor: only for those who want to know. They pay for the matrices again,
            # which would otherwise live as long as the solution.
            smallest_eigenvalue=Deferred(partial(_lowest, system, ~positive)),
            condition=condition,
        )

    def _solve(self, factor: Any, operator: Operator, b: Array) -> Array:
        # SciPy's linear algebra takes a quarter of a second to import: only once it is needed.
        from scipy.linalg import cho_solve

        x = cho_solve(factor, b, check_finite=False)
        for _ in range(self.refinements):
            x = x + cho_solve(factor, b - operator(x), check_finite=False)
        return x


def _factor(matrix: Array) -> Any:
    """Cholesky factor, or None where there is none."""
    from scipy.linalg import cho_factor

    try:
        # The transpose of a symmetric C-ordered array is itself in LAPACK's order: no copy but the factor's own.
        return cho_factor(matrix.T, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return None


def _condition(lower: Array, norm: float) -> float:
    """Estimate of κ₁ from the lower Cholesky factor and ‖A‖₁."""
    from scipy.linalg import get_lapack_funcs

    (pocon,) = get_lapack_funcs(("pocon",), (lower,))
    inverse, _ = pocon(lower, norm, uplo="L")
    return 1 / inverse if inverse > 0 else float("inf")


def _inverse_norm(solve: Callable[[Array], Array], like: Array) -> Array:
    """Return a lower bound of ‖A⁻¹‖ that is rarely far off: three steps of inverse iteration."""
    xp, d = namespace(like), int(like.shape[-1])
    # LAPACK's start, which is orthogonal to no vector that structure suggests.
    i = xp.arange(d, dtype=like.dtype)
    v = xp.zeros_like(like) + (1 - 2 * (i % 2)) * (1 + i / max(1, d - 1))
    growth = xp.ones_like(like[..., 0])
    with np.errstate(over="ignore", invalid="ignore"):
        for _ in range(_INVERSE_STEPS):
            v = v / norm(v)[..., None]
            v = solve(v)
            growth = norm(v)
    return growth


def _lowest(system: System, negative: Array) -> Array:
    """Smallest eigenvalue of the matrices without a factor, NaN for the others."""
    xp = namespace(negative)
    with np.errstate(over="ignore", invalid="ignore"):
        matrices = system.A.dense()
    chosen = xp.where(negative[..., None, None], matrices, xp.eye(system.A.size, dtype=matrices.dtype))
    lowest = xp.min(xp.linalg.eigvalsh(chosen), axis=-1)
    lowest = xp.where(negative, lowest, xp.full_like(lowest, float("nan")))
    return xp.broadcast_to(lowest, system.shape)


def _smallest_eigenvalue(matrix: Array) -> float:
    from scipy.linalg import eigvalsh

    return float(eigvalsh(matrix, subset_by_index=[0, 0], check_finite=False)[0])
