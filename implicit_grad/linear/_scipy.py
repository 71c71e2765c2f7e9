"""SciPy's Krylov routines, one problem at a time, with a witness in the matrix-vector product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from implicit_grad.backend import Array, epsilon, namespace, norm, power_of_two_scale
from implicit_grad.errors import ArgumentTypeError
from implicit_grad.linear._system import System, prepare, verdict
from implicit_grad.linear.lanczos import extreme_eigenvalues
from implicit_grad.linear.operator import Operator
from implicit_grad.results import Cost, Solution, Status


class Stop(Exception):
    """A signal out of SciPy's loop, not an error: the routine has done enough."""


@dataclass(eq=False)
class Watch:
    """One run of one routine: it multiplies for SciPy and remembers what the products say.

    The products are divided by a power of two near ‖A b‖/‖b‖, because some of the routines compare with absolute
    numbers: SciPy's minres takes a matrix of norm 1e-20 for zero. The routine's answer is that much too large.
    """

    operator: Operator
    each_step: bool = False
    scale: float = 0.0
    products: int = 0
    nonfinite: bool = False
    iterates: list[Array] = field(default_factory=list)
    lanczos: _Lanczos = field(default_factory=lambda: _Lanczos())
    orthonormal: int = 0
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
            self.lanczos.see(v, Av, quotient)
        return Av

    def keep(self, x: Array) -> None:
        """Keep an iterate, if it is finite: the callback of the routines."""
        if np.isfinite(x).all():
            self.iterates.append(np.array(x))

    def spectrum(self) -> Iterator[tuple[int, float, float]]:
        """Yield step counts with the smallest curvature and the largest |curvature| seen by then.

        Of the first `orthonormal` vectors it is the extreme eigenvalues of T = VᵀAV, else Rayleigh quotients.
        """
        count = min(self.orthonormal, len(self.lanczos.diagonal))
        if count == 0:
            yield 0, self.smallest, self.largest
        for k in range(1 if self.each_step else count, count + 1) if count else ():
            low, high = self.lanczos.ends(k)
            yield k, low, max(abs(low), abs(high))


class _Lanczos:
    """The tridiagonal T = VᵀAV and MINRES's residual, from orthonormal vectors seen one after another."""

    def __init__(self) -> None:
        self.diagonal: list[float] = []
        self.off: list[float] = []
        self.residual = 1.0  # ‖r_k‖/‖b‖: the product of the sines of the rotations that triangularise T
        self._previous: Array | float = 0.0
        self._cosines, self._sine = (1.0, 1.0), 0.0

    def see(self, v: Array, Av: Array, quotient: float) -> None:
        below = self.off[-1] if self.off else 0.0
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
    lanczos: bool = False,
    each_step: bool = False,
) -> Trail:
    """Run a routine on one problem; where its own residual lied, again from the true one.

    With `lanczos` the definiteness is probed afterwards by as many Lanczos steps as the routine took.
    """
    trail = Trail(np.zeros_like(b))
    least = epsilon(b) ** 2
    r, size = b, float(norm(b))
    residual = size
    with np.errstate(all="ignore"):
        while trail.steps < max_steps and residual > max(rtol, least) * size:
            watch, unit = Watch(operator, each_step), float(power_of_two_scale(r))
            y, taken = routine(watch, r / unit, max_steps - trail.steps, max(rtol, least) * size / residual)
            trail.add(watch, y, unit, taken)
            if rtol == 0 or taken == 0 or trail.nonfinite or trail.steps >= max_steps:
                break
            r = b - operator(trail.x)
            trail.checks.append(trail.steps)
            before, residual = residual, float(norm(r))
            if not residual < 0.5 * before:  # rounding has the last word
                break
        if lanczos and trail.steps and not trail.nonfinite and not trail.negative:
            count = min(trail.steps, b.size)
            smallest, largest = extreme_eigenvalues(operator, count)
            trail.products += count
            trail.see(float(smallest), float(largest))
    return trail


def solve_each(
    solver: Any, A: Any, b: Array, routine: Routine, **options: bool
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


def solution_of(solver: Any, A: Any, b: Array, routine: Routine, **options: bool) -> Solution[Any]:
    """Solve every problem of the batch by `routine`, without a path."""
    system, _, known = solve_each(solver, A, b, routine, **options)
    return verdict(system, **known)
