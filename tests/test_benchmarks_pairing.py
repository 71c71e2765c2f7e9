"""Ratios of paired times, and how far apart two results are."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pairing import TOLERANCE, Ratio, disagreement, ratio

EPS = np.finfo(float).eps
seconds = st.floats(1e-6, 1e3)
turns = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=15)


class TestRatio:
    @given(turns)
    def test_lies_between_its_ends_and_inverts(self, pairs):
        ours, theirs = zip(*pairs, strict=True)
        there, back = ratio(ours, theirs), ratio(theirs, ours)
        assert there.low <= there.median <= there.high
        assert there.low * back.high == pytest.approx(1, rel=4 * EPS)
        assert there.high * back.low == pytest.approx(1, rel=4 * EPS)

    @given(turns, st.sampled_from([0.25, 2.0, 8.0]))
    def test_scales_with_our_time(self, pairs, factor):
        ours, theirs = zip(*pairs, strict=True)
        once, scaled = ratio(ours, theirs), ratio([factor * each for each in ours], theirs)
        assert scaled == Ratio(factor * once.median, factor * once.low, factor * once.high)

    def test_pairs_turns_of_the_same_round(self):
        # A machine that slows down threefold in the second round leaves the ratios alone; medians of times would not.
        assert ratio([1.0, 3.0, 1.0], [2.0, 6.0, 2.0]) == Ratio(0.5, 0.5, 0.5)

    @pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
    def test_refuses_turns_that_are_not_paired(self, ours, theirs):
        with pytest.raises(ValueError, match="paired"):
            ratio(ours, theirs)


class TestDisagreement:
    @given(st.integers(0, 2**32 - 1), st.floats(1e-14, 1e3))
    def test_is_the_relative_distance_of_the_worst_problem(self, seed, size):
        rng = np.random.default_rng(seed)
        reference = rng.standard_normal((4, 7)) * np.array([1e-8, 1.0, 30.0, 1e8])[:, None]
        moved = reference.copy()
        step = rng.standard_normal(7)
        moved[0] += size * np.linalg.norm(reference[0]) * step / np.linalg.norm(step)
        # Adding and taking away rounds at the size of the larger of the two.
        assert disagreement(moved, reference) == pytest.approx(size, rel=8 * EPS * (1 + 1 / size))

    def test_is_nan_for_another_shape_dtype_or_name(self):
        x = np.ones((2, 3))
        for other in (np.ones((3, 2)), x.astype(np.float32), {"x": x}):
            assert math.isnan(disagreement(other, {"x": x} if isinstance(other, np.ndarray) else x) or math.nan)
        assert math.isnan(disagreement(np.ones((1, 3)), x))
        assert math.isnan(disagreement({"y": x}, {"x": x}))

    def test_sees_nan_in_one_of_several_arrays(self):
        x = np.ones((2, 3))
        bad = x.copy()
        bad[1, 2] = np.nan
        for result in ({"x": x, "y": bad}, {"x": bad, "y": x}):
            assert not disagreement(result, {"x": x, "y": x}) <= TOLERANCE
