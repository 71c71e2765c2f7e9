"""What the popular article's formulas compute: the measured effects, recomputed another way."""

import math

import numpy as np
import pytest

from analysis import article_statements, popular_article
from analysis.figure import figure
from analysis.popular_article import FEW, FORCES, ORDER, SINGLE, TRAIN, FormulaStudy, LimitStudy, SaddleStudy
from analysis.statements import as_rows, restored
from analysis.study import draw
from implicit_grad import (
    Cholesky,
    DiagonalQuadratic,
    GradientDescent,
    ImplicitFunction,
    NewtonRoot,
    RegularizedProblem,
    UnrolledGradient,
)
from implicit_grad.tasks import Digits, RandomRidge

LAMS, TASKS, SEED = (0.03, 0.4, 7.0), 2, 31
RIDGE = RandomRidge(6, 9, 8, 100.0)
EPS = np.finfo(float).eps


@pytest.fixture(scope="module")
def tables():
    study = FormulaStudy(RIDGE, LAMS, TASKS, SEED)
    digits = FormulaStudy(Digits(ways=2, shots=2, queries=3), LAMS, TASKS, SEED)
    return {
        "ridge": study.run(),
        "digits": digits.run(),
        "sinusoid": study.run(),  # only its name is asked for
        "saddle": SaddleStudy(7, (0.05, 0.6), 3, SEED).run(),
        "limit": LimitStudy(RIDGE, (1e-2, 1e-6, 1e-7, 1e-8, 1e-310, 0.0), TASKS, SEED).run(),
    }


@pytest.fixture(scope="module")
def scene():
    """One λ and one task of the ridge study, by dense algebra and nothing of the study."""
    problem, theta = draw(RIDGE, np.array(LAMS)[:, None], TASKS, SEED)
    theta = np.broadcast_to(theta, (len(LAMS), TASKS, 6))[1, 1]
    one = problem.select((1, 1), (len(LAMS), TASKS))
    X, y = (np.asarray(part) for part in (one.inner.X, one.inner.y))
    Z, z = (np.asarray(part) for part in (one.outer.X, one.outer.y))
    H, lam = X.T @ X / len(y), LAMS[1]
    A = H + lam * np.eye(6)
    phi = np.linalg.solve(A, X.T @ y / len(y) + lam * theta)
    v = Z.T @ (Z @ phi - z) / len(z)
    return one, theta, H, lam, phi, v, lam * np.linalg.solve(A, v)


def relative(found, exact):
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def measured(tables, name):
    return float(tables["ridge"].relative_error.sel(estimator=name).values[1, 1])


def test_the_train_loss_on_the_right_is_the_pull_towards_theta(tables, scene):
    _, theta, H, lam, phi, _, exact = scene
    wrong = lam**2 * np.linalg.solve(H + lam * np.eye(6), theta - phi)
    condition = np.linalg.cond(H + lam * np.eye(6))
    assert measured(tables, TRAIN) == pytest.approx(relative(wrong, exact), rel=1e3 * EPS * condition)
    cosine = wrong @ exact / np.linalg.norm(wrong) / np.linalg.norm(exact)
    assert float(tables["ridge"].cosine.values[1, 1]) == pytest.approx(cosine, abs=1e3 * EPS * condition)


def test_the_order_of_the_factors_is_that_of_the_general_map(tables, scene):
    one, theta, _, lam, *_ = scene
    weights = lam * np.random.default_rng(SEED).permutation(np.logspace(-1, 1, 6))
    general = RegularizedProblem(one.inner, one.outer, DiagonalQuadratic(weights))
    phi = NewtonRoot(linear_solver=Cholesky())(general, theta, theta)
    right = ImplicitFunction(general, Cholesky()).gradient(phi, theta, one.outer).unwrap()
    H = np.asarray(one.operator(one.inner.linearize(phi.value), phi.value, proximal=False).dense())
    v = (H + np.diag(weights)) @ (right / weights)
    naive = np.linalg.solve(np.eye(6) + H / weights[:, None], v)
    assert measured(tables, ORDER) == pytest.approx(relative(naive, right), rel=1e4 * EPS * np.linalg.cond(H))


def test_one_step_and_ten_and_the_forces(tables, scene):
    one, theta, _, lam, *_ = scene
    gradients = []
    for steps in (1, 10):
        run = GradientDescent(None, steps, record=True, proximal=False)(one, theta)
        gradients.append(UnrolledGradient()(one, theta, run).gradient)
    assert measured(tables, SINGLE) == pytest.approx(relative(gradients[0], gradients[1]), rel=1e4 * EPS)
    phi = GradientDescent(None, 10)(one, theta).value
    pull = lam * (phi - theta)
    balance = np.linalg.norm(one.inner.gradient(phi) + pull) / np.linalg.norm(pull)
    assert measured(tables, FORCES) == pytest.approx(balance, rel=1e6 * EPS)


def test_saddles_are_solved_and_called_a_success(tables):
    saddle = tables["saddle"]
    assert (saddle.smallest < 0).all()
    assert (saddle.residual <= 1e-9).all()
    assert (saddle.accepted == 1).all()


def test_every_claim_refutes_a_statement_and_every_statement_has_a_number_or_says_why(tables):
    found = article_statements.claims(tables)
    examined = article_statements.statements(tables)
    assert {claim.refutes for claim in found} <= {each.says for each in examined}
    for each in examined:
        refuting = [claim for claim in found if claim.refutes == each.says]
        assert bool(refuting) == bool(each.effects)
        if not each.effects:
            assert each.quoted or each.says == article_statements.PRIOR
        for effect in each.effects:
            assert len(effect.lam) == len(effect.value) >= 2, "an effect is a curve over λ"


def test_what_refutes_can_fail(tables):
    right = dict(tables)
    errors = tables["ridge"].relative_error
    right["ridge"] = tables["ridge"].assign(relative_error=errors.where(errors.estimator != TRAIN, 0.01))
    failing = [
        claim for claim in article_statements.claims(right) if not claim.holds and claim.name.startswith("ridge")
    ]
    assert article_statements.RIGHT in {claim.refutes for claim in failing}


def test_statements_survive_storage(tables):
    examined = article_statements.statements(tables)
    back = restored(as_rows(examined))
    assert [each.says for each in back] == [each.says for each in examined]
    for one, other in zip(examined, back, strict=True):
        for first, second in zip(one.effects, other.effects, strict=True):
            assert first.lam == second.lam
            assert all(
                a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(first.value, second.value, strict=True)
            )


def test_the_figure_is_among_the_figures():
    assert figure("popular_article") is popular_article.FIGURE
    assert FEW == 5
