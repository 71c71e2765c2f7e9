"""The laws of the further linear solvers can fail: every check kills a mutant and lets the sound ones pass."""

import inspect
from dataclasses import dataclass, replace
from typing import Any

import laws_linear_methods as laws
import mutants_linear_methods as mm
import numpy as np
import pytest

from implicit_grad import (
    GMRES,
    LSMR,
    MINRES,
    BlockCG,
    Jacobi,
    Neumann,
    Nystrom,
    NystromPreconditioner,
    PreconditionedCG,
)
from implicit_grad.testing.matrices import SpdSpec
from implicit_grad.testing.mutants import linear as ml
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec

SPD = (
    SpdSpec(log10_lam=-2, seed=21),
    SpdSpec(size=8, log10_ratio=2, log10_lam=2, seed=22),
    SpdSpec(size=6, rank=2, log10_lam=-6, seed=23),
)
STEEP = tuple(replace(spec, log10_ratio=4) for spec in SPD)
CONVEX = (RidgeSpec(log10_lam=-2, seed=21), SoftmaxSpec(log10_lam=1, seed=22))


def recorded(step_size, steps):
    return Neumann(step_size, steps, record=True)


@dataclass(frozen=True, eq=False)
class Kill:
    """One check, sound subjects that pass it, and a mutant that must not."""

    check: Any
    sound: tuple[Any, ...]
    mutant: Any
    specs: Any = SPD


SMALLEST = (MINRES, GMRES, mm.HandMINRES)
PCG = (PreconditionedCG, mm.HandPCG)
BLOCK = (BlockCG, mm.HandBlock)
SERIES = (recorded, mm.hand_series)
NYSTROM = (Nystrom, mm.hand_nystrom)


def with_jacobi(kind):
    return (kind, Jacobi())


KILLS = [
    Kill(laws.check_law_20, SMALLEST, mm.Galerkin),
    Kill(laws.check_law_20, SMALLEST, mm.Overshooting),
    Kill(laws.check_law_20_indefinite, SMALLEST, mm.ShortSpace),
    Kill(laws.check_law_20_indefinite, SMALLEST, mm.SmallestError),
    Kill(laws.check_law_20_twins, ((MINRES, GMRES),), (MINRES, mm.Galerkin)),
    Kill(laws.check_normal_residuals, (LSMR,), mm.Overshooting),
    Kill(laws.check_law_69_path, SMALLEST, mm.LastQuotient),
    Kill(laws.check_law_15_preconditioned, tuple(map(with_jacobi, PCG)), with_jacobi(mm.PlainAlpha), STEEP),
    Kill(laws.check_law_15_preconditioned, tuple(map(with_jacobi, PCG)), with_jacobi(mm.PlainBeta), STEEP),
    Kill(laws.check_law_17_preconditioned, PCG, mm.AppliedTwice),
    Kill(laws.check_law_17_preconditioned, PCG, mm.PlainBeta),
    Kill(laws.check_preconditioned_transform, PCG, mm.PlainBeta),
    Kill(laws.check_preconditioned_transform, PCG, mm.AppliedTwice),
    Kill(laws.check_preconditioner_scale, (PreconditionedCG,), mm.AbsoluteFloor),
    Kill(laws.check_nystrom_condition, (NystromPreconditioner,), mm.UnscaledFloor),
    Kill(laws.check_block_beats_cg, BLOCK, mm.OneColumn),
    Kill(laws.check_block_of_one, BLOCK, lambda k: mm.HandBlock(k + 1)),
    Kill(laws.check_block_mixing, BLOCK, mm.ColumnByColumn),
    Kill(laws.check_block_mixing, BLOCK, mm.Transposed),
    Kill(laws.check_block_breakdown, (BlockCG,), mm.Singular),
    Kill(laws.check_block_termination, BLOCK, mm.ColumnByColumn),
    Kill(laws.check_law_24, SERIES, mm.unscaled_series),
    Kill(laws.check_law_24, SERIES, mm.late_series),
    Kill(laws.check_law_24, SERIES, mm.damped_series),
    Kill(laws.check_law_24_divergence, (Neumann, mm.hand_series), mm.blind_series),
    Kill(laws.check_law_24_marginal, (Neumann, mm.hand_series), mm.blind_series),
    Kill(laws.check_law_18_neumann, SERIES, mm.ahead),
    Kill(laws.check_law_25, (Neumann, mm.hand_series), mm.one_term_more, CONVEX),
    Kill(laws.check_law_25, (Neumann, mm.hand_series), mm.damped_series, CONVEX),
    Kill(
        laws.check_law_26_neumann,
        (lambda spec: Neumann(float(1 / np.linalg.norm(spec.G(), 2)), 3),),
        mm.normalised_series,
    ),
    Kill(laws.check_law_28, NYSTROM, mm.damped_nystrom),
    Kill(laws.check_law_28, NYSTROM, mm.projected_nystrom),
    Kill(laws.check_law_28, NYSTROM, mm.swollen),
    Kill(laws.check_law_28_exact, NYSTROM, mm.shift_in_the_sketch),
    Kill(laws.check_law_28_exact, NYSTROM, mm.damped_nystrom),
    Kill(laws.check_law_19_nystrom, NYSTROM, mm.negated),
    Kill(laws.check_refinement, (mm.refined,), mm.refined_in_single),
    Kill(laws.check_refinement, (mm.refined,), mm.accumulated_in_single),
    Kill(laws.check_law_21_any, (MINRES, GMRES, LSMR, BlockCG), mm.own_alpha),
    Kill(laws.check_law_23_any, (MINRES, GMRES, LSMR, BlockCG), ml.AlwaysContent),
    Kill(laws.check_law_27_any, (MINRES, GMRES, LSMR, BlockCG), mm.own_alpha),
]


def _name(kill):
    mutant = kill.mutant
    while isinstance(mutant, tuple):
        mutant = mutant[-1] if not isinstance(mutant[-1], Jacobi) else mutant[0]
    mutant = getattr(mutant, "func", mutant)
    return f"{kill.check.__name__}-{getattr(mutant, '__name__', type(mutant).__name__)}"


@pytest.mark.parametrize("kill", KILLS, ids=_name)
def test_sound_subjects_pass(kill):
    for sound in kill.sound:
        for spec in kill.specs:
            kill.check(sound, spec)


@pytest.mark.parametrize("kill", KILLS, ids=_name)
def test_mutant_dies(kill):
    survived = []
    for spec in kill.specs:
        try:
            with np.errstate(all="ignore"):
                kill.check(kill.mutant, spec)
        except AssertionError:
            return
        survived.append(spec)
    pytest.fail(f"survived {survived}")


def test_every_check_kills_a_mutant():
    found = inspect.getmembers(laws, inspect.isfunction)
    checks = {function for name, function in found if name.startswith("check_")}
    idle = checks - {kill.check for kill in KILLS}
    assert not idle, sorted(check.__name__ for check in idle)
