"""The README's tables are what the methods say of themselves."""

import dataclasses
import doctest
from pathlib import Path

import pytest

import implicit_grad
from implicit_grad import ArgumentError, catalogue, estimators, implicit, inner, linear
from implicit_grad.results import Card

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_is_up_to_date():
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- table:") == 4
    assert catalogue.fill(text) == text, "run: python -m implicit_grad.catalogue README.md"


def test_a_stale_table_is_noticed():
    text = README.read_text(encoding="utf-8")
    assert catalogue.fill(text.replace("| `CG` |", "| `GC` |")) == text


@pytest.mark.parametrize("module", [estimators, inner, linear], ids=lambda m: m.__name__)
def test_every_exported_strategy_has_a_card(module):
    strategies = {
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and hasattr(value, "__call__")  # noqa: B004
    }
    missing = {name for name in strategies if not isinstance(getattr(getattr(module, name), "card", None), Card)}
    # A composition, an operator, and what other methods are made of are no methods of their own.
    parts = {"GradientStep", "NewtonStep", "Linearization", "Jacobi", "NystromPreconditioner"}
    assert missing <= {"MetaGradient", "Operator", *parts}
    for name, card in catalogue.methods(module).items():
        assert all(getattr(card, field.name) for field in dataclasses.fields(card)), name
        assert hasattr(implicit_grad, name), f"{name} is not importable from implicit_grad"


def test_a_doctest_shows_the_general_map():
    """On a problem that is not iMAML's, in the README and in the module; pytest runs both."""
    for text in (README.read_text(encoding="utf-8"), implicit.__doc__):
        shown = [example.source for example in doctest.DocTestParser().get_examples(text)]
        assert any("ImplicitFunction(" in source for source in shown)
        assert any("AutodiffMap(F)" in source for source in shown)


def test_unknown_tables_are_named():
    with pytest.raises(ArgumentError, match="none of"):
        catalogue.table("everything")
