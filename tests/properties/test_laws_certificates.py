"""Laws (f): no error bar is crossed, none is loose at the end, all scale; and each law can fail."""

from dataclasses import replace
from functools import partial

import laws_certificates as laws
import numpy as np
import pytest
from hypothesis import given, settings

from implicit_grad import certify
from implicit_grad.testing.problems import RidgeSpec, SoftmaxSpec
from implicit_grad.testing.strategies import CONVEX_EDGES, convex_specs, with_edges

CERTIFIERS = {
    "at φ": partial(certify, gradient_steps=0),
    "ahead": certify,
    "shifted": partial(certify, newton_steps=2, two_sided=False),
    "enclosure": partial(certify, newton_steps=4),
}
EXAMPLES = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("name", CERTIFIERS)
@EXAMPLES
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_64_65_bounds_hold(name, spec):
    laws.check_bound(CERTIFIERS[name], spec)


@EXAMPLES
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_66_linear_down_to_rounding(spec):
    laws.check_floor(certify, spec)


@pytest.mark.parametrize("steps", [None, 3])
@EXAMPLES
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_67_scales(steps, spec):
    laws.check_scaling(partial(certify, gradient_steps=steps), spec)


@EXAMPLES
@with_edges(*CONVEX_EDGES)
@given(spec=convex_specs())
def test_law_67_invariances(spec):
    laws.check_invariance(certify, spec)


@pytest.mark.parametrize("seed", range(21, 27))
def test_law_68_wrong_constants_are_crossed(seed):
    laws.check_power(certify, seed)


@pytest.mark.parametrize("name", ["m", "beta", "rho", "concordance"])
def test_a_certificate_that_hides_slack_dies_of_law_68(name):
    """One that makes a constant safer than it was told could hide a wrong one."""

    def generous(*arguments, constants, **options):
        value = getattr(constants, name)
        safer = value if value is None else (value / 1.2 if name == "m" else value * 1.2)
        return certify(*arguments, constants=replace(constants, **{name: safer}), **options)

    with pytest.raises(AssertionError, match="law 68"):
        laws.check_power(generous, 21)


def altered(**changes):
    """A `certify` whose certificate has some fields replaced by functions of it."""

    def mutant(*arguments, **options):
        found = certify(*arguments, **options)
        return replace(found, **{name: change(found) for name, change in changes.items()})

    return mutant


SPECS = (
    RidgeSpec(seed=21),
    RidgeSpec(size=6, n=8, log10_ratio=2, seed=22),
    SoftmaxSpec(seed=21),
    SoftmaxSpec(features=3, n=6, log10_ratio=1, seed=23),
)
MUTANTS = [
    (laws.check_bound, altered(bound=lambda c: c.linear_share + c.rounding_share), "forgets the inner solve"),
    (laws.check_bound, altered(bound=lambda c: c.inner_share + c.rounding_share), "forgets the linear solve"),
    (laws.check_bound, altered(lower=lambda c: c.bound), "lower = upper"),
    (laws.check_bound, altered(bound=lambda c: 0.1 * c.bound), "a tenth"),
    (laws.check_floor, altered(bound=lambda c: c.bound + 1e-3 * np.linalg.norm(c.gradient)), "never falls"),
    (laws.check_floor, altered(bound=lambda c: c.bound + c.bound**0.5), "falls like a root"),
    (laws.check_scaling, altered(bound=lambda c: c.bound**2), "squares"),
    (laws.check_invariance, altered(bound=lambda c: c.bound * (1 + abs(c.gradient[..., 0]))), "looks at one entry"),
    (laws.check_scaling, altered(linear_share=lambda c: c.linear_share / np.linalg.norm(c.gradient)), "relative"),
]


@pytest.mark.parametrize(("check", "mutant", "name"), MUTANTS, ids=[name for _, _, name in MUTANTS])
def test_mutants_die(check, mutant, name):
    survived = 0
    for spec in SPECS:
        check(certify, spec)
        try:
            check(mutant, spec)
        except AssertionError:
            continue
        survived += 1
    assert survived < len(SPECS), f"no law sees a certificate that {name}"
