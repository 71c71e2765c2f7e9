"""The laws of the further methods can fail: every check kills a mutant and lets the sound method pass."""

import inspect
from dataclasses import dataclass
from typing import Any

import laws_first_order as first_order
import laws_methods as laws
import mutants_methods as mm
import numpy as np
import pytest

from implicit_grad import (
    CG,
    LBFGS,
    Adam,
    Cholesky,
    DiagonalGradient,
    FiniteDifferenceGradient,
    GaussNewtonGradient,
    GradientStep,
    HeavyBall,
    IdentityGradient,
    Nesterov,
    Newton,
    NewtonCG,
    NewtonStep,
    OneStepGradient,
    ReptileDirection,
    SuperEfficientGradient,
)
from implicit_grad.testing.problems import MlpSpec, RidgeSpec, SoftmaxSpec

RIDGE = (
    RidgeSpec(log10_lam=-2, seed=21),
    RidgeSpec(size=6, n=3, log10_ratio=3, log10_lam=2, seed=22),
    RidgeSpec(size=4, n=6, log10_ratio=0, spread=3, log10_lam=1, log10_test=1, seed=23),
)
SOFTMAX = (
    SoftmaxSpec(log10_lam=-2, seed=21),
    SoftmaxSpec(features=3, n=4, log10_ratio=2, log10_lam=2, seed=22),
)
CONVEX = RIDGE + SOFTMAX
STEEP = (RidgeSpec(size=5, n=8, log10_ratio=2, spread=2, log10_lam=-1, seed=24),)
NETWORK = (MlpSpec(hidden=(3,), n=6, seed=21), MlpSpec(hidden=(2, 3), n=5, classes=3, seed=22))
FLOOR = Newton(rtol=1e-15)
CORRECTED = SuperEfficientGradient()
NEWTON_STEP = OneStepGradient(NewtonStep())


def diagonal_of(H):
    return np.diag(np.diag(H))


def gradient_step(alpha):
    return OneStepGradient(GradientStep(alpha))


def differences(h):
    return FiniteDifferenceGradient(FLOOR, h)


@dataclass(frozen=True, eq=False)
class Kill:
    """One check, a sound subject that passes it, and a mutant that must not."""

    check: Any
    sound: Any
    mutant: Any
    specs: Any
    more: tuple[Any, ...] = ()


KILLS = [
    Kill(laws.check_contrastive_closed_form, mm.contrastive, mm.one_sided_for_two, RIDGE),
    Kill(laws.check_contrastive_closed_form, mm.contrastive, mm.half_span, RIDGE),
    Kill(laws.check_contrastive_closed_form, mm.contrastive, mm.pushed, RIDGE),
    Kill(laws.check_contrastive_linear, mm.contrastive, mm.unscaled, RIDGE),
    Kill(laws.check_contrastive_bound, mm.contrastive, mm.unscaled, CONVEX),
    Kill(laws.check_contrastive_loudness, mm.contrastive, mm.fixed_strength, CONVEX),
    Kill(laws.check_corrected_exact, CORRECTED, mm.uncorrected, RIDGE),
    Kill(laws.check_corrected_exact, NEWTON_STEP, mm.backwards, RIDGE),
    Kill(laws.check_super_efficient, CORRECTED, mm.uncorrected, SOFTMAX),
    Kill(laws.check_super_efficient, CORRECTED, mm.half_corrected, SOFTMAX),
    Kill(laws.check_super_efficient_residual, CORRECTED, mm.old_residual, CONVEX),
    Kill(laws.check_one_gradient_step, gradient_step, mm.no_lam, CONVEX),
    Kill(laws.check_one_gradient_step, gradient_step, mm.before_the_step, CONVEX),
    Kill(laws.check_one_newton_step, NEWTON_STEP, CORRECTED, SOFTMAX),
    Kill(laws.check_differences, differences(None), mm.never_refusing(1e-18), CONVEX),
    Kill(laws.check_differences_exact, differences, mm.forward_differences, RIDGE),
    Kill(laws.check_differences_noise, differences, mm.never_refusing, CONVEX),
    Kill(laws.check_moreau, ReptileDirection, mm.wrong_way, CONVEX),
    Kill(laws.check_moreau, ReptileDirection, mm.unscaled_direction, CONVEX),
    Kill(laws.check_gauss_newton, GaussNewtonGradient(Cholesky(2)), mm.whole_hessian, NETWORK),
    Kill(laws.check_gauss_newton, GaussNewtonGradient(CG(60)), GaussNewtonGradient(CG(2)), NETWORK),
    Kill(laws.check_implicit_gap, DiagonalGradient(), mm.uncorrected, CONVEX, (diagonal_of,)),
    Kill(laws.check_implicit_gap, DiagonalGradient(), IdentityGradient(1.0), CONVEX, (diagonal_of,)),
    Kill(laws.check_richardson, mm.extrapolated, mm.wrong_order, RIDGE),
    Kill(laws.check_richardson, mm.extrapolated, mm.not_extrapolated, RIDGE),
    Kill(first_order.check_momentum_path, Nesterov, HeavyBall, RIDGE, (True,)),
    Kill(first_order.check_momentum_path, HeavyBall, Nesterov, RIDGE, (False,)),
    Kill(first_order.check_momentum_path, Nesterov, mm.without_pull, RIDGE, (True,)),
    Kill(first_order.check_nesterov_rate, Nesterov, mm.without_momentum, STEEP),
    Kill(first_order.check_heavy_ball_rate, HeavyBall, mm.without_momentum, RIDGE),
    Kill(first_order.check_scaling, LBFGS(5), Nesterov(1e-3, 5), CONVEX, (8.0,)),
    Kill(first_order.check_scaling, NewtonCG(5), Adam(0.1, 5, epsilon=1.0), CONVEX, (8.0,)),
    Kill(first_order.check_global, LBFGS(500, rtol=1e-9), mm.content(LBFGS(3, rtol=1e-9)), CONVEX),
    Kill(first_order.check_tolerance, mm.tolerant, mm.always_converged, CONVEX),
]


def _name(kill):
    return f"{kill.check.__name__}-{getattr(kill.mutant, '__name__', type(kill.mutant).__name__)}"


@pytest.mark.parametrize("kill", KILLS, ids=_name)
def test_sound_subjects_pass(kill):
    for spec in kill.specs:
        kill.check(kill.sound, spec, *kill.more)


@pytest.mark.parametrize("kill", KILLS, ids=_name)
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
    found = [each for module in (laws, first_order) for each in inspect.getmembers(module, inspect.isfunction)]
    checks = {function for name, function in found if name.startswith("check_")}
    idle = checks - {kill.check for kill in KILLS}
    assert not idle, sorted(check.__name__ for check in idle)
