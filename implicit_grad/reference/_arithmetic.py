"""Numbers that carry their own error, in object arrays: Arb's balls and mpmath's intervals; and long doubles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from implicit_grad.errors import MissingDependency

Array = np.ndarray[Any, Any]


class Arithmetic(Protocol):
    """What the losses need of numbers."""

    def exact(self, values: Any) -> Array:
        """Return floats as numbers of this kind, without rounding."""
        ...

    def exp(self, z: Array) -> Array:
        """Return eᶻ, entry by entry."""
        ...

    def log(self, z: Array) -> Array:
        """Return ln z, entry by entry."""
        ...

    def matmul(self, A: Array, B: Array) -> Array:
        """Return the product of two matrices."""
        ...


class Verified(Arithmetic, Protocol):
    """Arithmetic whose results enclose the exact ones."""

    name: str

    def precision(self, bits: int) -> Any:
        """Compute with this many bits inside a `with` block."""
        ...

    def middle(self, x: Array) -> Array:
        """Return the mid-points, as numbers without error."""
        ...

    def widened(self, x: Array, radius: Fraction) -> Array:
        """Return enclosures of [x − r, x + r]."""
        ...

    def largest(self, x: Array) -> Fraction:
        """Return an upper bound of max|x|."""
        ...

    def positive(self, x: Any) -> bool:
        """Whether every number that x may stand for is positive."""
        ...

    def inverse(self, A: Array) -> Array:
        """Return an approximate inverse of a matrix of mid-points, without error."""
        ...

    def fractions(self, x: Array) -> Array:
        """Return mid-points as exact fractions."""
        ...


class Extended:
    """Long doubles: 64 bits of mantissa on x86, what the machine has elsewhere. Not verified."""

    epsilon = float(np.finfo(np.longdouble).eps)

    def exact(self, values: Any) -> Array:
        """Return long doubles."""
        return np.asarray(values, dtype=np.longdouble)

    def exp(self, z: Array) -> Array:
        """Return eᶻ."""
        return np.exp(z)

    def log(self, z: Array) -> Array:
        """Return ln z."""
        return np.log(z)

    def matmul(self, A: Array, B: Array) -> Array:
        """Return A B."""
        return A @ B


class ArbBalls:
    """Ball arithmetic by Arb through python-flint; every operation encloses the exact result.

    References
    ----------
    Johansson, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic, IEEE Trans. Comp. 66 (2017).
    """

    def __init__(self) -> None:
        import flint

        self._flint = flint
        self.name = f"ball arithmetic (python-flint {flint.__version__})"
        self._ball = np.frompyfunc(flint.arb, 1, 1)
        self.exp: Callable[[Array], Array] = np.frompyfunc(lambda z: z.exp(), 1, 1)
        self.log: Callable[[Array], Array] = np.frompyfunc(lambda z: z.log(), 1, 1)
        self._middle = np.frompyfunc(lambda z: z.mid(), 1, 1)
        self._fraction = np.frompyfunc(lambda z: _dyadic(*z.mid().man_exp()), 1, 1)

    def precision(self, bits: int) -> Any:
        """Set Arb's precision, for the block only."""
        return self._flint.ctx.workprec(bits)

    def exact(self, values: Any) -> Array:
        """Return balls of radius 0."""
        # Python's floats, not NumPy's: Arb takes the former exactly.
        return np.asarray(self._ball(np.asarray(values, dtype=np.float64).astype(object)), dtype=object)

    def matmul(self, A: Array, B: Array) -> Array:
        """Return A B."""
        product = self._matrix(A) * self._matrix(B)
        return np.array(product.entries(), dtype=object).reshape(A.shape[0], B.shape[1])

    def middle(self, x: Array) -> Array:
        """Return the mid-points."""
        return self._middle(x)

    def widened(self, x: Array, radius: Fraction) -> Array:
        """Return balls that hold [x − r, x + r]."""
        r = self._flint.arb(self._flint.fmpq(radius.numerator, radius.denominator)).abs_upper()
        return np.frompyfunc(lambda z: z + self._flint.arb(0, r), 1, 1)(x)

    def largest(self, x: Array) -> Fraction:
        """Return the largest |x| of all balls."""
        return _largest([z.abs_upper() for z in x.ravel()], lambda z: z.is_finite(), self._upper)

    def _upper(self, z: Any) -> Fraction:
        return _dyadic(*z.man_exp())

    def positive(self, x: Any) -> bool:
        """Whether the whole ball is positive."""
        return bool(x > 0)

    def inverse(self, A: Array) -> Array:
        """Return the mid-points of an enclosure of the inverse.

        Raises
        ------
        ZeroDivisionError
            Where the matrix cannot be told from a singular one.
        """
        return self._middle(np.array(self._matrix(A).inv().entries(), dtype=object).reshape(A.shape))

    def fractions(self, x: Array) -> Array:
        """Return the mid-points as fractions."""
        return self._fraction(x)

    def _matrix(self, A: Array) -> Any:
        return self._flint.arb_mat(A.shape[0], A.shape[1], A.ravel().tolist())


class MpmathIntervals:
    """Interval arithmetic by mpmath; pure Python, and a hundred times slower than Arb."""

    def __init__(self) -> None:
        import mpmath
        from mpmath.ctx_iv import MPIntervalContext

        # Contexts of its own: the precision of other users of mpmath stays as it is.
        self._iv, self._mp = MPIntervalContext(), mpmath.MPContext()
        self.name = f"interval arithmetic (mpmath {mpmath.__version__})"
        self.exp: Callable[[Array], Array] = np.frompyfunc(self._iv.exp, 1, 1)
        self.log: Callable[[Array], Array] = np.frompyfunc(self._iv.log, 1, 1)
        self._middle = np.frompyfunc(lambda z: z.mid, 1, 1)
        self._fraction = np.frompyfunc(lambda z: _ends(z.mid)[0], 1, 1)

    @contextmanager
    def precision(self, bits: int) -> Iterator[None]:
        """Set the precision of both contexts, for the block only."""
        before = self._iv.prec, self._mp.prec
        self._iv.prec, self._mp.prec = bits, bits
        try:
            yield
        finally:
            self._iv.prec, self._mp.prec = before

    def exact(self, values: Any) -> Array:
        """Return intervals of one point."""
        floats = np.asarray(values, dtype=np.float64).astype(object)
        return np.asarray(np.frompyfunc(self._iv.mpf, 1, 1)(floats), dtype=object)

    def matmul(self, A: Array, B: Array) -> Array:
        """Return A B."""
        return A @ B

    def middle(self, x: Array) -> Array:
        """Return the mid-points."""
        return self._middle(x)

    def widened(self, x: Array, radius: Fraction) -> Array:
        """Return intervals that hold [x − r, x + r]."""
        r = self._iv.mpf(radius.numerator) / self._iv.mpf(radius.denominator)
        # Arrays stand first: an mpmath number would take a whole array for a number.
        return x + self._iv.mpf([-1, 1]) * r

    def largest(self, x: Array) -> Fraction:
        """Return the largest |x| of all intervals."""
        return _largest([abs(z) for z in x.ravel()], lambda z: z.b < self._iv.inf, lambda z: _ends(z)[1])

    def positive(self, x: Any) -> bool:
        """Whether the whole interval is positive."""
        return _ends(x)[0] > 0

    def inverse(self, A: Array) -> Array:
        """Return an approximate inverse of a matrix of one-point intervals.

        Raises
        ------
        ZeroDivisionError
            For a singular matrix.
        """
        n = A.shape[0]
        M = self._mp.matrix(n, n)
        for i in range(n):
            for j in range(n):
                M[i, j] = self._mp.make_mpf(A[i, j].mid._mpi_[0])
        inverse = self._mp.inverse(M)
        return np.array([[self._iv.mpf(inverse[i, j]) for j in range(n)] for i in range(n)], dtype=object)

    def fractions(self, x: Array) -> Array:
        """Return the mid-points as fractions."""
        return self._fraction(x)


def _dyadic(mantissa: Any, exponent: Any) -> Fraction:
    m, e = int(mantissa), int(exponent)
    return Fraction(m << e) if e >= 0 else Fraction(m, 1 << -e)


def _ends(interval: Any) -> tuple[Fraction, Fraction]:
    """Ends of an mpmath interval."""
    low, high = ((-1) ** sign * _dyadic(man, exp) for sign, man, exp, _ in interval._mpi_)
    return low, high


def _largest(sizes: list[Any], finite: Callable[[Any], bool], upper: Callable[[Any], Fraction]) -> Fraction:
    if not all(map(finite, sizes)):
        raise OverflowError("an enclosure is not bounded")
    return max(map(upper, sizes), default=Fraction(0))


def verified_arithmetic() -> Verified:
    """Return Arb's balls, or mpmath's intervals where python-flint is not installed.

    Raises
    ------
    MissingDependency
        If neither is.
    """
    try:
        return ArbBalls()
    except ImportError:
        pass
    try:
        return MpmathIntervals()
    except ImportError as error:
        raise MissingDependency(
            f"reference needs python-flint or mpmath ({error}): pip install 'implicit-grad[reference]'"
        ) from error
