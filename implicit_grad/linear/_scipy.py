"""SciPy's Krylov routines, one problem at a time, with a witness in the matrix-vector product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from implicit_grad.backend import Array, epsilon, namespace, norm, power_of_two_scale
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import System, prepare, verdict
from implicit_grad.linear.lanczos import extreme_eigenvalues
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Cost, Solution
from implicit_grad.status import Status


class Stop(Exception):
    """A signal out of SciPy's loop, not an error: the routine has done enough."""


class Subspace(Protocol):
    """What the products with a basis say about A: Ritz values."""

    def see(self, v: Array, Av: Array) -> None:
        """Take in the next basis vector and its product."""
        ...

    def ends(self, count: int) -> tuple[float, float]:
        """Smallest and largest Ritz value on the first `count` vectors."""
        ...


@dataclass(eq=False)
class Watch:
    """One run of one routine: it multiplies for SciPy and remembers what the products say.

    The products are divided by a power of two near ‖A b‖/‖b‖, because some of the routines compare with absolute
    numbers: SciPy's minres takes a matrix of norm 1e-20 for zero. The routine's answer is that much too large.
    """

    operator: Operator
    space: Any = None
    each_step: bool = False
    scale: float = 0.0
    products: int = 0
    nonfinite: bool = False
    iterates: list[Array] = field(default_factory=list)
    basis: int = 0
    smallest: float = float("inf")
    largest: float = 0.0

    def product(self, v: Array) -> Array:
        """Return A v / scale in an array of its own: routines write into what they get."""
        v = np.array(v).reshape(-1)
        Av = np.array(self.operator(v))
        self.products += 1
        if not np.isfinite(Av).all():
            self.nonfinite = True
            raise Stop
        if not self.scale:
            self.scale = float(power_of_two_scale(Av) / power_of_two_scale(v))
        Av /= self.scale
        length = float(v @ v)
        if length > 0:
            quotient = float(v @ Av) / length
            self.smallest = min(self.smallest, quotient)
            self.largest = max(self.largest, abs(quotient))
        if self.space is not None:
            self.space.see(v, Av)
        return Av

    def keep(self, x: Array) -> None:
        """Keep an iterate, if it is finite: the callback of the routines."""
        if np.isfinite(x).all():
            self.iterates.append(np.array(x))

    def spectrum(self) -> Iterator[tuple[int, float, float]]:
        """Yield step counts with the smallest curvature and the largest |curvature| seen by then.

        Of the first `basis` vectors it is Ritz values, else Rayleigh quotients.
        """
        if self.space is None or not self.basis:
            yield 0, self.smallest, self.largest
            return
        for k in range(1 if self.each_step else self.basis, self.basis + 1):
            low, high = self.space.ends(k)
            yield k, low, max(abs(low), abs(high))


class Lanczos:
    """The tridiagonal T = VᵀAV and MINRES's residual, from the vectors of a Lanczos recurrence.

    They lose their orthogonality, but the eigenvalues of T stay inside the spectrum of A all the same (Paige 1976).
    """

    def __init__(self) -> None:
        self.diagonal: list[float] = []
        self.off: list[float] = []
        self.residual = 1.0  # ‖r_k‖/‖b‖: the product of the sines of the rotations that triangularise T
        self._previous: Array | float = 0.0
        self._cosines, self._sine = (1.0, 1.0), 0.0

    def see(self, v: Array, Av: Array) -> None:
        """Take in the next unit vector of the recurrence and its product."""
        below = self.off[-1] if self.off else 0.0
        quotient = float(v @ Av)
        self.diagonal.append(quotient)
        following = float(norm(Av - quotient * v - below * self._previous))
        self._previous = v
        self.off.append(following)
        corner = self._cosines[1] * quotient - self._sine * self._cosines[0] * below
        length = float(np.hypot(corner, following))
        self._cosines = (self._cosines[1], corner / length if length else 0.0)
        self._sine = following / length if length else 1.0
        self.residual *= self._sine

    def ends(self, count: int) -> tuple[float, float]:
        """Smallest and largest eigenvalue of T_count."""
        from scipy.linalg import eigvalsh_tridiagonal

        diagonal, off = np.array(self.diagonal[:count]), np.array(self.off[: count - 1])
        values = eigvalsh_tridiagonal(diagonal, off, check_finite=False)
        return float(values[0]), float(values[-1])


class Basis:
    """VᵀAV and VᵀV of vectors that are nearly orthonormal, whatever made them.

    A tridiagonal T would not do: past the grade of b the next vector of GMRES is rounding blown up to length one,
    it is not orthogonal to the others, and T then has eigenvalues far outside the spectrum of A. At the first vector
    that is not orthogonal to those before it to 1e-3 the space is exhausted, and the rest is ignored.
    """

    def __init__(self) -> None:
        self.vectors: list[Array] = []
        self.products: list[Array] = []
        self.gram: list[Array] = []
        self.exhausted = False

    def see(self, v: Array, Av: Array) -> None:
        """Take in the next unit vector and its product."""
        V = np.array([*self.vectors, v])
        overlaps = V @ v
        self.exhausted = self.exhausted or bool(overlaps[:-1] @ overlaps[:-1] > 1e-6)
        if not self.exhausted:
            self.vectors.append(v)
            self.products.append(V @ Av)
            self.gram.append(overlaps)

    def ends(self, count: int) -> tuple[float, float]:
        """Smallest and largest eigenvalue of the pencil (VᵀAV, VᵀV)."""
        from scipy.linalg import eigh

        H, G = (_symmetric(columns[:count]) for columns in (self.products, self.gram))
        values = eigh(H, G, eigvals_only=True, check_finite=False)
        return float(values[0]), float(values[-1])


def _symmetric(columns: list[Array]) -> Array:
    """A symmetric matrix from the columns of its upper triangle."""
    size = len(columns)
    matrix = np.zeros((size, size), dtype=columns[-1].dtype)
    for j, column in enumerate(columns):
        matrix[: j + 1, j] = matrix[j, : j + 1] = column
    return matrix


Routine = Callable[[Watch, Array, int, float], tuple[Array, int]]
"""(watch, b, most steps, relative tolerance) → (x, steps), for A/scale; b is scaled to max|b| in [1, 2)."""


@dataclass(eq=False)
class Trail:
    """What the runs on one problem left behind, in the units of A."""

    x: Array
    steps: int = 0
    products: int = 0
    checks: list[int] = field(default_factory=list)
    smallest: float = float("inf")
    largest: float = 0.0
    nonfinite: bool = False
    iterates: list[Array] = field(default_factory=list)
    negative_from: float = float("inf")

    @property
    def negative(self) -> bool:
        """Whether A was seen not to be positive definite; rounding in k products is worth k·eps·‖A‖."""
        return self.smallest <= max(1, self.steps) * epsilon(self.x) * self.largest

    def add(self, watch: Watch, y: Array, unit: float, taken: int) -> None:
        """Take in one run from the current x, whose result solves (A/scale) y = r/unit."""
        scale, base, done = watch.scale or 1.0, self.x, self.steps
        self.iterates += [base + each * unit / scale for each in watch.iterates[:taken]]
        self.x = base + y * unit / scale
        self.products += watch.products
        self.nonfinite |= watch.nonfinite
        for k, smallest, largest in watch.spectrum():
            self.steps = done + (k or taken)
            self.see(smallest * scale, largest * scale)
        self.steps = done + taken

    def see(self, smallest: float, largest: float) -> None:
        """Take in what is known of the spectrum."""
        self.smallest, self.largest = min(self.smallest, smallest), max(self.largest, largest)
        if self.negative:
            self.negative_from = min(self.negative_from, self.steps)


def follow(
    routine: Routine,
    operator: Operator,
    b: Array,
    max_steps: int,
    rtol: float,
    *,
    space: Callable[[], Subspace] | None = None,
    each_step: bool = False,
) -> Trail:
    """Run a routine on one problem; where its own residual lied, again from the true one.

    `space` makes what watches the basis of a routine. Without it the products say little, and the definiteness is
    probed afterwards by as many Lanczos steps as the routine took.
    """
    trail = Trail(np.zeros_like(b))
    least = epsilon(b) ** 2
    r, size = b, float(norm(b))
    residual = size
    with np.errstate(all="ignore"):
        while trail.steps < max_steps and residual > max(rtol, least) * size:
            unit = float(power_of_two_scale(r))
            watch = Watch(operator, space() if space else None, each_step)
            y, taken = routine(watch, r / unit, max_steps - trail.steps, max(rtol, least) * size / residual)
            trail.add(watch, y, unit, taken)
            if rtol == 0 or taken == 0 or trail.nonfinite or trail.steps >= max_steps:
                break
            r = b - operator(trail.x)
            trail.checks.append(trail.steps)
            before, residual = residual, float(norm(r))
            if not residual < 0.5 * before:  # rounding has the last word
                break
        if space is None and trail.steps and not trail.nonfinite and not trail.negative:
            count = min(trail.steps, b.size)
            smallest, largest = extreme_eigenvalues(operator, count)
            trail.products += count
            trail.see(float(smallest), float(largest))
    return trail


def solve_each(
    solver: Any, A: Any, b: Array, routine: Routine, **options: Any
) -> tuple[System, list[tuple[tuple[int, ...], Trail]], dict[str, Any]]:
    """Follow every problem of the batch; return the trails and what `verdict` wants to know.

    Raises
    ------
    ArgumentTypeError
        For arrays that do not live on the host.
    """
    system = prepare(A, b)
    name = type(solver).__name__
    if namespace(system.b) is not np:
        raise ArgumentTypeError(f"b: SciPy's {name.lower()} takes NumPy arrays only; use CG on other backends")
    trails = [
        (index, follow(routine, operator, rhs, solver.max_steps, solver.rtol, **options))
        for index, operator, rhs in system.problems()
    ]
    shape = system.shape
    x, steps = np.zeros_like(system.b), np.zeros(shape, dtype=np.int64)
    smallest, largest = np.full(shape, np.inf), np.zeros(shape)
    negative, nonfinite, products = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool), 0
    for index, trail in trails:
        x[index], steps[index] = trail.x, trail.steps
        smallest[index], largest[index] = trail.smallest, trail.largest
        negative[index], nonfinite[index] = trail.negative, trail.nonfinite
        products = max(products, trail.products + len(trail.checks))
    known = {
        "solver": solver,
        "rtol": solver.rtol,
        "steps": steps,
        "budget": solver.max_steps,
        "operator_norm": largest,
        "failed": {Status.NONFINITE: nonfinite, Status.INDEFINITE: negative},
        "cost": system.selection + Cost(hvps=products + 1),
        "smallest_eigenvalue": smallest,
    }
    return system, trails, {"x": x, **known}


def solution_of(solver: Any, A: Any, b: Array, routine: Routine, **options: Any) -> Solution[Any]:
    """Solve every problem of the batch by `routine`, without a path."""
    system, _, known = solve_each(solver, A, b, routine, **options)
    return verdict(system, **known)
