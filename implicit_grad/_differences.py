"""Finite differences along a line, with what they are worth: truncation, rounding, kinks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from implicit_grad.backend import Array, epsilon, norm

_WIDE = 64.0
_FINE = 1e-3


class Line:
    """f(x + t h v) as a function of t, each t evaluated once; f returns `(..., k)`."""

    def __init__(self, f: Callable[[Array], Array], x: Array, v: Array, h: Array) -> None:
        self.f, self.x, self.v, self.h, self.seen = f, x, v, h, dict[float, Array]()

    def __call__(self, t: float) -> Array:
        if t not in self.seen:
            self.seen[t] = np.asarray(self.f(self.x + (t * self.h)[..., None] * self.v))
        return self.seen[t]

    def central(self, t: float) -> Array:
        """Return (f(x + t h v) − f(x − t h v))/2th: `(..., k)`."""
        return (self(t) - self(-t)) / (2 * t * self.h)[..., None]

    def gap(self, t: float) -> Array:
        """Return the norm of the difference of both one-sided slopes over th: `(...)`."""
        return norm(self(t) - 2 * self(0.0) + self(-t)) / (t * self.h)


def step_lengths(x: Array, slope: Array, curvature: Array) -> Array:
    """Return h = ε^{1/3}s `(...)`: s = ‖x‖, at the origin the length ‖∇f‖/‖Hv‖ of a Newton step, else 1."""
    newton = slope / curvature
    usable = np.isfinite(newton) & (newton > 0)
    size = norm(x)
    return epsilon(x) ** (1 / 3) * np.where(size > 0, size, np.where(usable, newton, 1.0))


def noise_of(line: Line) -> Array:
    """What rounding (or worse) does to one value of f: `(...)`.

    Third differences over h/1000 hold nothing else of a smooth f, and a thousandth of a kink's jump over h.
    """
    values = [line(k * _FINE) for k in range(-3, 4)]
    thirds = [norm(values[i + 3] - 3 * values[i + 2] + 3 * values[i + 1] - values[i]) for i in range(4)]
    floor = 8 * epsilon(line.x) * np.maximum(norm(line(0.0)), norm(line(1.0)))
    return np.maximum(np.max(thirds, axis=0), floor)


def jump(line: Line, noise: Array, curvature: Array | None = None) -> tuple[Array, Array]:
    """How far the one-sided slopes over h differ, and what curvature and rounding explain of it.

    Of a smooth f the difference is hf''; over 64h it is 64 times that. A kink's jump is the same over both.
    """
    size, wide = line.gap(1.0), line.gap(_WIDE) / _WIDE
    explained = wide if curvature is None else np.maximum(wide, line.h * curvature)
    return size, 4 * explained + 8 * noise / line.h


def agreement(line: Line, derivative: Array, noise: Array) -> tuple[Array, Array]:
    """How far a derivative is from the central difference, and what truncation and rounding explain of it."""
    near = line.central(1.0)
    truncation = norm(line.central(2.0) - near)
    return norm(near - derivative), 4 * (truncation + noise / line.h) + 64 * epsilon(line.x) * norm(derivative)
