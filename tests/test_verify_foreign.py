"""Answers of any foreign library: trees, arrays that only speak DLPack, and a library that is not there."""

import subprocess
import sys

import numpy as np
import pytest
from foreign_scenes import TREE

from implicit_grad import errors
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import jax_candidate, torch_candidate
from implicit_grad.verify._foreign import ForeignGradient, received


class Proxy:
    """Something that only speaks DLPack."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **keywords):
        return self._array.__dlpack__(**keywords)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def native(f, like=None):
    """A foreign candidate whose library is NumPy itself: the rules of trees need no other."""
    return ForeignGradient(f, "numpy", lambda array: array, like)


class TestTrees:
    """Structure and order, with no library at all."""

    def test_a_flat_theta_is_unflattened_in_the_order_of_the_library(self):
        vector, _ = flatten(TREE)
        seen = []
        candidate = native(lambda tree: (seen.append(tree), {k: tree[k] for k in reversed(list(tree))})[1], TREE)
        assert np.array_equal(candidate(vector), vector)
        assert set(seen[0]) == set(TREE)
        assert np.array_equal(seen[0]["w"], TREE["w"])
        assert isinstance(seen[0]["a"], list)

    def test_a_tree_comes_back_as_a_tree(self):
        gradient = native(lambda tree: {"w": 2 * tree["w"], "b": 3 * tree["b"], "a": tuple(tree["a"])})(TREE)
        assert np.array_equal(gradient["w"], 2 * TREE["w"])
        assert gradient["b"] == 0.75
        assert isinstance(gradient["a"], list)

    @pytest.mark.parametrize(
        ("result", "message"),
        [
            ({"w": 1.0}, r"gradient: expected the keys \['a', 'b', 'w'\], got \['w'\]"),
            ((1, 2, 3), "gradient: theta is a dict, got tuple"),
            ({**TREE, "a": [np.ones(2)]}, r"gradient\['a'\]: expected 2 arrays, as theta has, got 1"),
            ({**TREE, "w": TREE["w"].ravel()}, r"gradient\['w'\]: expected shape \(2, 2\), as theta has, got \(4,\)"),
            ({**TREE, "b": None}, r"gradient\['b'\]: got None: theta is not reached"),
            ({**TREE, "b": "x"}, r"gradient\['b'\]: expected real numbers"),
            ({**TREE, "b": 1j}, r"gradient\['b'\]: expected real numbers .*complex"),
        ],
    )
    def test_another_structure_is_named(self, result, message):
        with pytest.raises(errors.CandidateError, match=message):
            native(lambda tree: result)(TREE)

    def test_the_coarsest_leaf_says_what_the_whole_is_worth(self):
        vector, _ = flatten(TREE)
        candidate = native(lambda tree: {**tree, "b": np.float32(tree["b"])}, TREE)
        assert candidate(vector).dtype == np.float32

    def test_nan_and_other_shapes_are_left_to_the_judge(self):
        assert np.isnan(native(lambda x: x * np.nan)(np.ones(3))).all()
        assert native(lambda x: x[:2])(np.ones(3)).shape == (2,)

    def test_a_batch_goes_through(self, rng):
        theta = rng.normal(size=(2, 5, 3))
        assert np.array_equal(native(lambda x: 2 * x)(theta), 2 * theta)

    def test_writing_into_theta_is_named_and_hurts_nobody(self):
        def wicked(theta):
            theta += 1
            return theta

        theta = np.zeros(3)
        with pytest.raises(errors.CandidateError, match="theta: the candidate writes into its argument"):
            native(wicked)(theta)
        assert not theta.any()

    def test_the_result_is_nobody_elses(self):
        kept = np.ones(3)
        candidate = native(lambda theta: kept)
        candidate(np.zeros(3))[0] = 7
        assert kept[0] == 1

    def test_arguments_are_checked(self):
        with pytest.raises(errors.ArgumentTypeError, match="like: expected a dict"):
            native(lambda t: t, np.ones(3))
        with pytest.raises(errors.ArgumentTypeError, match="f: expected"):
            native(3)
        with pytest.raises(errors.ArgumentError, match="`like` holds 8 numbers"):
            native(lambda t: t, TREE)(np.ones(3))


class TestReceived:
    def test_dlpack_alone_is_enough(self, rng):
        array = rng.normal(size=(3, 4))
        assert np.array_equal(received("g", Proxy(array.T)), array.T)

    @pytest.mark.parametrize("value", [None, "no", object(), np.array([1j]), np.array([True]), {"w": 1.0}])
    def test_what_is_no_array_is_named(self, value):
        with pytest.raises(errors.CandidateError, match=r"^g: "):
            received("g", value)


@pytest.mark.parametrize(
    ("make", "name", "hint"), [(torch_candidate, "torch", "PyTorch"), (jax_candidate, "jax", "JAX")]
)
def test_a_missing_library_is_named(make, name, hint, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.MissingDependency, match=f"needs {hint} .*pip install {name}"):
        make(lambda theta: theta)


def test_the_room_loads_neither_library():
    code = "import sys, implicit_grad.verify; print({'torch', 'jax'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "set()"
