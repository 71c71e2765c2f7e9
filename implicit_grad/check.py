"""Are these losses what implicit gradients need: deterministic, left alone, smooth, and with derivatives that fit?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad._differences import Line, agreement, jump, noise_of, step_lengths
from implicit_grad.backend import Array, dot, epsilon, namespace, norm
from implicit_grad.errors import ArgumentTypeError, LossError, NondeterministicLossError, NonFiniteError
from implicit_grad.objectives import SmoothFunction
from implicit_grad.problem import BilevelProblem, expect_problem

_REPETITIONS = 3


class Defect(Enum):
    """What can be wrong with a loss; the value is the help text."""

    RAISES = "an evaluation fails; inside a loss for Autodiff use autograd.numpy and autograd.scipy, not numpy"
    NONDETERMINISTIC = (
        "the same parameters give different numbers; fix the random seed inside the loss, keep no state, or allow "
        "for it with nondeterminism="
    )
    MUTATION = "an evaluation writes into the parameters or the data; copy before writing"
    NONFINITE = (
        "NaN or infinity: a logarithm or a root of 0 behind `where` (put a safe number in before the function, too), "
        "a norm at 0, or an exponential too large (subtract the largest exponent first)"
    )
    KINK = "one-sided slopes differ: abs, max, ReLU or a norm at its kink, where a gradient is a matter of taste"
    CURVATURE_KINK = "the gradient has a kink: max(x, 0)², a Huber loss; the Hessian depends on the side"
    GRADIENT = "the gradient is not that of the value; a traced loss may leave autograd.numpy on the way"
    HVP = "Hessian-vector products are not the differences of the gradient"
    ASYMMETRY = "uᵀHv ≠ vᵀHu: the products are of no Hessian"
    CONSTANT = "the loss does not depend on the parameters"
    SCALE = "squares of the derivatives leave the range of this dtype; rescale the loss"
    LOST_LAMBDA = "λ is lost to rounding beside the curvature: A = H + λI is H in this dtype"

    @property
    def advisory(self) -> bool:
        """Whether numbers computed from such a loss are still what they are called."""
        return self in (Defect.CURVATURE_KINK, Defect.CONSTANT, Defect.SCALE, Defect.LOST_LAMBDA)

    def __repr__(self) -> str:
        return f"Defect.{self.name}"


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing wrong with one loss.

    Attributes
    ----------
    loss : str
        `"inner"` or `"outer"`.
    defect : Defect
    detail : str
        What was compared, and with what.
    size, allowed : float
        The worst disagreement of the batch and what rounding explains of it.
    index : tuple of int
        That problem.
    """

    loss: str
    defect: Defect
    detail: str
    size: float = float("nan")
    allowed: float = 0.0
    index: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = f" at problem {self.index}" if self.index else ""
        return f"{self.loss}: {self.defect.name}: {self.defect.value} ({self.detail}{where})"


@dataclass(frozen=True, eq=False)
class ProblemReport:
    """What `check_problem` found.

    Attributes
    ----------
    findings : tuple of Finding
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is nothing but advice."""
        return all(finding.defect.advisory for finding in self.findings)

    def __contains__(self, defect: Defect) -> bool:
        return any(finding.defect is defect for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing found"

    def unwrap(self) -> None:
        """Return if there is nothing but advice.

        Raises
        ------
        NondeterministicLossError, NonFiniteError, LossError
            With all findings; its type is that of the first which is no advice.
        """
        errors = {Defect.NONDETERMINISTIC: NondeterministicLossError, Defect.NONFINITE: NonFiniteError}
        for finding in self.findings:
            if not finding.defect.advisory:
                raise errors.get(finding.defect, LossError)(str(self))


def check_problem(
    problem: BilevelProblem, theta: Array, *, directions: int = 3, nondeterminism: float = 0.0, seed: int = 77
) -> ProblemReport:
    r"""Look for what makes implicit gradients wrong before any solver runs: in both losses, at θ.

    Each loss is evaluated three times (value, gradient, Hessian-vector products), bit by bit equal or not at all; the
    parameters and the data it holds are compared before and after. Then, along random unit directions v and with
    step h = ε^{1/3}s in length, s = ‖θ‖ (at θ = 0 the length ‖∇f‖/‖Hv‖ of a Newton step, else 1),

    .. math:: \frac{f(\theta+hv) - f(\theta-hv)}{2h} = \nabla f^\top v, \qquad
              \frac{\nabla f(\theta+hv) - \nabla f(\theta-hv)}{2h} = Hv

    are asked for up to four times the difference that doubling h makes, and rounding, which third differences over
    h/1000 size. One-sided slopes that differ by more than curvature explains betray a kink within h of θ.

    Parameters
    ----------
    problem : BilevelProblem
    theta : (..., d) array
        NumPy; the derivatives there need not vanish.
    directions : int
        Random directions; a kink in one of d parameters shows in all of them.
    nondeterminism : float
        Relative difference of two evaluations that is no finding; 0 asks for equal bits. Differences are then judged
        with that noise.
    seed : int
        Of the directions.

    Returns
    -------
    ProblemReport

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For a θ that does not fit the problem. What is wrong with a loss is a finding.

    Examples
    --------
    >>> import autograd.numpy as anp
    >>> import numpy as np
    >>> from implicit_grad import Autodiff, BilevelProblem
    >>> lasso = Autodiff(lambda w: anp.sum((w - 1.0) ** 2) + anp.sum(anp.abs(w)))
    >>> report = check_problem(BilevelProblem(lasso, lasso, 0.5), np.array([0.0, 2.0]))
    >>> report.ok, [finding.defect for finding in report.findings]
    (False, [Defect.KINK, Defect.KINK])
    """
    expect_problem(problem)
    theta = problem.parameters(theta)
    if namespace(theta) is not np:
        raise ArgumentTypeError("theta: problems are checked on the host; move the arrays with to_numpy")
    border.count("directions", directions, minimum=1)
    border.tolerance("nondeterminism", nondeterminism)
    border.count("seed", seed)
    found: list[Finding] = []
    with np.errstate(all="ignore"):
        for name in ("inner", "outer"):
            rng = np.random.default_rng(seed)
            found += _Check(name, getattr(problem, name), theta, nondeterminism).findings(rng, directions, problem)
    return ProblemReport(tuple(found))


class _Check:
    """One loss at θ."""

    def __init__(self, name: str, loss: SmoothFunction, theta: Array, nondeterminism: float) -> None:
        self.name, self.loss, self.theta, self.nondeterminism = name, loss, theta, nondeterminism

    def findings(self, rng: np.random.Generator, directions: int, problem: BilevelProblem) -> list[Finding]:
        """Return what is wrong, the causes before their effects."""
        vs = _unit(rng.standard_normal((directions + 1, *self.theta.shape)))
        mutated = self._mutation(vs[0])
        try:
            first, *others = (self._evaluate(vs[0]) for _ in range(_REPETITIONS))
        except Exception as error:  # a user's loss may raise anything, and that is the finding
            return [*mutated, Finding(self.name, Defect.RAISES, f"{type(error).__name__}: {error}")]
        found = mutated + list(self._differing(first, others))
        found += [] if found else list(self._non_finite(first))
        if found:
            return found
        for u, v in zip(vs[1:], vs[:-1], strict=True):
            for finding in (*self._along(v), *self._symmetry(u, v)):
                if all(finding.defect is not other.defect for other in found):
                    found.append(finding)
        return found + list(self._advice(first, vs[0], problem))

    def _evaluate(self, v: Array) -> dict[str, Array]:
        at = self.loss.linearize(self.theta.copy())
        return {
            "value": np.array(self.loss.value(self.theta.copy())),
            "gradient": np.array(self.loss.gradient(self.theta.copy())),
            "linearised gradient": np.array(at.gradient),
            "Hessian-vector product": np.array(at.hvp(v.copy())),
        }

    def _mutation(self, v: Array) -> list[Finding]:
        theta, data = self.theta.copy(), dict(arrays_of(self.loss))
        before = {name: array.tobytes() for name, array in data.items()}
        calls: tuple[Callable[[], Any], ...] = (
            lambda: self.loss.value(theta),
            lambda: self.loss.gradient(theta),
            lambda: self.loss.linearize(theta).hvp(v.copy()),
        )
        for call in calls:
            try:
                call()
            except Exception:  # reported by the evaluations that follow; what it wrote is the question here
                continue
        changed = [name for name, array in data.items() if array.tobytes() != before[name]]
        if theta.tobytes() != self.theta.tobytes():
            changed.append("the parameters")
        return [Finding(self.name, Defect.MUTATION, f"written into: {', '.join(changed)}")] if changed else []

    def _differing(self, first: dict[str, Array], others: list[dict[str, Array]]) -> Iterator[Finding]:
        for what, one in first.items():
            apart = np.zeros(self.theta.shape[:-1])
            for other in others:
                same = (one == other[what]) | (np.isnan(one) & np.isnan(other[what]))
                gap = np.where(same, 0.0, np.nan_to_num(np.abs(one - other[what]), nan=np.inf))
                apart = np.maximum(apart, gap if what == "value" else norm(gap))
            size = np.abs(one) if what == "value" else norm(one)
            allowed = self.nondeterminism * np.where(np.isfinite(size), size, 0.0)
            yield from self._worst(Defect.NONDETERMINISTIC, f"the {what}, evaluated again", apart, allowed)

    def _non_finite(self, first: dict[str, Array]) -> Iterator[Finding]:
        for what, array in first.items():
            if what == "linearised gradient":
                continue
            bad = ~np.isfinite(array)
            bad = bad if what == "value" else bad.any(axis=-1)
            yield from self._worst(Defect.NONFINITE, f"the {what}", np.where(bad, np.inf, 0.0), 0.0)

    def _along(self, v: Array) -> Iterator[Finding]:
        """Compare value, gradient and products along one direction."""
        at = self.loss.linearize(self.theta)
        Hv, slope = at.hvp(v), dot(at.gradient, v)
        h = step_lengths(self.theta, norm(at.gradient), norm(Hv))
        values = Line(lambda x: self.loss.value(x)[..., None], self.theta, v, h)
        gradients = Line(self.loss.gradient, self.theta, v, h)
        noise, noise_of_gradient = noise_of(values), noise_of(gradients)
        kinked = False
        for line, eps, curvature, defect in (
            (values, noise, np.abs(dot(v, Hv)), Defect.KINK),
            (gradients, noise_of_gradient, None, Defect.CURVATURE_KINK),
        ):
            size, allowed = jump(line, eps, curvature)
            for finding in self._worst(defect, "one-sided differences", size, allowed):
                kinked = True
                yield finding
            if kinked:
                return
        apart, allowed = agreement(values, slope[..., None], noise)
        allowed = allowed + 64 * epsilon(v) * norm(at.gradient)
        yield from self._worst(Defect.GRADIENT, "against central differences of the value", apart, allowed)
        apart, allowed = agreement(gradients, Hv, noise_of_gradient)
        yield from self._worst(Defect.HVP, "against central differences of the gradient", apart, allowed)
        apart = norm(at.gradient - self.loss.gradient(self.theta))
        allowed = 64 * v.shape[-1] * epsilon(v) * norm(at.gradient) + 4 * noise_of_gradient
        yield from self._worst(Defect.GRADIENT, "linearize(x).gradient against gradient(x)", apart, allowed)

    def _symmetry(self, u: Array, v: Array) -> Iterator[Finding]:
        hvp = self.loss.linearize(self.theta).hvp
        Hu, Hv = hvp(u), hvp(v)
        allowed = 256 * u.shape[-1] * epsilon(u) * (norm(Hu) + norm(Hv)) + self.nondeterminism * (norm(Hu) + norm(Hv))
        apart = np.abs(dot(u, Hv) - dot(v, Hu))
        yield from self._worst(Defect.ASYMMETRY, "along two random directions", apart, allowed)

    def _advice(self, first: dict[str, Array], v: Array, problem: BilevelProblem) -> Iterator[Finding]:
        info = np.finfo(self.theta.dtype)
        slope, curvature = norm(first["gradient"]), norm(first["Hessian-vector product"])
        moved = self.loss.gradient(self.theta + step_lengths(self.theta, slope, curvature)[..., None] * v)
        flat = (slope == 0) & (curvature == 0) & (norm(moved) == 0)
        yield from self._worst(Defect.CONSTANT, "at θ and beside it", np.where(flat, 1.0, 0.0), 0.0)
        for size in (slope, curvature):
            outside = (size > info.max**0.5) | ((size > 0) & (size < info.tiny**0.5))
            if outside.any():
                yield from self._worst(Defect.SCALE, "norm of a derivative", np.where(outside, size, 0.0), 0.0)
                break
        if self.name == "inner":
            lam = problem.lam_like(self.theta) + np.zeros_like(slope)
            lost = curvature * epsilon(self.theta) > lam
            yield from self._worst(Defect.LOST_LAMBDA, "eps·‖Hv‖ > λ", np.where(lost, curvature, 0.0), 0.0)

    def _worst(self, defect: Defect, detail: str, size: Array, allowed: Any) -> Iterator[Finding]:
        """Yield a finding for the problem of the batch that is furthest beyond what is allowed."""
        size, allowed = np.broadcast_arrays(np.asarray(size, dtype=float), np.asarray(allowed, dtype=float))
        beyond = ~(size <= allowed)
        if beyond.any():
            ratio = np.where(beyond, np.nan_to_num(size / np.maximum(allowed, 5e-324), nan=np.inf), -1.0)
            i = tuple(int(k) for k in np.unravel_index(int(np.argmax(ratio)), size.shape))
            numbers = f"{size[i]:.3g} where {allowed[i]:.3g} is explained" if np.isfinite(size[i]) else "not finite"
            yield Finding(self.name, defect, f"{detail}: {numbers}", float(size[i]), float(allowed[i]), i)


def _unit(x: Array) -> Array:
    return x / norm(x)[..., None]


def arrays_of(loss: Any) -> Iterator[tuple[str, Array]]:
    """Arrays that a loss can write into: its fields, and what its functions close over, default to or find global."""
    fields = dict(vars(loss)) if hasattr(loss, "__dict__") else {}
    for name, value in list(fields.items()):
        function: Any = getattr(value, "__func__", value)
        owner = getattr(value, "__self__", None)
        fields.update(vars(owner) if hasattr(owner, "__dict__") and not isinstance(owner, type) else {})
        code: Any = getattr(function, "__code__", None)
        if code is None:
            continue
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        fields.update({f"{name}: {free}": cell.cell_contents for free, cell in cells if _is_filled(cell)})
        fields.update({f"{name}: default {i}": each for i, each in enumerate(function.__defaults__ or ())})
        fields.update({used: function.__globals__.get(used) for used in code.co_names})
    return ((name, value) for name, value in fields.items() if isinstance(value, np.ndarray))


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
