"""The laws can fail: every check kills at least one mutant and lets the sound solvers pass."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import laws_estimators as estimators
import laws_hvp as hvps
import laws_inner as inner
import laws_invariances as invariances
import laws_linear as linear
import numpy as np
import pytest

from implicit_grad import (
    CG,
    EXACT,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    MetaGradient,
    Newton,
    ScipyMinimize,
    SoftmaxCrossEntropy,
    UnrolledGradient,
    extreme_eigenvalues,
)
from implicit_grad import BilevelProblem as Problem
from implicit_grad.testing.matrices import SpdSpec
from implicit_grad.testing.mutants import gradients as me
from implicit_grad.testing.mutants import inner as mi
from implicit_grad.testing.mutants import linear as ml
from implicit_grad.testing.mutants import products as mp
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec, Twist

RIDGE = (
    RidgeSpec(log10_lam=-2, seed=21),
    RidgeSpec(size=6, n=3, log10_ratio=3, log10_lam=2, seed=22),
    RidgeSpec(size=4, n=6, log10_ratio=0, spread=3, log10_lam=1, log10_test=1, seed=23),
)
SOFTMAX = (
    SoftmaxSpec(log10_lam=-2, seed=21),
    SoftmaxSpec(features=3, n=2, log10_ratio=3, log10_lam=2, log10_logit=2, seed=22),
)
CONVEX = RIDGE + SOFTMAX
STATIONARY = tuple(type(s)(log10_lam=-2, twist=Twist.THETA_OPTIMAL, seed=24) for s in (RIDGE[0], SOFTMAX[0]))
LARGE_LAM = tuple(replace(s, log10_ratio=-3) for s in CONVEX)
ONE_SAMPLE = (RidgeSpec(n=1, log10_lam=-2, seed=25), RidgeSpec(n=1, size=6, log10_ratio=3, seed=26))
WIDE = (RidgeSpec(n=2, size=5, log10_lam=-2, seed=25), RidgeSpec(n=3, size=6, log10_ratio=3, seed=26))
SPD = (
    SpdSpec(log10_lam=-2, seed=21),
    SpdSpec(size=8, log10_ratio=4, log10_lam=2, seed=22),
    SpdSpec(size=6, rank=2, log10_lam=-6, seed=23),
)
SHARP = (SpdSpec(size=6, spread=5, log10_ratio=5, log10_lam=-1, seed=24),)
NETWORK = (MlpSpec(hidden=(3,), n=6, seed=21), MlpSpec(hidden=(2, 3), n=5, seed=22))
HAND = me.dense(me.right)


def implicit(solver: Any) -> Any:
    """A whole meta-gradient with a linear solver of choice."""
    return MetaGradient(Newton(rtol=1e-13), ImplicitGradient(solver))


def from_inner(solve: Any) -> Any:
    """A whole meta-gradient with an inner solver of choice."""
    return me.dense(me.right, solve)


@dataclass(frozen=True, eq=False)
class Kill:
    """One check, sound subjects that pass it, and a mutant that must not."""

    check: Callable[..., None]
    sound: tuple[Any, ...]
    mutant: Any
    specs: tuple[Any, ...]
    more: tuple[Any, ...] = ()

    def name(self) -> str:
        mutant = self.mutant[1] if isinstance(self.mutant, tuple) else self.mutant
        return f"{self.check.__name__}-{getattr(mutant, '__name__', type(mutant).__name__)}"


def cg(check: Any, mutant: Any, specs: Any, *more: Any) -> Kill:
    """A fault in conjugate gradient."""
    return Kill(check, (CG, ml.HandCG), mutant, specs, more)


def formula(check: Any, mutant: Any, specs: Any, *more: Any) -> Kill:
    """A fault in the formula of g."""
    return Kill(check, (EXACT, HAND), broken(mutant), specs, more)


def composed(check: Any, mutant: Any, specs: Any, *more: Any) -> Kill:
    """A fault in a part that a meta-gradient is composed of."""
    return Kill(check, (EXACT,), mutant, specs, more)


def reverse(check: Any, mutant: Any, specs: Any, *more: Any) -> Kill:
    """A fault in the reverse pass."""
    return Kill(check, (estimators.unroll, me.hand_unroll()), mutant, specs, more)


def inversion(check: Any, mutant: Any, specs: Any) -> Kill:
    """A fault in an exact solve."""
    return Kill(check, (Cholesky(),), mutant, specs)


def product(check: Any, mutant: Any, specs: Any) -> Kill:
    """A fault in a Hessian-vector product."""
    return Kill(check, (hvps.closed_form_product,), mutant, specs)


def named(name: str, mutant: Any) -> Any:
    """Give a composed mutant the name of its fault."""
    mutant.__name__ = name
    return mutant


def broken(formula: Any) -> Any:
    """A dense meta-gradient by a faulty formula of (λ, H, b), or one of the catalogue."""
    return formula if hasattr(formula, "catalogued") else named(formula.__name__, me.dense(formula))


def catalogued(name: str, **settings: Any) -> Any:
    """A wrong formula of the catalogue."""
    call = named(name, me.catalogued(name, **settings))
    call.catalogued = True
    return call


def block_inverse() -> Any:
    """Cholesky without the off-diagonal blocks."""
    return named("block_inverse", ml.dense_solver(lambda A, b: np.linalg.solve(ml.diagonal_blocks(A), b)))


def one_sweep() -> Any:
    """A triangular sweep called exact."""
    return named("one_sweep", ml.dense_solver(lambda A, b: np.linalg.solve(np.tril(A), b)))


SQUARED = named("normal_equations", ml.dense_solver(ml.normal_equations))
ROUNDED = named("in_single_precision", ml.dense_solver(ml.in_single_precision))
HEAVIER = named("missing_half", mi.with_lam(lambda lam: 2 * lam))
INVERTED = named("inverted_lam", mi.with_lam(lambda lam: 1 / lam))
WEAKER = named("nearly_no_lam", mi.with_lam(lambda lam: 1e-4 * lam))
FOMAML = me.hand_unroll(second_order=False)
NO_PATH = named("start_held", me.hand_unroll(start_moves=False))
FIRST_ORDER = MetaGradient(Newton(), FirstOrderGradient())
AT_PHI = (ImplicitGradient(Cholesky()), me.dense_at(me.right))


def broken_at(formula: Any) -> Any:
    """A dense estimator at a given φ by a faulty formula."""
    return named(formula.__name__, me.dense_at(formula))


def one_too_many(window: int | None) -> UnrolledGradient:
    """A window off by one."""
    return UnrolledGradient(None if window is None else window + 1)


def one_too_few(window: int | None) -> UnrolledGradient:
    """A window off by one, the other way."""
    return UnrolledGradient(None if window is None else max(0, window - 1))


KILLS = [
    Kill(inner.check_law_01, (GradientDescent(None, 10),), mi.flattering, CONVEX),
    Kill(inner.check_law_01, (Newton(),), mi.content, SOFTMAX),
    Kill(inner.check_law_01_global, (Newton(),), mi.undamped_newton, SOFTMAX),
    Kill(inner.check_law_02, (Newton(max_steps=0),), mi.one_step_for_none, CONVEX),
    Kill(inner.check_law_02, (GradientDescent(1.0, 0),), mi.double_price, CONVEX),
    Kill(inner.check_law_03, (GradientDescent,), mi.too_long_steps, CONVEX),
    Kill(inner.check_law_04, (GradientDescent,), mi.unregularised, CONVEX),
    Kill(inner.check_law_05, (GradientDescent,), mi.unregularised, RIDGE),
    Kill(inner.check_law_06, (GradientDescent(None, 10),), mi.flattering, CONVEX),
    Kill(inner.check_law_08, (Newton(rtol=1e-13),), mi.pushed_away, RIDGE),
    Kill(inner.check_law_09, (Newton(rtol=1e-13),), INVERTED, CONVEX),
    Kill(inner.check_law_10, (Newton(rtol=1e-13),), WEAKER, CONVEX),
    Kill(inner.check_law_11, (Newton(rtol=1e-13),), HEAVIER, RIDGE),
    Kill(inner.check_law_07, ((Newton(), GradientDescent(None, 5)),), (Newton(), mi.unregularised_residual), RIDGE),
    Kill(inner.check_law_12, (Newton(max_steps=1),), mi.one_gradient_step, RIDGE),
    Kill(inner.check_law_12_fixed_point, (GradientDescent(None, 2),), mi.restarting, CONVEX),
    inversion(linear.check_law_13, ROUNDED, SPD),
    inversion(linear.check_law_13, SQUARED, SHARP),
    inversion(linear.check_law_13, block_inverse(), SPD),
    cg(linear.check_law_14, ml.StaleResidual, SPD),
    cg(linear.check_law_15, ml.SteepestDescent, SPD),
    cg(linear.check_law_15, ml.UnscaledUpdate, SPD),
    cg(linear.check_law_16, ml.Overshooting, SPD),
    cg(linear.check_law_17, ml.PreviousIterate, SPD),
    cg(linear.check_law_17, ml.StaleResidual, SPD),
    cg(linear.check_law_18, ml.PreviousIterate, SPD),
    cg(linear.check_law_18, ml.SteepestDescent, SPD),
    cg(linear.check_law_19, ml.Overshooting, SPD),
    cg(linear.check_law_21, ml.AbsoluteTolerance, SPD),
    cg(linear.check_law_22, ml.PreviousIterate, SPD),
    cg(linear.check_law_22, ml.SinglePrecision, SPD),
    cg(linear.check_law_23, ml.AlwaysContent, SPD),
    inversion(linear.check_law_26, one_sweep(), SPD),
    cg(linear.check_law_27, ml.Tireless, SPD),
    inversion(linear.check_law_29, block_inverse(), WIDE),
    cg(linear.check_law_30, ml.RecursiveResidual, SPD),
    cg(linear.check_law_31, ml.Overshooting, SPD),
    cg(linear.check_law_32, ml.RecursiveResidual, SPD, 1e-8, 30),
    cg(linear.check_law_32, ml.AlwaysContent, SPD, 1e-8, 2),
    cg(linear.check_law_32, ml.ZeroOnFailure, SPD, 1e-8, 2),
    cg(linear.check_scale, ml.AbsoluteTolerance, SPD, -40),
    Kill(linear.check_indefinite, (CG(30), ml.HandCG(30)), ml.SaddleAccepting(30), SPD),
    inversion(linear.check_indefinite, ROUNDED, SPD),
    Kill(linear.check_law_69, (extreme_eigenvalues,), mp.padded_ritz, SPD),
    formula(estimators.check_closed_form, me.damped_once, CONVEX),
    formula(estimators.check_closed_form, catalogued("damped λ", number=10.0), CONVEX),
    formula(estimators.check_closed_form, me.train_on_the_right, CONVEX),
    formula(estimators.check_closed_form, catalogued("θ for φ in H"), SOFTMAX),
    formula(estimators.check_closed_form, catalogued("2λ in the system"), CONVEX),
    formula(estimators.check_closed_form, catalogued("constant for λ in the system", number=5.0), CONVEX),
    formula(estimators.check_closed_form, catalogued("diagonal inverse"), CONVEX),
    composed(estimators.check_closed_form, implicit(ROUNDED), CONVEX),
    composed(estimators.check_closed_form, implicit(ml.PreviousIterate(30, 1e-15)), CONVEX),
    composed(estimators.check_closed_form, from_inner(mi.unregularised_residual), CONVEX),
    Kill(estimators.check_law_25, (UnrolledGradient,), one_too_many, CONVEX),
    Kill(estimators.check_truncation, (UnrolledGradient,), one_too_few, CONVEX),
    formula(estimators.check_law_33, catalogued("wrong sign"), LARGE_LAM),
    formula(estimators.check_law_33, me.damped_once, LARGE_LAM),
    formula(estimators.check_law_34, me.damped_once, RIDGE),
    Kill(estimators.check_law_35, ((EXACT, FIRST_ORDER),), (EXACT, EXACT), CONVEX),
    formula(estimators.check_law_35_flat, me.damped_once, RIDGE),
    reverse(estimators.check_law_36, FOMAML, CONVEX),
    reverse(estimators.check_law_37, NO_PATH, RIDGE),
    reverse(estimators.check_law_38, FOMAML, CONVEX),
    reverse(estimators.check_law_39, NO_PATH, STATIONARY),
    formula(estimators.check_law_47, catalogued("diagonal inverse"), ONE_SAMPLE),
    formula(estimators.check_law_48, catalogued("wrong sign"), CONVEX),
    formula(estimators.check_law_49, catalogued("2λ in the system"), CONVEX),
    formula(estimators.check_law_50, catalogued("θ for φ in H"), SOFTMAX),
    formula(estimators.check_law_50, catalogued("damped λ", number=10.0), CONVEX),
    formula(estimators.check_law_50_differences, me.train_on_the_right, RIDGE),
    formula(estimators.check_law_50_network, catalogued("θ for φ in H"), NETWORK),
    Kill(estimators.check_law_51, AT_PHI, broken_at(me.train_on_the_right), RIDGE),
    Kill(estimators.check_law_51_bound, AT_PHI, broken_at(me.damped_once), CONVEX),
    Kill(estimators.check_saddle, AT_PHI[:1], broken_at(me.right), NETWORK),
    composed(invariances.check_law_40, implicit(CG(2)), RIDGE),
    composed(invariances.check_law_40_constants, from_inner(ScipyMinimize()), CONVEX),
    formula(invariances.check_law_41, catalogued("damped λ", number=10.0), CONVEX, 4),
    reverse(invariances.check_law_41_unrolled, me.hand_unroll(pull=1.0), CONVEX, 4),
    formula(invariances.check_law_42, catalogued("diagonal inverse"), CONVEX),
    formula(invariances.check_law_42_units, me.split_in_halves, NETWORK),
    composed(invariances.check_law_43, from_inner(mi.pulled_to_zero), SOFTMAX),
    formula(invariances.check_law_44_classes, catalogued("block-diagonal inverse"), SOFTMAX),
    formula(invariances.check_law_44_samples, me.first_samples, CONVEX),
    formula(invariances.check_law_45, catalogued("H of a sum"), CONVEX),
    composed(invariances.check_law_46, from_inner(mi.pulled_to_zero), RIDGE),
    composed(invariances.check_law_52, me.average_lam, CONVEX),
    product(hvps.check_law_53, mp.scaled_rows, CONVEX),
    product(hvps.check_law_54, mp.in_place, CONVEX),
    product(hvps.check_law_54, mp.long_difference, NETWORK),
    product(hvps.check_law_54_dtype, mp.always_double, RIDGE),
    product(hvps.check_law_55, mp.gauss_newton, NETWORK),
    product(hvps.check_law_55_differences, mp.long_difference, NETWORK),
    product(hvps.check_law_56, mp.without_coupling, SOFTMAX),
    product(hvps.check_law_56_modes, mp.gauss_newton, NETWORK),
    product(hvps.check_law_57, mp.negated, CONVEX),
    Kill(hvps.check_law_57_proximal, (Problem.curvature,), mp.doubled_lam, CONVEX),
    product(hvps.check_law_58, mp.summed, CONVEX),
    product(hvps.check_law_58_homogeneous, mp.no_graph, ((3, 21, 4),)),
    Kill(hvps.check_law_62, (SoftmaxCrossEntropy,), mp.NaiveSoftmax, SOFTMAX),
]


@pytest.mark.parametrize("kill", KILLS, ids=Kill.name)
def test_sound_subjects_pass(kill):
    for sound in kill.sound:
        for spec in kill.specs:
            kill.check(sound, spec, *kill.more)


@pytest.mark.parametrize("kill", KILLS, ids=Kill.name)
def test_mutant_dies(kill):
    survived = []
    for spec in kill.specs:
        try:
            with np.errstate(all="ignore"):
                kill.check(kill.mutant, spec, *kill.more)
        except AssertionError:
            return
        survived.append(spec)
    pytest.fail(f"survived {survived}")


def test_every_check_kills_a_mutant():
    checks = {
        function
        for module in (inner, linear, estimators, invariances, hvps)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if name.startswith("check_")
    }
    idle = checks - {kill.check for kill in KILLS}
    assert not idle, sorted(check.__name__ for check in idle)
