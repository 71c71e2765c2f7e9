"""The entry: compare a candidate with ∇F at several θ, and say why it is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from implicit_grad import border
from implicit_grad.backend import Array, namespace
from implicit_grad.check import Finding, check_problem
from implicit_grad.errors import ArgumentError, ArgumentTypeError
from implicit_grad.inner import InnerSolver
from implicit_grad.objectives.autodiff import flatten, is_tree
from implicit_grad.problem import BilevelProblem
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.verify._candidate import Answer, Candidate, Fault, Observation
from implicit_grad.verify._diagnosis import Diagnosis, diagnose
from implicit_grad.verify._evidence import comparisons, samples, single_precision, unconverged
from implicit_grad.verify._report import Point, Report, Verdict
from implicit_grad.verify._right import RightAnswer, in_double, other_minima, right_answer
from implicit_grad.verify._scene import Scene

_WORTH = 0.01
"""A pass that may be off by more than this share of ‖∇F‖ would be worth nothing, unless it was asked for."""

_DRAWN = 3
_DOUBLE = float(np.finfo(np.float64).eps)


def verify(
    candidate: Any,
    problem: Any,
    thetas: Any = None,
    *,
    rtol: float | None = None,
    solver: InnerSolver | None = None,
    without: tuple[str, ...] = (),
    diagnosis: bool = True,
    seed: int = 77,
) -> Report:
    r"""Compare somebody's meta-gradient with ∇F(θ): right, wrong or cannot tell, how wrong, and why.

    ∇F comes from independent oracles (see `agree`): dense solves, contrastive differences, finite differences through
    converged inner solves, complex steps, the unrolled limit and, for the shipped losses, ball arithmetic. Where two
    of them disagree, or fewer than two can tell anything, the verdict is `INCONCLUSIVE`.

    With r the sharpest oracle's resolution and e = ‖candidate − ∇F‖, the worst of two calls,

    ================  ======================================  =================================
    ..                passes where                            fails where
    ================  ======================================  =================================
    ``rtol=None``     e ≤ r + E, and e + r ≤ 0.01 ‖∇F‖        e > r + W
    ``rtol=1e-6``     e + r ≤ 1e-6 ‖∇F‖                       e − r > 1e-6 ‖∇F‖
    ================  ======================================  =================================

    W is what rounding may do to a sound method in the worst case, in the precision that the candidate computes in:
    8(d + n)·eps times all terms that cancel, amplified by λ/m as in `certify`; E = W/√(d + n) is what it usually
    does. In between the verdict is `INCONCLUSIVE`. A sound method that stops at a tolerance of its own is off by more
    than rounding: pass the `rtol` that is good enough for you.

    Parameters
    ----------
    candidate : callable
        `theta -> gradient` if it has one required argument, `(problem, theta) -> gradient` if it has two: NumPy
        arrays, or an `Estimate`; a `MetaGradient` will do. It gets copies, twice each θ, and some θ of ours.
    problem : BilevelProblem, or RegularizedProblem with a quadratic regulariser
        One problem, without batch axes. float32 data are taken as the exact numbers they are.
    thetas : (d,) or (k, d) array, list of them, or parameter tree(s) as dicts, optional
        Where to compare; default: three draws from a normal distribution, where the losses know d.
    rtol : float, optional
        Relative error that is good enough.
    solver : InnerSolver, optional
        Finds the minimum that ∇F is taken at, where there are several; default: L-BFGS from θ, polished by Newton.
    without : tuple of str
        Oracles to leave out.
    diagnosis : bool
        Whether a failure is explained. That calls the candidate at a few more θ and, if it takes the problem, at two
        more λ: without those, formulas that agree at one λ cannot be told apart. Seconds for the shipped losses, up
        to a minute for `Autodiff` losses that do not broadcast.
    seed : int
        Of θ that are drawn.

    Returns
    -------
    Report
        `report.verdict` is a `Verdict`; `str(report)` is a page, `report.to_html()` another.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For a problem or θ that do not fit. What is wrong with the candidate is never an exception.

    Examples
    --------
    >>> from implicit_grad import LeastSquares
    >>> rng = np.random.default_rng(5)
    >>> X, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    >>> problem = BilevelProblem(LeastSquares(X[:10], y[:10]), LeastSquares(X[10:], y[10:]), lam=0.5)
    >>> def meta_gradient(problem, theta):
    ...     H, lam, eye = X[:10].T @ X[:10] / 10, problem.lam, np.eye(3)
    ...     phi = np.linalg.solve(H + lam * eye, X[:10].T @ y[:10] / 10 + lam * theta)
    ...     return np.linalg.solve(2 * eye + H / lam, X[10:].T @ (X[10:] @ phi - y[10:]) / 10)
    >>> report = verify(meta_gradient, problem)
    >>> report.verdict, report.diagnosis.names, report.diagnosis.confident
    (Verdict.FAIL, ('2I + H/λ',), True)
    """
    if not isinstance(problem, BilevelProblem | RegularizedProblem):
        raise ArgumentTypeError(f"problem: expected a BilevelProblem, got {type(problem).__name__}")
    if rtol is not None:
        border.positive_float("rtol", border.tolerance("rtol", rtol))
    border.flag("diagnosis", diagnosis)
    border.count("seed", seed)
    places, unflatten = _places(problem, thetas, seed)
    asked = Candidate.of(candidate, unflatten)
    given, flat = problem, problem
    if unflatten is not None:
        if not isinstance(problem, BilevelProblem):
            raise ArgumentTypeError("problem: parameter trees need a BilevelProblem")
        flat = problem.on_tree(unflatten)
    for theta in places:
        BilevelProblem(flat.inner, flat.outer, 1.0).parameters(theta, "thetas")
    work = _Work(asked, given, in_double(flat), rtol, solver, without, _blocks(thetas))
    answers = [asked.ask(given, theta, i) for i, theta in enumerate(places)]
    points = [work.point(theta, answer) for theta, answer in zip(places, answers, strict=True)]
    points, notes = work.elsewhere(points, answers)
    seen = [each for answer in answers for each in answer.observations]
    seen += comparisons(asked, given, points, answers)
    why: Diagnosis | None = None
    if diagnosis and all(answer.usable for answer in answers):
        seen, why = work.explain(points, answers, seen, seed)
    points = [_condemned(p, i, seen) for i, p in enumerate(points)]
    verdict = _overall(points, seen)
    findings: tuple[Finding, ...] = ()
    if verdict is not Verdict.PASS:
        plain = BilevelProblem(work.problem.inner, work.problem.outer, 1.0)
        findings = check_problem(plain, points[0].theta).findings
    return Report(asked.name, verdict, tuple(points), tuple(seen), why, findings, rtol, notes)


def assert_meta_gradient(candidate: Any, problem: Any, thetas: Any = None, **settings: Any) -> None:
    """Raise with the whole report unless the candidate passes: for tests.

    Parameters
    ----------
    candidate, problem, thetas, **settings
        As for `verify`.

    Raises
    ------
    AssertionError
        Where the verdict is `FAIL` or `INCONCLUSIVE`.

    Examples
    --------
    >>> from implicit_grad import EXACT, LeastSquares
    >>> eye = LeastSquares(np.eye(2), np.ones(2))
    >>> assert_meta_gradient(EXACT, BilevelProblem(eye, eye, 0.5), np.array([0.3, 2.0]))
    """
    __tracebackhide__ = True
    report = verify(candidate, problem, thetas, **settings)
    if report.verdict is not Verdict.PASS:
        raise AssertionError(f"\n{report}")


@dataclass(frozen=True, eq=False)
class _Work:
    """One call of `verify`."""

    candidate: Candidate
    given: Any
    problem: Any
    rtol: float | None
    solver: InnerSolver | None
    without: tuple[str, ...]
    blocks: tuple[int, ...] | None

    def scene(self, theta: Array) -> Scene:
        """The problem at θ, in float64."""
        return Scene.of(self.problem, theta, blocks=self.blocks)

    def point(self, theta: Array, answer: Answer) -> Point:
        """Compare at one θ."""
        right = right_answer(self.scene(theta), self.solver, self.without)
        return judged(right, answer, self.rtol)

    def elsewhere(self, points: list[Point], answers: list[Answer]) -> tuple[list[Point], tuple[str, ...]]:
        """Where the inner problem may have several minima, look for one at which the candidate is right."""
        notes = []
        convex = hasattr(self.problem.inner, "strong_convexity")
        for i, (point, answer) in enumerate(zip(points, answers, strict=True)):
            if point.verdict is not Verdict.FAIL or convex or not (point.right.known and answer.usable):
                continue
            for right in other_minima(point.right):
                other = judged(right, answer, self.rtol)
                if other.verdict is Verdict.PASS:
                    points = [*points[:i], other, *points[i + 1 :]]
                    notes.append(f"θ {i}: right at another minimum of the inner problem than L-BFGS finds from θ")
                    break
            else:
                break  # wrong at one θ whatever the minimum: that settles it
        return points, tuple(notes)

    def explain(
        self, points: list[Point], answers: list[Answer], seen: list[Observation], seed: int
    ) -> tuple[list[Observation], Diagnosis | None]:
        """Fit the catalogue, at the θ that were asked for and at some of ours."""
        known = [(p, a) for p, a in zip(points, answers, strict=True) if p.right.known]
        if not known or not any(p.verdict is Verdict.FAIL for p, _ in known):
            return seen, None
        found, elsewhere = samples(self.candidate, self.given, self.problem, known, self.blocks, seed)
        if len(found) < 2:
            return seen, None
        if single_precision(found):
            seen = [*seen, Observation(Fault.SINGLE_PRECISION, "at every θ, as float64")]
        why = diagnose(found, elsewhere)
        if not why.causes and unconverged(self.candidate, self.given, found[0]):
            seen = [*seen, Observation(Fault.UNCONVERGED, "compared at a stationary point of the train loss")]
        return seen, why


def judged(right: RightAnswer, answer: Answer, rtol: float | None) -> Point:
    """Compare an answer with the right one."""
    theta = right.scene.theta
    if not answer.gradients:
        reason = answer.observations[0].fault.value if answer.observations else "no gradient"
        nothing = np.full_like(right.gradient, np.nan)
        return Point(theta, nothing, right, np.nan, np.nan, np.nan, Verdict.FAIL, reason)
    with np.errstate(all="ignore"):
        errors = [float(np.linalg.norm(g - right.gradient)) for g in answer.gradients]
    worst = int(np.argmax(errors))
    error, g, r = errors[worst], answer.gradients[worst], right.resolution
    if not right.known:
        return Point(theta, g, right, np.nan, np.nan, np.nan, Verdict.INCONCLUSIVE, right.reason)
    if rtol is None:
        coarser = answer.epsilon / _DOUBLE
        allowed, refused = r + coarser * right.expected, r + coarser * right.worst
        worth = error + r <= _WORTH * right.size or error == right.size == 0
    else:
        allowed, refused, worth = rtol * right.size - r, rtol * right.size + r, True
    verdict = Verdict.INCONCLUSIVE
    if not error <= refused:
        verdict = Verdict.FAIL
    elif error <= allowed and worth:
        verdict = Verdict.PASS
    point = Point(theta, g, right, error, max(allowed, 0.0), refused, verdict)
    return replace(point, reason=_sentence(point, worth))


def _sentence(point: Point, worth: bool) -> str:
    if not np.isfinite(point.error):
        return "NaN or infinity where ∇F is finite"
    off = f"off by {point.relative_error:.1e} of ‖∇F‖"
    if point.verdict is Verdict.PASS:
        return f"{off}, where {point.allowed / max(point.right.size, 5e-324):.1e} is allowed"
    if point.verdict is Verdict.FAIL:
        return f"{off}, more than the {point.refused / max(point.right.size, 5e-324):.1e} that could be explained"
    if not worth:
        return f"{off}; rounding could explain it, and more than a hundredth of ‖∇F‖ is no pass"
    return f"{off}: more than rounding usually leaves, and not more than it may leave"


def _condemned(point: Point, index: int, seen: list[Observation]) -> Point:
    """Fail a point at which the candidate did what no gradient may do."""
    fatal = [each for each in seen if each.fault.fatal and each.point in (index, None)]
    if not fatal or point.verdict is Verdict.FAIL:
        return point
    return replace(point, verdict=Verdict.FAIL, reason=str(fatal[0]))


def _overall(points: list[Point], seen: list[Observation]) -> Verdict:
    verdicts = {point.verdict for point in points}
    if Verdict.FAIL in verdicts or any(each.fault.fatal for each in seen):
        return Verdict.FAIL
    return Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in verdicts else Verdict.PASS


def _places(problem: Any, thetas: Any, seed: int) -> tuple[list[Array], Any]:
    """θ as vectors, and how to rebuild the tree they came as."""
    unflatten = None
    if thetas is None:
        size = getattr(problem.inner, "size", None) or getattr(problem.outer, "size", None)
        if size is None:
            raise ArgumentError("thetas: these losses do not know how many parameters they have; pass one or more θ")
        dtype = getattr(problem.inner, "dtype", None) or np.float64
        return list(np.random.default_rng(seed).standard_normal((_DRAWN, size)).astype(dtype)), None
    listed = thetas if isinstance(thetas, list | tuple) and thetas and is_tree(thetas) else [thetas]
    if isinstance(thetas, np.ndarray) and thetas.ndim == 2:
        listed = list(thetas)
    places = []
    for each in listed:
        if is_tree(each):
            each, unflatten = flatten(each)
        place = border.vector("thetas", each)
        if place.ndim != 1 or namespace(place) is not np:
            raise ArgumentError(f"thetas: expected NumPy arrays (d,) or (k, d), got shape {tuple(place.shape)}")
        places.append(place)
    if len({place.size for place in places}) != 1:
        raise ArgumentError(f"thetas: expected arrays of one length, got {sorted({p.size for p in places})}")
    return places, unflatten


def _blocks(thetas: Any) -> tuple[int, ...] | None:
    """Lengths of the arrays of a parameter tree."""
    tree = thetas[0] if isinstance(thetas, list | tuple) and thetas else thetas
    if not isinstance(tree, dict) or any(isinstance(leaf, dict | list | tuple) for leaf in tree.values()):
        return None
    return tuple(int(np.size(tree[key])) for key in sorted(tree))
