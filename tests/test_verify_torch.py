"""Candidates written in PyTorch, under `verify`."""

import numpy as np
import pytest
from foreign_scenes import EPS, TREE, library, ridge

from implicit_grad import EXACT, errors
from implicit_grad.objectives.autodiff import flatten
from implicit_grad.verify import torch_candidate


@pytest.fixture
def torch():
    return library("torch")


class TestTorch:
    def test_the_answer_is_the_librarys(self, torch, rng):
        problem = ridge(rng, 0.3)
        X, y = torch.from_numpy(problem.inner.X), torch.from_numpy(problem.inner.y)
        Xt, yt = torch.from_numpy(problem.outer.X), torch.from_numpy(problem.outer.y)

        def meta_loss(theta):
            A = X.T @ X / 12 + 0.3 * torch.eye(4, dtype=X.dtype)
            phi = torch.linalg.solve(A, X.T @ y / 12 + 0.3 * theta)
            return 0.5 * ((Xt @ phi - yt) ** 2).mean()

        theta = rng.normal(size=4)
        exact = EXACT(problem, theta).gradient
        leaf = torch_candidate(lambda theta: torch.autograd.grad(meta_loss(theta), theta)[0])
        functional = torch_candidate(torch.func.grad(meta_loss), requires_grad=False)
        allowed = 64 * EPS * np.linalg.cond(np.linalg.qr(problem.inner.X)[1]) ** 2 * np.linalg.norm(exact)
        for candidate in (leaf, functional):
            assert np.linalg.norm(candidate(theta) - exact) <= allowed
        assert torch_candidate(lambda t: torch.func.grad(meta_loss)(t))(theta).dtype == np.float64

    def test_a_function_of_problem_and_theta_is_asked_at_any_lambda(self, torch, rng):
        problem = ridge(rng, 0.3)
        candidate = torch_candidate(lambda problem, theta: float(problem.lam) * theta)
        theta = rng.normal(size=4)
        assert np.array_equal(candidate(problem, theta), 0.3 * theta)
        assert np.array_equal(candidate(problem.with_lam(7.0), theta), 7 * theta)
        assert "lambda" in repr(candidate)
        assert torch_candidate(lambda theta, steps=3: steps * theta)(theta)[0] == 3 * theta[0]

    def test_read_only_and_strided_theta(self, torch, rng):
        theta = rng.normal(size=(4, 6))[:, ::-2]
        theta.flags.writeable = False
        assert np.array_equal(torch_candidate(lambda t: 2 * t)(theta), 2 * theta)

    def test_outputs_may_require_gradients_and_have_any_strides(self, torch, rng):
        theta = rng.normal(size=(3, 4))
        transposed = torch_candidate(lambda t: (2 * t).T)
        assert np.array_equal(transposed(theta), 2 * theta.T)
        negated = torch_candidate(lambda t: torch._neg_view(t.detach()))
        assert np.array_equal(negated(theta), -theta)
        expanded = torch_candidate(lambda t: t.sum().expand(3, 4))
        assert expanded(theta).flags.writeable
        parameter = torch_candidate(lambda t: torch.nn.Parameter(t.detach()))
        assert np.array_equal(parameter(theta), theta)

    def test_precision_is_kept_and_asked_for(self, torch):
        theta = np.array([1.0, 1.0 + 1e-12])
        assert torch_candidate(lambda t: t)(theta)[1] == theta[1]
        single = torch_candidate(lambda t: t, dtype=torch.float32)(theta)
        assert single.dtype == np.float32
        assert torch_candidate(lambda t: t, dtype="float32")(theta).dtype == np.float32
        for wrong in ("single", np.float32, torch.int64, "tensor"):
            with pytest.raises(errors.ArgumentTypeError, match=r"dtype: expected torch\.float64"):
                torch_candidate(lambda t: t, dtype=wrong)

    def test_half_precision_is_refused(self, torch):
        for half in (torch.float16, torch.bfloat16):
            with pytest.raises(errors.CandidateError, match="gradient: expected real numbers"):
                torch_candidate(lambda t, half=half: t.to(half))(np.ones(2))

    def test_trees_of_tensors(self, torch):
        vector, _ = flatten(TREE)
        seen = {}

        def gradient(tree):
            seen.update(tree)
            loss = (tree["w"] ** 2).sum() + tree["b"] * 3 + sum((each**3).sum() for each in tree["a"])
            w, b, *a = torch.autograd.grad(loss, [tree["w"], tree["b"], *tree["a"]])
            return {"w": w, "b": b, "a": a}

        wanted = np.concatenate([3 * TREE["a"][0] ** 2, 3 * TREE["a"][1] ** 2, [3.0], 2 * TREE["w"].ravel()])
        assert np.allclose(torch_candidate(gradient, like=TREE)(vector), wanted, rtol=8 * EPS, atol=0)
        assert seen["w"].shape == (2, 2)
        assert seen["b"].requires_grad
        assert seen["b"].shape == ()

        def unused(t):
            x, y = torch.autograd.grad(t["x"].sum(), [t["x"], t["y"]], allow_unused=True)
            return {"x": x, "y": y}

        with pytest.raises(errors.CandidateError, match=r"gradient\['y'\]: got None"):
            torch_candidate(unused)({"x": np.ones(2), "y": np.ones(2)})

    def test_writing_into_theta_is_named(self, torch):
        def wicked(theta):
            with torch.no_grad():
                theta -= 0.1
            return theta

        with pytest.raises(errors.CandidateError, match="theta: the candidate writes into its argument"):
            torch_candidate(wicked)(np.zeros(3))
