"""SciPy's minimisers: at least one of every class, judged by the residual they leave."""

import numpy as np
import pytest
from oracles import scenes

from implicit_grad import (
    CG,
    ArgumentError,
    ArgumentTypeError,
    BilevelProblem,
    ImplicitGradient,
    MetaGradient,
    Newton,
    ScipyMinimize,
    Status,
)

# The residual each class can be asked for: values alone stop at √eps, gradients go further, Newton to the end.
METHODS = {
    "Nelder-Mead": (1e-3, (("xatol", 1e-9), ("fatol", 1e-14), ("adaptive", True))),
    "Powell": (1e-4, (("xtol", 1e-10), ("ftol", 1e-14))),
    "COBYLA": (1e-3, (("tol", 1e-8),)),
    "COBYQA": (1e-3, (("final_tr_radius", 1e-8),)),
    "BFGS": (1e-7, (("gtol", 1e-9),)),
    "L-BFGS-B": (1e-6, (("ftol", 1e-15), ("gtol", 1e-10))),
    "CG": (1e-6, (("gtol", 1e-9),)),
    "TNC": (1e-5, (("ftol", 1e-16), ("gtol", 1e-10), ("xtol", 1e-14))),
    "SLSQP": (1e-6, (("ftol", 1e-16),)),
    "Newton-CG": (1e-7, (("xtol", 1e-12),)),
    "trust-ncg": (1e-7, (("gtol", 1e-9),)),
    "trust-krylov": (1e-7, (("gtol", 1e-9),)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("lam", [0.2, 6.0])
def test_any_minimiser_will_do(method, lam):
    """Converged means a small residual, recomputed; φ is within ‖r‖/λ of Newton's."""
    rtol, options = METHODS[method]
    scene = scenes.ridge(lam)
    solution = ScipyMinimize(method, rtol, 4000, options)(scene.problem, scene.theta)
    residual = np.linalg.norm(scene.problem.stationarity(solution.value, scene.theta))
    assert solution.status is Status.CONVERGED
    assert abs(solution.residual_norm - residual) <= 1e-12 * (1 + residual)
    star = Newton()(scene.problem, scene.theta).value
    assert np.linalg.norm(solution.value - star) <= residual / lam + 1e-12
    assert solution.steps > 0


def test_what_they_ask_of_the_loss_is_counted_by_class():
    scene = scenes.ridge(2.3)
    cost = {
        m: ScipyMinimize(m, max_steps=20)(scene.problem, scene.theta).cost for m in ("Powell", "BFGS", "trust-ncg")
    }
    assert cost["Powell"].gradients == 1  # the residual's
    assert cost["Powell"].values > 0
    assert cost["BFGS"].gradients > 1
    assert cost["BFGS"].hvps == cost["Powell"].hvps == 0
    assert cost["trust-ncg"].hvps > 0


def test_the_step_limit_is_reported():
    scene = scenes.softmax(1e-3)
    for method, steps in (("BFGS", 1), ("L-BFGS-B", 2), ("Nelder-Mead", 3), ("TNC", 2), ("BFGS", 0)):
        solution = ScipyMinimize(method, 1e-9, steps)(scene.problem, scene.theta)
        assert solution.status is Status.MAX_STEPS
        assert solution.steps <= steps
    assert np.array_equal(solution.value, scene.theta)


def test_scipys_own_success_is_not_believed():
    """With a loose tolerance of its own BFGS stops early and happy; the residual says otherwise."""
    scene = scenes.softmax(0.02)
    solution = ScipyMinimize("BFGS", 1e-9, options=(("gtol", 1e-1),))(scene.problem, scene.theta)
    assert solution.status is Status.STAGNATED
    assert solution.steps < 1000


def test_the_tolerance_is_relative_to_what_cancels():
    """rtol does not enter the run: just above the ratio that it reaches it is met, just below it is not."""
    scene = scenes.softmax(0.37)
    phi = ScipyMinimize("BFGS", 0.0)(scene.problem, scene.theta).value
    size = 0.37 * (np.linalg.norm(phi) + np.linalg.norm(scene.theta))
    size += np.linalg.norm(scene.problem.inner.gradient(phi))
    ratio = float(np.linalg.norm(scene.problem.stationarity(phi, scene.theta)) / size)
    assert ScipyMinimize("BFGS", 1.001 * ratio)(scene.problem, scene.theta).status is Status.CONVERGED
    assert ScipyMinimize("BFGS", 0.999 * ratio)(scene.problem, scene.theta).status is Status.STAGNATED


def test_a_batch_is_its_problems():
    scene = scenes.softmax(0.37)
    lams = np.array([[0.02], [3.1]])
    problem = BilevelProblem(scene.problem.inner, scene.problem.outer, lams)
    thetas = np.stack([scene.theta, -scene.theta])
    solver = ScipyMinimize("L-BFGS-B")
    together = solver(problem, thetas)
    for i, j in np.ndindex(2, 2):
        alone = solver(scene.problem.with_lam(lams[i, 0]), thetas[j])
        assert np.array_equal(together.value[i, j], alone.value)
        assert together.status[i, j] is alone.status
        assert together.steps[i, j] == alone.steps


def test_the_implicit_gradient_does_not_care_who_found_phi():
    scene = scenes.ridge(2.3)
    found = [
        MetaGradient(inner, ImplicitGradient(CG(30, 1e-14)))(scene.problem, scene.theta).gradient
        for inner in (Newton(), ScipyMinimize("BFGS", options=(("gtol", 1e-11),)))
    ]
    assert np.linalg.norm(found[0] - found[1]) <= 1e-8 * np.linalg.norm(found[0])


def test_starts_where_it_is_told():
    scene = scenes.ridge(2.3)
    star = Newton()(scene.problem, scene.theta).value
    assert ScipyMinimize("BFGS")(scene.problem, scene.theta, start=star).steps == 0


def test_settings_are_checked():
    with pytest.raises(ArgumentError, match="method: 'SGD'"):
        ScipyMinimize("SGD")
    with pytest.raises(ArgumentTypeError, match="options"):
        ScipyMinimize("BFGS", options={"gtol": 1e-9})
    with pytest.raises(ArgumentError, match="rtol"):
        ScipyMinimize("BFGS", rtol=2.0)


def test_strict_arrays_are_refused():
    import array_api_strict as xp

    from implicit_grad import LeastSquares

    f = LeastSquares(xp.eye(2), xp.ones(2))
    with pytest.raises(ArgumentTypeError, match=r"theta: .*NumPy"):
        ScipyMinimize("BFGS")(BilevelProblem(f, f, 0.5), xp.ones(2))
