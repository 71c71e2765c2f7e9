"""What a report shows: as text, as a page of HTML, and in a failed assertion."""

import pytest
from verify_scenes import QUICK, THETA, look, ridge

from implicit_grad import EXACT, Report, Verdict, assert_meta_gradient, verify


@pytest.fixture
def problem(rng):
    return ridge(rng)


def test_there_is_no_boolean(problem):
    report = look(EXACT, problem)
    assert isinstance(report, Report)
    for each in (report, report.verdict):
        with pytest.raises(TypeError, match="three"):
            bool(each)


def test_where_it_is_off_is_shown_only_where_it_is(problem):
    right = verify(EXACT, problem, [THETA]).points[0].right.gradient
    column, halved = (look(lambda t, g=g: g.copy(), problem, [THETA]) for g in (right[:, None], 0.5 * right))
    assert column.verdict is halved.verdict is Verdict.FAIL
    assert "where it is off" not in str(column)
    assert "where it is off" in str(halved)


def test_the_html_page_stands_alone(problem):
    page = look(lambda theta: theta, problem).to_html()
    assert page.startswith("<!doctype html>")
    assert "FAIL" in page
    assert "&lt;lambda&gt;" in page
    for outside in ("<script", "http://", "https://", "src="):
        assert outside not in page
    assert page.count("<svg") == 2


def test_the_assertion_shows_the_page(problem):
    assert_meta_gradient(EXACT, problem, THETA, without=QUICK)
    with pytest.raises(AssertionError, match=r"FAIL: .*twice") as failure:
        assert_meta_gradient(twice(problem), problem, THETA, without=QUICK)
    assert "cause" in str(failure.value) or "cannot be told apart" in str(failure.value)
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        assert_meta_gradient(EXACT, problem, THETA, without=("reference", "contrastive", "complex step", *QUICK))


def twice(problem):
    def twice(theta):
        return 2 * EXACT(problem, theta).gradient

    return twice
