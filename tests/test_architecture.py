"""The house keeps its floors: imports point down, libraries stay in their rooms, modules stay small."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import implicit_grad

ROOT = Path(implicit_grad.__file__).parent
PACKAGE = ROOT.name

FLOORS = {
    "errors": 0,
    "_deferred": 0,
    "status": 0,
    "results": 0,
    "_memory": 0,
    "backend": 0,
    "border": 0,
    "_differences": 1,
    "objectives": 1,
    "regularizers": 1,
    "linear": 2,
    "problem": 2,
    "regularized": 2,
    "check": 3,
    "inner": 3,
    "newton_root": 3,
    "estimators": 4,
    "adapters": 5,
    "agreement": 5,
    "catalogue": 5,
    "certificates": 4,
    "implicit": 5,
    "reference": 5,
    "verify": 5,
    "storage": 0,
    "data": 5,
    "tasks": 5,
    "testing": 5,
    "sweep": 6,
    "plot": 6,
    "training": 6,
    "engine": 6,
    "explorer": 7,
    "cli": 7,
}
"""Room or module → floor. A module imports from its own floor or below, never above."""

FENCES = {
    "autograd": ("objectives/autodiff", "objectives/_primitive.py", "objectives/_device"),
    "cupy": ("backend.py",),
    "matplotlib": ("plot/",),
    "tyro": ("cli.py",),
    "bokeh": ("explorer/",),
    "hypothesis": ("testing/",),
    "mpmath": ("reference",),
    "flint": ("reference",),
    "sklearn": ("tasks/",),
    "pooch": ("data/",),
    "joblib": ("engine/",),
    "distributed": ("engine/",),
}
"""Library → the only places that may import it."""

OPTIONAL = (*FENCES.keys() - {"autograd"}, "cupyx", "xarray", "h5netcdf", "h5py", "tqdm", "PIL", "pandas")
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "core", "base", "common", "misc"}
LONGEST = 400

MODULES = sorted(ROOT.rglob("*.py"))
EVERY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))


def dotted(path: Path) -> str:
    """`…/linear/cg.py` → `implicit_grad.linear.cg`."""
    parts = (PACKAGE, *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path) for path in MODULES}


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs: what only the type checker sees is left out."""
    for child in ast.iter_child_nodes(tree):
        if _is_type_checking(child):
            yield from (each for other in child.orelse for each in (other, *_nodes(other)))
        else:
            yield child
            yield from _nodes(child)


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports, anywhere in it; `from package import name` counts as `package.name`."""
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> Iterator[str]:
    """Modules of this package that a module imports."""
    for name in imports(path):
        if name == PACKAGE or name.startswith(PACKAGE + "."):
            while name not in NAMES:
                name = name.rpartition(".")[0]
            yield name


def floor(module: str) -> int:
    """Floor of a dotted name; the roof, `implicit_grad` itself, stands above all."""
    parts = module.split(".")
    return FLOORS[parts[1]] if len(parts) > 1 else max(FLOORS.values()) + 1


@EVERY_MODULE
def test_every_module_has_a_floor(path):
    assert dotted(path) == PACKAGE or dotted(path).split(".")[1] in FLOORS


@EVERY_MODULE
def test_imports_only_point_down(path):
    own = dotted(path)
    for other in own_imports(path):
        assert floor(other) <= floor(own), f"{own} (floor {floor(own)}) imports {other} (floor {floor(other)})"
        assert own == PACKAGE or other != PACKAGE, f"{own} imports from the roof"


def test_imports_make_no_circle():
    graph = {dotted(path): set(own_imports(path)) - {dotted(path)} for path in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())


@EVERY_MODULE
def test_linear_solvers_know_no_problems(path):
    """One floor, and yet: operators and vectors are all that `linear` may see."""
    if dotted(path).startswith(f"{PACKAGE}.linear"):
        assert f"{PACKAGE}.problem" not in set(own_imports(path))


@EVERY_MODULE
def test_libraries_stay_in_their_rooms(path):
    where = path.relative_to(ROOT).as_posix()
    for name in imports(path):
        allowed = FENCES.get(name.split(".")[0])
        assert allowed is None or where.startswith(allowed), f"{where} imports {name}"


@EVERY_MODULE
def test_modules_are_small_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= LONGEST, f"{path.name}: {lines} lines; is it one room or several?"
    assert ast.get_docstring(ast.parse(text)), f"{path.name}: no docstring"
    for part in path.relative_to(ROOT).with_suffix("").parts:
        assert part.strip("_") not in FORBIDDEN_NAMES, f"{path.name}: a name that says nothing"


def test_a_folder_holds_at_least_three_siblings():
    for folder in {path.parent for path in MODULES} - {ROOT}:
        siblings = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(siblings) >= 3, f"{folder.name}: a module would do"


def shared_generators(tree: ast.Module) -> list[str]:
    """Module-level names bound to a random generator: what a test draws then depends on the tests before it."""
    return [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).rpartition(".")[2] in ("default_rng", "Generator", "RandomState")
    ]


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("*.py")), ids=lambda p: p.name)
def test_no_generator_is_shared_by_tests(path):
    assert not shared_generators(ast.parse(path.read_text(encoding="utf-8")))


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(run.stdout.split())


def test_importing_the_package_imports_nothing_optional():
    loaded = _loaded_by(f"import {PACKAGE}")
    assert {"numpy", "autograd", PACKAGE} <= loaded
    assert not loaded & set(OPTIONAL)


def test_the_checks_can_fail(tmp_path):
    """A module with every vice is seen through."""
    bad = tmp_path / "bad.py"
    bad.write_text(
        "import autograd.numpy as anp\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import cupy\n"
        "def f():\n    from implicit_grad.estimators import EXACT\n    from implicit_grad import border\n"
    )
    assert list(imports(bad)) == [
        "autograd.numpy",
        "typing.TYPE_CHECKING",
        "implicit_grad.estimators.EXACT",
        "implicit_grad.border",
    ]
    assert list(own_imports(bad)) == ["implicit_grad.estimators", "implicit_grad.border"]
    assert floor("implicit_grad.estimators.implicit") > floor("implicit_grad.border")
    assert floor("implicit_grad") > floor("implicit_grad.cli")
    assert "autograd" in _loaded_by("import autograd")
    assert shared_generators(ast.parse("RNG = np.random.default_rng(7)\nX = np.random.default_rng(7).random(3)")) == [
        "RNG = np.random.default_rng(7)"
    ]
