"""Every mutant by name, with what it claims to be; and the sound controls that no law may touch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np

from implicit_grad.estimators import EXACT, ImplicitGradient, MetaGradient
from implicit_grad.implicit import ImplicitFunction
from implicit_grad.inner import GradientDescent, Newton
from implicit_grad.linear import CG, MINRES, Cholesky
from implicit_grad.newton_root import NewtonRoot
from implicit_grad.objectives import LeastSquares, MultilayerPerceptron, SoftmaxCrossEntropy
from implicit_grad.regularized import RegularizedProblem
from implicit_grad.testing.hvp_laws import HVP_LAWS, HvpSubject
from implicit_grad.testing.inner_laws import INNER_LAWS, InnerSubject
from implicit_grad.testing.law import Law
from implicit_grad.testing.linear_laws import LINEAR_LAWS
from implicit_grad.testing.linear_subject import Domain, LinearSubject
from implicit_grad.testing.meta_laws import META_LAWS
from implicit_grad.testing.meta_subject import MetaSubject
from implicit_grad.testing.mutants import gradients, habits, inner, linear, products
from implicit_grad.testing.promises import Budget, Exact, Krylov, Promise, Tolerance
from implicit_grad.verify import CATALOGUE, WrongFormula


class Family(Enum):
    """A suite; the value is its heading."""

    LINEAR = "Linear solvers"
    INNER = "Inner solvers"
    HVP = "Hessian-vector products"
    META = "Meta-gradients"

    @property
    def laws(self) -> tuple[Law, ...]:
        """The laws of the suite."""
        return {
            Family.LINEAR: LINEAR_LAWS,
            Family.INNER: INNER_LAWS,
            Family.HVP: HVP_LAWS,
            Family.META: META_LAWS,
        }[self]


@dataclass(frozen=True, eq=False)
class Mutant:
    """A subject for the laws of its family.

    Attributes
    ----------
    name : str
        Its fault; of a control, what it is.
    family : Family
    subject : object
        What the checks of the family take.
    sound : bool
        Whether it is a control.
    """

    name: str
    family: Family
    subject: Any
    sound: bool = False


_BATCH = ((2,), (2, 1))


def _linear(
    name: str, solver: Any, promise: Promise, *, sound: bool = False, domain: Domain = Domain.UNSAID
) -> Mutant:
    batch = _BATCH if isinstance(solver, (CG, Cholesky)) or solver is habits.first_of_the_batch else ()
    return Mutant(name, Family.LINEAR, LinearSubject(solver, promise, domain=domain, batch_shapes=batch), sound)


def _dense(solve: Callable[[Any, Any], Any]) -> Any:
    return linear.dense_solver(solve)


_DEFINITE = Domain.POSITIVE_DEFINITE
_TOLERANT = Tolerance(1e-10)

LINEAR_MUTANTS: tuple[Mutant, ...] = (
    _linear("numpy.linalg.solve", np.linalg.solve, Exact(), sound=True),
    _linear("Cholesky", Cholesky(), Exact(), sound=True, domain=_DEFINITE),
    _linear("CG to 1e-10", CG(300, 1e-10), _TOLERANT, sound=True, domain=_DEFINITE),
    _linear("CG-4", CG(4), Krylov(4), sound=True, domain=_DEFINITE),
    _linear("CG by hand", linear.HandCG(300, 1e-10), _TOLERANT, sound=True, domain=_DEFINITE),
    _linear("MINRES", MINRES(300, 1e-10), _TOLERANT, sound=True),
    _linear("previous iterate, tolerance", linear.PreviousIterate(300, 1e-10), _TOLERANT),
    _linear("previous iterate", linear.PreviousIterate(4), Krylov(4)),
    _linear("stale residual", linear.StaleResidual(4), Krylov(4)),
    _linear("step size the residual does not hear of", linear.UnscaledUpdate(4), Krylov(4)),
    _linear("twice the step", linear.Overshooting(4), Krylov(4)),
    _linear("steepest descent", linear.SteepestDescent(4), Krylov(4)),
    _linear("absolute tolerance on r·r", linear.AbsoluteTolerance(300, 1e-10), _TOLERANT),
    _linear("recursive residual in float32", linear.RecursiveResidual(300, 1e-10), _TOLERANT),
    _linear("float32 inside", linear.SinglePrecision(300, 1e-10), _TOLERANT),
    _linear("always converged", linear.AlwaysContent(2, 1e-8), Tolerance(1e-8)),
    _linear("zero start on failure", linear.ZeroOnFailure(2, 1e-8), Tolerance(1e-8)),
    _linear("saddle accepted", linear.SaddleAccepting(300, 1e-10), _TOLERANT, domain=_DEFINITE),
    _linear("gives up", habits.gives_up, Tolerance(1e-10)),
    _linear(
        "block-diagonal", _dense(lambda A, b: np.linalg.solve(linear.diagonal_blocks(np.atleast_2d(A)), b)), Exact()
    ),
    _linear("normal equations", _dense(linear.normal_equations), Exact()),
    _linear("rounded to float32", _dense(linear.in_single_precision), Exact()),
    _linear("triangular sweep", _dense(lambda A, b: np.linalg.solve(np.tril(A), b)), Exact()),
    _linear("ridge of 1e-8", _dense(lambda A, b: np.linalg.solve(A + 1e-8 * np.eye(len(b)), b)), Exact()),
    _linear("pseudo-inverse, always converged", _dense(lambda A, b: np.linalg.pinv(A) @ b), Tolerance(1e-6)),
    _linear("b = 0 divides by zero", habits.divides_by_zero, Exact()),
    _linear("no step for one unknown", habits.no_step_for_one, Exact()),
    _linear("no step for 0-d", habits.no_step_for_scalars, Exact()),
    _linear("NaN swallowed", habits.swallows_nan, Exact()),
    _linear("overwrites b", habits.overwrites, Exact()),
    _linear("answers differ", habits.Dithering(), Exact()),
    _linear("negated", _dense(lambda A, b: -np.linalg.solve(A, b)), Exact()),
    _linear("first matrix of a batch", habits.first_of_the_batch, Exact()),
)


def _inner(name: str, solver: Any, promise: Promise, *, sound: bool = False) -> Mutant:
    return Mutant(name, Family.INNER, InnerSubject(solver, promise), sound)


def _descent(problem: Any, theta: Any) -> Any:
    return GradientDescent(float(1 / problem.lam), 6)(problem, theta)


INNER_MUTANTS: tuple[Mutant, ...] = (
    _inner("Newton", Newton(), Tolerance(Newton().rtol), sound=True),
    _inner("gradient descent, 10 steps", GradientDescent(None, 10), Budget(), sound=True),
    _inner("a tenth of the residual reported", inner.flattering, Budget()),
    _inner("always converged", inner.content, Tolerance(1e-12)),
    _inner("steps of 1/λ", _descent, Budget()),
    _inner("unregularised", GradientDescent(None, 300, proximal=False), Exact()),
    _inner("unregularised, residual of L", inner.unregularised_residual, Budget()),
    _inner("missing ½", inner.with_lam(lambda lam: 2 * lam), Exact()),
    _inner("1/λ", inner.with_lam(lambda lam: 1 / lam), Exact()),
    _inner("nearly no λ", inner.with_lam(lambda lam: 1e-4 * lam), Exact()),
    _inner("λ and steps swapped", inner.with_lam(lambda lam: 0 * lam + 5.0), Exact()),
    _inner("wrong sign of λ", habits.pushed_away, Exact()),
    _inner("weight decay", inner.pulled_to_zero, Exact()),
    _inner("one gradient step called the minimum", inner.one_gradient_step, Exact()),
    _inner("plain steps, then one of the regulariser", habits.one_regulariser_step, Exact()),
    _inner("success at a saddle", habits.content_at_a_saddle, Tolerance(1e-6)),
    _inner("moves a stationary θ", habits.restless, Budget()),
    _inner("scaled coordinates forgotten", habits.axis_bound, Exact()),
    _inner("moves θ in place", habits.moves_theta, Exact()),
)


def _data() -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(7)
    return rng.standard_normal((6, 3)), rng.standard_normal(6), rng.integers(3, size=6)


def _sound_product(loss: Any) -> Callable[[Any], Any]:
    return lambda x: loss.linearize(x).hvp


def _hvp(name: str, loss: Any, fault: Callable[[Any, Any], Any] | None = None, **parts: Any) -> Mutant:
    """A product of a loss, or a faulty one; `parts` replace value or gradient."""
    make: Callable[[Any], Any] = _sound_product(loss) if fault is None else partial(fault, loss)
    subject = HvpSubject(
        parts.get("value", loss.value),
        parts.get("gradient", loss.gradient),
        lambda x, v: make(x)(v),
        loss.size,
        convex=not isinstance(loss, MultilayerPerceptron),
    )
    return Mutant(name, Family.HVP, subject, fault is None and not parts)


_X, _Y, _LABELS = _data()
_RIDGE, _SOFTMAX = LeastSquares(_X, _Y), SoftmaxCrossEntropy(_X, _LABELS, 3)
_NETWORK = MultilayerPerceptron(_X, _Y, (3,))

HVP_MUTANTS: tuple[Mutant, ...] = (
    _hvp("least squares", _RIDGE),
    _hvp("softmax", _SOFTMAX),
    _hvp("network", _NETWORK),
    _hvp("rows scaled", _SOFTMAX, products.scaled_rows),
    _hvp("v is scratch space", _SOFTMAX, products.in_place),
    _hvp("one-sided differences", _NETWORK, products.long_difference),
    _hvp("always float64", _RIDGE, habits.rounds_to_half),
    _hvp("Gauss–Newton", _NETWORK, products.gauss_newton),
    _hvp("no −ppᵀ", _SOFTMAX, products.without_coupling),
    _hvp("negated", _SOFTMAX, products.negated),
    _hvp("summed", _SOFTMAX, products.summed),
    _hvp("create_graph off", _SOFTMAX, products.no_graph),
    _hvp("gradient of a sum", _SOFTMAX, gradient=lambda x: len(_X) * _SOFTMAX.gradient(x)),
)


def _meta(name: str, function: Any, promise: Promise | None = None, *, sound: bool = False) -> Mutant:
    return Mutant(name, Family.META, MetaSubject(function, promise or Exact()), sound)


def general(problem: Any, theta: Any) -> Any:
    """∇F of a `BilevelProblem` or a `RegularizedProblem`: the sound control that knows both."""
    if not isinstance(problem, RegularizedProblem):
        return EXACT(problem, theta)
    phi = NewtonRoot(linear_solver=Cholesky())(problem, theta, theta)
    return ImplicitFunction(problem, Cholesky(2)).gradient(phi, theta, problem.outer).unwrap()


@dataclass(frozen=True, eq=False)
class Formula:
    """A wrong formula of the catalogue as a meta-gradient; where it has no meaning, it is right."""

    formula: WrongFormula

    def __call__(self, problem: Any, theta: Any) -> Any:
        """Return the wrong vector, and ∇F where the formula does not apply: a crash would be no kill."""
        try:
            g = self.formula(problem, theta, factor=3.0 if self.formula.scaled else 1.0)
        except (AttributeError, TypeError, ValueError, ArithmeticError):
            return general(problem, theta)
        return np.array(g) if np.all(np.isfinite(g)) else general(problem, theta)


META_MUTANTS: tuple[Mutant, ...] = (
    _meta("EXACT", EXACT, sound=True),
    _meta("EXACT and diagonal Λ", general, sound=True),
    _meta("CG-5", MetaGradient(Newton(), ImplicitGradient(CG(5))), Budget(), sound=True),
    *(_meta(formula.name, Formula(formula)) for formula in CATALOGUE),
    _meta("half the samples in H", habits.half_the_samples),
    _meta("gradient in float32", lambda problem, theta: _rounded(EXACT(problem, theta).gradient)),
    _meta("saddle accepted", gradients.dense(gradients.right)),
    _meta("moves θ in place", habits.gradient_in_place),
    _meta("class 0 for all", habits.drops_a_class, Budget()),
    _meta("first sample only", habits.first_sample, Budget()),
    _meta("weight decay", gradients.dense(gradients.right, inner.pulled_to_zero), Budget()),
)


def _rounded(g: Any) -> Any:
    return g.astype(np.float32).astype(np.float64)


MUTANTS: tuple[Mutant, ...] = (*LINEAR_MUTANTS, *INNER_MUTANTS, *HVP_MUTANTS, *META_MUTANTS)
"""All of them, controls included."""
