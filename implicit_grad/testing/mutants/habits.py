"""Bad habits of solvers and gradients as functions: in-place work, swallowed NaN, forgotten cases."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from implicit_grad.estimators import EXACT
from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.problem import BilevelProblem
from implicit_grad.results import Solution
from implicit_grad.status import Status
from implicit_grad.testing.mutants import gradients


def _solution(x: Any, residual: Any, status: Status) -> Solution[Any]:
    return Solution(x, np.asarray(residual), np.asarray(1), status, None)


def gives_up(A: Any, b: Any) -> Solution[Any]:
    """Never gets there, and says so."""
    return _solution(np.zeros_like(b), np.linalg.norm(b), Status.MAX_STEPS)


def divides_by_zero(A: Any, b: Any) -> Any:
    """Scales by ‖b‖ without a look at b = 0."""
    size = np.linalg.norm(b)
    return np.linalg.solve(A, b / size) * size


def no_step_for_one(A: Any, b: Any) -> Any:
    """A step limit that is zero for one unknown."""
    return np.linalg.solve(A, b) if b.size > 1 else np.zeros_like(b)


def no_step_for_scalars(A: Any, b: Any) -> Any:
    """A step limit that is the number of axes: zero for 0-d input."""
    return np.linalg.solve(A, b) if b.ndim else np.zeros_like(b)


def swallows_nan(A: Any, b: Any) -> Any:
    """Cleans its input up."""
    return np.linalg.solve(A, np.nan_to_num(b))


def overwrites(A: Any, b: Any) -> Any:
    """Uses b for the answer."""
    b[...] = np.linalg.solve(A, b)
    return b


def first_of_the_batch(A: Any, b: Any) -> Any:
    """Factors the first matrix of a batch for all of them."""
    first = A[(0,) * (A.ndim - 2)]
    return (b @ np.linalg.inv(first).T) if A.ndim > 2 else np.linalg.solve(A, b)


@dataclass(eq=False)
class Dithering:
    """Differs from call to call in the last digits."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def __call__(self, A: Any, b: Any) -> Any:
        """Solve, nearly."""
        return np.linalg.solve(A, b) * (1 + 2.0**-50 * self.rng.random())


def pushed_away(problem: BilevelProblem, theta: Any) -> Any:
    """φ mirrored at θ: the pull of λ with the wrong sign."""
    return 2 * theta - Newton(rtol=1e-13)(problem, theta).value


def one_regulariser_step(problem: BilevelProblem, theta: Any) -> Any:
    """Steps down the train loss alone, and one towards θ at the end."""
    phi = GradientDescent(None, 50, proximal=False)(problem, theta).value
    return phi - 0.5 * (phi - theta)


def content_at_a_saddle(problem: BilevelProblem, theta: Any) -> Solution[Any]:
    """Calls whatever it ends at converged."""
    return replace(Newton(rtol=1e-6)(problem, theta), status=Status.CONVERGED)


def restless(problem: BilevelProblem, theta: Any) -> Any:
    """Takes a step of a fixed length, downhill or not."""
    return theta + 1e-3 * (1 + np.abs(theta))


def axis_bound(problem: BilevelProblem, theta: Any) -> Any:
    """Minimises along the first axis only."""
    phi = theta.copy()
    phi[0] = Newton(rtol=1e-13)(problem, theta).value[0]
    return phi


def moves_theta(problem: BilevelProblem, theta: Any) -> Any:
    """Uses θ for φ."""
    theta[...] = Newton(rtol=1e-13)(problem, theta).value
    return theta


def rounds_to_half(loss: Any, x: Any) -> Any:
    """Goes through float16 where float32 comes in."""
    hvp = loss.linearize(x.astype(np.float64)).hvp

    def product(v: Any) -> Any:
        low = v.astype(np.float16) if v.dtype == np.float32 else v
        return hvp(low.astype(np.float64)).astype(v.dtype)

    return product


def gradient_in_place(problem: BilevelProblem, theta: Any) -> Any:
    """Uses θ for g."""
    theta[...] = EXACT(problem, theta).gradient
    return theta


def half_the_samples(problem: BilevelProblem, theta: Any) -> Any:
    """The Hessian of half the samples, where the loss has samples to halve."""
    if not hasattr(problem.inner, "X") or getattr(problem.inner, "hidden", None) is not None:
        return EXACT(problem, theta)
    return gradients.dense(gradients.first_samples)(problem, theta)


def drops_a_class(problem: BilevelProblem, theta: Any) -> Any:
    """Forgets the last class of a softmax."""
    g = np.array(EXACT(problem, theta).gradient)
    classes = getattr(problem.inner, "n_classes", None)
    if classes:
        g.reshape(-1, classes)[:, -1] = 0
    return g


def first_sample(problem: BilevelProblem, theta: Any) -> Any:
    """∇L_test of the first test sample only."""
    outer: Any = problem.outer
    if not hasattr(outer, "X") or getattr(outer, "hidden", None) is not None:
        return EXACT(problem, theta)
    targets = {"labels": outer.labels[:1]} if hasattr(outer, "labels") else {"y": outer.y[:1]}
    return EXACT(replace(problem, outer=gradients.replace_loss(outer, X=outer.X[:1], **targets)), theta)
