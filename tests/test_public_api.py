"""The public surface: what can be imported, what it is called, and that strategies are values."""

import ast
import dataclasses
import importlib.metadata
import inspect
import json
import pickle
from pathlib import Path

import pytest

import implicit_grad

CENTRAL = {
    "Autodiff",
    "BilevelProblem",
    "CG",
    "Cholesky",
    "ConvergenceError",
    "Cost",
    "EXACT",
    "Estimate",
    "Estimator",
    "FirstOrderGradient",
    "GradientDescent",
    "ImplicitGradient",
    "InnerSolver",
    "LeastSquares",
    "LinearSolver",
    "Linearization",
    "MetaGradient",
    "MultilayerPerceptron",
    "Newton",
    "ScipyCG",
    "ScipyMinimize",
    "SmoothFunction",
    "SoftmaxCrossEntropy",
    "Solution",
    "Status",
    "UnrolledGradient",
    "describe",
}
"""Names that others build on: they stay."""
PLANNED = {"Neumann", "Nystrom", "Report", "Verdict", "agree", "assert_meta_gradient", "certify", "verify"}
"""Further names of the design, skipped as long as they are not there."""

INIT = Path(implicit_grad.__file__)
EXPORTS = sorted(
    name
    for name in vars(implicit_grad)
    if not name.startswith("_") and not inspect.ismodule(getattr(implicit_grad, name))
)

SETTINGS = {
    "batch_size": 4,
    "coarse": implicit_grad.ContrastiveGradient(2e-3, implicit_grad.Newton()),
    "curvature": 0.5,
    "estimator": implicit_grad.ImplicitGradient(implicit_grad.Cholesky()),
    "fine": implicit_grad.ContrastiveGradient(1e-3, implicit_grad.Newton()),
    "inner_solver": implicit_grad.Newton(),
    "lams": (2.0, 0.5),
    "linear_solver": implicit_grad.CG(5),
    "max_steps": 5,
    "order": 2,
    "rank": 3,
    "seed": 7,
    "step_size": 0.1,
    "steps": 7,
    "strength": 1e-3,
    "tolerance": 1e-3,
}
"""Values for settings without a default, by name. A strategy with a new one fails below until it stands here."""

NAMESPACE = {name: getattr(implicit_grad, name) for name in EXPORTS}


def is_strategy(value) -> bool:
    """A frozen dataclass compared by value: what configures, and what labels columns."""
    params = getattr(value, "__dataclass_params__", None)
    return inspect.isclass(value) and params is not None and params.eq


STRATEGIES = [name for name in EXPORTS if is_strategy(NAMESPACE[name])]


def example(name):
    """One value of a strategy."""
    missing = dataclasses.MISSING
    needed = [
        f.name
        for f in dataclasses.fields(NAMESPACE[name])
        if f.init and f.default is missing and f.default_factory is missing
    ]
    return NAMESPACE[name](**{setting: SETTINGS[setting] for setting in needed})


@pytest.mark.parametrize("name", sorted(CENTRAL | PLANNED))
def test_central_names_can_be_imported(name):
    if name in PLANNED and not hasattr(implicit_grad, name):
        pytest.skip("planned")
    assert hasattr(implicit_grad, name)


def test_the_roof_only_re_exports():
    """Every line is `from implicit_grad.room import X as X`, sorted into rooms; the version is the rest."""
    docstring, *body = ast.parse(INIT.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    for node in body:
        if isinstance(node, ast.Assign):
            assert ast.unparse(node.targets[0]) == "__version__"
            continue
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        assert node.module.startswith("implicit_grad.")
        (alias,) = node.names
        assert alias.asname == alias.name, f"{alias.name} is not re-exported on purpose"
    assert {node.names[0].name for node in body if isinstance(node, ast.ImportFrom)} == set(EXPORTS)


@pytest.mark.parametrize("name", EXPORTS)
def test_public_names_are_documented(name):
    """The object itself, and its public methods and properties."""
    value = NAMESPACE[name]
    assert inspect.getdoc(value), name
    if inspect.isclass(value) and value.__module__.startswith("implicit_grad"):
        for attribute, member in vars(value).items():
            if not attribute.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_are_values(name):
    """Frozen, hashable, equal to their equals, rebuilt by their own repr and by pickle, changed by `replace`."""
    one, two = example(name), example(name)
    assert type(one).__dataclass_params__.frozen
    assert one == two
    assert hash(one) == hash(two)
    assert len({one, two}) == 1
    again = eval(repr(one), dict(NAMESPACE))
    assert again == one
    assert repr(again) == repr(one)
    assert pickle.loads(pickle.dumps(one)) == one
    assert dataclasses.replace(one) == one
    for field in dataclasses.fields(one):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, None)


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_label_themselves(name):
    """`describe` tells every setting apart, and survives JSON."""
    value = example(name)
    columns = implicit_grad.describe(value, "it")
    assert columns["it"] == name
    assert {f"it.{f.name}" for f in dataclasses.fields(value)} <= set(columns)
    json.dumps(columns, allow_nan=False)
    if hasattr(type(value), "label"):
        assert isinstance(value.label, str)
        assert value.label


def test_settings_change_the_value():
    """Every field takes part in equality: two strategies that run differently are different keys."""
    assert implicit_grad.CG(5) != implicit_grad.CG(6)
    assert implicit_grad.CG(5) != implicit_grad.CG(5, 1e-8)
    assert implicit_grad.CG(5) != implicit_grad.ScipyCG(5)
    assert implicit_grad.GradientDescent(0.1, 7) != implicit_grad.GradientDescent(0.1, 7, proximal=False)
    for name in STRATEGIES:
        for field in dataclasses.fields(NAMESPACE[name]):
            assert field.compare, f"{name}.{field.name}"
            assert field.repr, f"{name}.{field.name}"


def test_the_version_is_one():
    assert implicit_grad.__version__ == importlib.metadata.version("implicit-grad")


def test_the_package_is_typed():
    assert (INIT.parent / "py.typed").is_file()
