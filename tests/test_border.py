"""The border: what comes in is real, finite, of one layout, or named in an error."""

import array_api_strict
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix

from implicit_grad import ArgumentError, ArgumentTypeError, NonFiniteError, border

NOT_REAL = {
    "complex": np.ones(3, dtype=complex),
    "complex64": np.ones(3, dtype=np.complex64),
    "bool": np.ones(3, dtype=bool),
    "object": np.array([1.0, 2.0, None], dtype=object),
    "text": np.array(["1", "2", "3"]),
    "float16": np.ones(3, dtype=np.float16),
    "date": np.array(["2019-09-10"], dtype="datetime64[D]"),
    "record": np.zeros(3, dtype=[("a", float)]),
    "masked": np.ma.masked_array(np.ones(3), mask=[0, 1, 0]),
    "sparse array": csr_array(np.eye(3)),
    "sparse matrix": csr_matrix(np.eye(3)),
    "ragged": [[1.0], [1.0, 2.0]],
    "None": None,
    "words": "three",
    "dict": {"a": 1.0},
    "data frame of words": pd.DataFrame({"a": ["x", "y"]}),
    "strict complex": array_api_strict.ones(3, dtype=array_api_strict.complex128),
    "strict bool": array_api_strict.ones(3, dtype=array_api_strict.bool),
}


@pytest.mark.parametrize("value", NOT_REAL.values(), ids=NOT_REAL)
def test_what_is_not_real_is_refused_by_name(value):
    with pytest.raises(ArgumentTypeError, match=r"^data: "):
        border.real_array("data", value)


@pytest.mark.skipif(np.finfo(np.longdouble).bits == 64, reason="long double is double here")
def test_long_doubles_have_no_linear_algebra():
    with pytest.raises(ArgumentTypeError, match=r"data: .*float64"):
        border.real_array("data", np.ones(3, dtype=np.longdouble))


@pytest.mark.parametrize(
    "value",
    [[1, 2], (1.0, 2.0), np.array([1, 2], dtype=np.uint8), np.matrix([[1.0, 2.0]]), pd.Series([1.0, 2.0])],
    ids=lambda v: type(v).__name__,
)
def test_what_can_be_an_array_becomes_one(value):
    array = border.real_array("data", value)
    assert type(array) is np.ndarray
    assert array.dtype == np.float64
    assert array.ravel().tolist() == [1, 2]


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
def test_integers_are_cast_and_float32_is_kept(xp):
    assert border.real_array("data", xp.asarray([1, 2])).dtype == xp.float64
    assert border.real_array("data", xp.asarray([1, 2], dtype=xp.float32)).dtype == xp.float32


def test_layout_is_c_order():
    a = np.arange(12.0).reshape(3, 4)
    for layout in (np.asfortranarray(a), a[::-1, ::-2], a.T):
        array = border.real_array("data", layout)
        assert array.flags.c_contiguous
        assert np.array_equal(array, layout)
    assert border.real_array("data", 3.0).shape == ()
    assert border.real_array("data", a) is a


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
@pytest.mark.parametrize(("bad", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_the_first_bad_place_is_named(xp, bad, shown):
    a = np.zeros((2, 3))
    a[1, 0] = a[1, 2] = bad
    with pytest.raises(NonFiniteError, match=rf"^X: {shown} at index \[1, 0\]"):
        border.finite("X", xp.asarray(a))
    with pytest.raises(NonFiniteError, match=rf"^x: {shown} at index \[\]"):
        border.finite("x", xp.asarray(bad))


def test_vectors_have_an_axis_and_an_entry():
    with pytest.raises(ArgumentError, match="theta: expected at least 1 axes"):
        border.vector("theta", 3.0)
    with pytest.raises(ArgumentError, match="theta: needs at least one parameter"):
        border.vector("theta", np.zeros((4, 0)))


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_positive_numbers_are_finite_and_above_zero(number):
    """All doubles, subnormals among them; `number <= 0` alone would let NaN through."""
    if 0 < number < np.inf:
        assert border.positive_float("lam", number) == number
    else:
        with pytest.raises(ArgumentError, match=r"^lam: must be finite and > 0"):
            border.positive_float("lam", number)


@pytest.mark.parametrize("value", [True, np.True_, "1", b"1", None, 1j, [1.0, 2.0], np.ones(1), object()])
def test_one_positive_number_is_one_number(value):
    with pytest.raises(ArgumentTypeError, match=r"^lam: "):
        border.positive_float("lam", value)


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int8(2), np.array(2.0)], ids=lambda v: type(v).__name__)
def test_numbers_of_any_kind_are_numbers(value):
    assert border.positive_float("lam", value) == 2.0


@given(st.integers() | st.floats() | st.booleans() | st.text() | st.none())
def test_counts_are_whole_numbers_in_range(value):
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole and 1 <= value <= border.MAX_COUNT:
        assert border.count("steps", value, minimum=1) == value
    else:
        with pytest.raises(ArgumentError if whole else ArgumentTypeError, match=r"^steps: "):
            border.count("steps", value, minimum=1)


@given(st.floats() | st.integers(-3, 3) | st.booleans() | st.text() | st.none())
def test_tolerances_lie_in_the_half_open_unit_interval(value):
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value < 1:
        assert border.tolerance("rtol", value) == value
    else:
        with pytest.raises(ArgumentError if number else ArgumentTypeError, match=r"^rtol: "):
            border.tolerance("rtol", value)


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=["numpy", "strict"])
def test_labels_are_integers_in_range(xp):
    good = xp.asarray([0, 2, 1])
    assert border.labels("y", good, 3) is good
    for bad, error in (
        ([0, 3], ArgumentError),
        ([-1, 0], ArgumentError),
        ([0.0, 1.0], ArgumentTypeError),
        ([True, False], ArgumentTypeError),
    ):
        with pytest.raises(error, match=r"^y: "):
            border.labels("y", xp.asarray(bad), 3)
    with pytest.raises(ArgumentError, match=r"^y: needs at least one label"):
        border.labels("y", xp.zeros(0, dtype=xp.int64), 3)


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.True_])
def test_flags_are_booleans(value):
    with pytest.raises(ArgumentTypeError, match=r"^record: "):
        border.flag("record", value)
    assert border.flag("record", True) is True


def test_strategies_are_values_not_classes():
    border.strategy("inner_solver", lambda problem, theta: None, "Newton()")
    for bad in (int, 3.0, "Newton", None):
        with pytest.raises(ArgumentTypeError, match=r"^inner_solver: .*Newton\(\)"):
            border.strategy("inner_solver", bad, "Newton()")
