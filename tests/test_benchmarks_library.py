"""The library's side of the benchmarks: what is timed there is what it says."""

import numpy as np
import pytest
from benchmark_scenes import TINY

from benchmarks import cases
from benchmarks.cases import MetaCase, Model, SweepCase
from benchmarks.contenders import library
from benchmarks.pairing import disagreement
from implicit_grad.tasks import Sinusoid

EPS = np.finfo(float).eps


def tiny_meta(cg_steps):
    return MetaCase("tiny", Sinusoid(6, 6, (3,)), Model((1, 3, 1)), 2, 40.0, cg_steps, inner_steps=5)


class TestLibrarySide:
    @pytest.mark.parametrize("case", TINY.products, ids=lambda case: case.model.label)
    def test_products_are_the_dense_hessians(self, case):
        data = case.data()
        found = {quantity: next(iter(forms.values())) for quantity, forms in library.products(case, data).items()}
        assert set(found) == {"HVP", "gradient", "linearisation"}
        hvp = case.model.loss(data["X"], data["y"]).linearize(data["x"]).hvp
        dense = np.stack([hvp(np.broadcast_to(e, data["x"].shape)) for e in np.eye(case.model.size)], axis=-1)
        expected = (dense @ data["v"][..., None])[..., 0]
        condition = np.linalg.norm(dense, axis=(-2, -1)) * np.linalg.norm(data["v"], axis=-1)
        error = np.linalg.norm(found["HVP"].host(found["HVP"].call()) - expected, axis=-1)
        assert np.all(error <= 8 * case.model.size * EPS * condition)
        gradient, linearized = (found[name].host(found[name].call()) for name in ("gradient", "linearisation"))
        assert disagreement(gradient, linearized) <= 8 * case.model.size * EPS

    def test_meta_gradient_in_d_steps_is_the_dense_solve(self):
        case = tiny_meta(cg_steps=3 * Model((1, 3, 1)).size)
        data = case.data()
        form = library.meta_gradient(case, data)["meta-gradient"]["ImplicitGradient(CG)"]
        problem = cases.bilevel_problem(case.model, data)
        A = problem.curvature(data["phi"]).dense()
        q = np.linalg.solve(A, problem.outer.gradient(data["phi"])[..., None])[..., 0]
        assert disagreement(form.host(form.call()), case.lam * q) <= 64 * EPS * np.linalg.cond(A).max()

    def test_sweep_holds_every_count_and_starts_at_theta(self):
        case, data = TINY.sweep, TINY.sweep.data()
        (form,) = library.sweep(case, data)["sweep"].values()
        found = form.host(form.call())
        cells = (len(case.inner_steps), len(case.lams), case.tasks, case.model.size)
        assert found["inner"].shape == found["unrolled"].shape == cells
        assert found["implicit"].shape == (case.cg_steps, *cells)
        assert np.array_equal(found["inner"][0], np.broadcast_to(data["theta"], cells[1:]))
        # A run of no steps is the identity: its derivative leaves the test gradient as it is.
        problem = cases.bilevel_problem(case.model, data)
        test_gradient = problem.outer.gradient(found["inner"][0])
        assert disagreement(found["unrolled"][0], test_gradient) <= 8 * case.model.size * EPS

    def test_descent_and_memory_run(self):
        case = tiny_meta(cg_steps=3)
        data = case.data()
        (form,) = library.descent(case, data)["descent"].values()
        assert disagreement(form.host(form.call()), data["phi"]) <= 8 * case.model.size * EPS
        peaks = library.memory(case, data, TINY.memory_steps)
        assert {"implicit, CG-3", "unrolled", "checkpointed"} <= set(peaks)
        assert all(tuple(each) == TINY.memory_steps for each in peaks.values())
        assert peaks["unrolled"][256] > peaks["unrolled"][1]

    def test_cases_are_the_same_whenever_they_are_made(self):
        for case in (*TINY.products, tiny_meta(3), TINY.sweep):
            first, second = case.data(), case.data()
            assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_the_sweeps_curvature_is_positive_definite_everywhere(self):
        # Otherwise conjugate gradients stop here and go on elsewhere, and there is nothing to compare.
        case = SweepCase(tasks=2, last=8)
        data = case.data()
        (form,) = library.sweep(case, data)["sweep"].values()
        problem = cases.bilevel_problem(case.model, data)
        A = problem.curvature(form.host(form.call())["inner"][0]).select((0, 0)).dense()
        assert np.linalg.eigvalsh(A)[0] > 0
