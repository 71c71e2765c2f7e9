"""Keys: equal settings have equal keys, different settings different ones, and what has no key is refused."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.engine_cells import system, tiny
from implicit_grad import CG, ArgumentTypeError, GradientDescent, ImplicitGradient, MetaGradient
from implicit_grad.engine import Cell, provenance
from implicit_grad.engine.canonical import canonical, modules_of
from implicit_grad.engine.cell import job


class Shape(Enum):
    FLAT = 1
    STEEP = 2


@dataclass(frozen=True)
class Point:
    x: object
    y: object = 0


@dataclass(frozen=True)
class OtherPoint:
    x: object
    y: object = 0


DIFFERENT = [
    None, False, True, 0, 1, 0.0, -0.0, 1.0, 1 + 1e-16 + 2.3e-16, float("nan"), float("inf"), -float("inf"), 1j,
    "", "1", "None", b"", b"1", (), (1,), [], [1], [1, 2], [2, 1], [[1], 2], {}, {"float": "0x1p+0"},
    {"mapping": {}}, {"a": 1}, {"a": None}, range(3), (0, 1, 2), np.float64(1), np.float32(1), np.int64(1),
    np.bool_(True), np.array(1.0), np.array([1.0]), np.array([[1.0]]), np.array([1.0], dtype=">f8"),
    np.array([1]), np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(6), np.array(["ab"]), np.array(["ab "]),
    np.array([b"ab"]), np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-01"], "M8[h]"), np.array([(1, 2)],
    [("a", int), ("b", int)]), np.array([(1, 2)], [("b", int), ("a", int)]), Shape.FLAT, Shape.STEEP, Point(1),
    Point(1.0), Point((1,)), Point(1, 1), OtherPoint(1), Point, OtherPoint, np.linalg.norm, canonical,
    PurePosixPath("1"), PurePosixPath("a/b"), CG(5), CG(6), CG(5, 1e-3), MetaGradient(GradientDescent(None, 5),
    ImplicitGradient(CG(5))), MetaGradient(GradientDescent(None, 6), ImplicitGradient(CG(5))),
]  # fmt: skip


def test_different_values_have_different_texts():
    texts = [canonical(value) for value in DIFFERENT]
    assert len(set(texts)) == len(texts)


def test_equal_values_have_equal_texts():
    assert canonical({"b": 1, "a": 2.0}) == canonical({"a": 2.0, "b": 1})
    assert canonical(Point((1, np.arange(3)))) == canonical(Point((1, np.arange(3))))
    across = np.arange(12.0).reshape(3, 4)
    assert canonical(across) == canonical(np.asfortranarray(across)) == canonical(np.hstack([across, across])[:, :4])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN, PLAIN)
def test_texts_are_equal_exactly_when_the_values_are(one, other):
    assert (canonical(one) == canonical(other)) == (repr(one) == repr(other) or _same(one, other))


def _same(one, other):
    """Equal with types, and -0.0 is not 0.0; the order of a mapping does not count."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return repr(one) == repr(other)


class Method:
    def bound(self):
        return 1


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (lambda: 1, "config"),
        ({"a": (1, lambda: 1)}, r"config\.a"),
        (partial(tiny, 1), "config"),
        (Method().bound, "config"),
        (np.random.default_rng(8), "config"),
        ({1}, "config"),
        ({1: 2}, "config"),
        (np.array([None]), "config"),
        ([0, Point(object())], r"config\[1\]\.x"),
    ],
)
def test_what_has_no_canonical_form_is_refused_with_its_place(value, place):
    with pytest.raises(ArgumentTypeError, match=place):
        canonical(value)


def test_a_function_inside_another_is_refused():
    def inner():
        return {}

    with pytest.raises(ArgumentTypeError, match="top level"):
        job(Cell(inner))


def test_what_matters_is_in_the_key_and_what_does_not_is_not():
    plain = job(Cell(system, {"number": 3})).key
    assert plain == job(Cell(system, {"number": 3}, alone=True, label="three")).key
    others = [
        Cell(system, {"number": 4}), Cell(system, {"number": 3.0}), Cell(tiny, {"number": 3}),
        Cell(system, {"number": 3}, data="5f"), Cell(system, {"number": 3, "kilobytes": 0}),
    ]  # fmt: skip
    assert len({plain, *(job(each).key for each in others)}) == 1 + len(others)


def test_versions_and_schema_are_in_the_key(monkeypatch):
    from implicit_grad.engine import cell

    plain = job(Cell(tiny, {"number": 3})).key
    with monkeypatch.context() as patch:
        patch.setattr(cell, "_versions", lambda: {"numpy": "1.0"})
        assert job(Cell(tiny, {"number": 3})).key != plain
    monkeypatch.setattr(cell, "SCHEMA", cell.SCHEMA + 1)
    assert job(Cell(tiny, {"number": 3})).key != plain
    assert {"python", "numpy", "scipy", "autograd", "implicit-grad"} <= provenance.versions().keys()


def test_another_process_finds_the_same_key():
    """Hash randomisation and the order of imports do not matter."""
    code = (
        "from implicit_grad.engine import Cell; from implicit_grad.engine.cell import job\n"
        "from implicit_grad import CG; from benchmarks.engine_cells import tiny\n"
        "print(job(Cell(tiny, {'number': CG(5), 'x': {'b': 1, 'a': 0.1}})).identity)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    own = job(Cell(tiny, {"x": {"a": 0.1, "b": 1}, "number": CG(5)})).identity
    # The sources of a tree that is being edited may change between the two processes.
    assert _without_source(run.stdout.strip()) == _without_source(own)


def _without_source(identity):
    import json

    found = json.loads(identity)
    del found["source"]
    return found


class TestSources:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        folder = tmp_path / "some_study"
        folder.mkdir()
        for name, text in {
            "__init__": "", "used": "from . import deeper\n", "deeper": "X = 1\n", "unused": "Y = 1\n",
            "cells": "from some_study import used\ndef f(): return {}\n",
        }.items():  # fmt: skip
            (folder / f"{name}.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        yield folder
        for name in [name for name in sys.modules if name.startswith("some_study")]:
            del sys.modules[name]

    @staticmethod
    def digest():
        provenance.source_digest.cache_clear()
        return provenance.source_digest(frozenset({"some_study.cells"}))

    @pytest.mark.parametrize(
        ("name", "counts"), [("cells", True), ("used", True), ("deeper", True), ("__init__", True), ("unused", False)]
    )
    def test_a_source_that_is_imported_counts_and_others_do_not(self, package, name, counts):
        before = self.digest()
        (package / f"{name}.py").write_text((package / f"{name}.py").read_text() + "Z = 1\n")
        assert (self.digest() != before) == counts

    def test_this_library_counts_as_a_whole(self, package, monkeypatch):
        before = self.digest()
        monkeypatch.setattr(provenance, "_root", lambda: package)
        assert self.digest() != before

    @pytest.fixture(autouse=True)
    def _forget(self):
        yield
        provenance.source_digest.cache_clear()


def test_modules_behind_settings_are_found():
    value = {"a": (Point(CG(5)), [Shape.FLAT]), "b": np.linalg.norm}
    assert {__name__, CG.__module__} <= modules_of(value)
    assert dataclasses.is_dataclass(Point)
