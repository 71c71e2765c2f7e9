"""The composed call: parameter trees, batches, layouts, read-only input."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
import pytest
from oracles import scenes
from oracles.losses import Diagonal
from oracles.scenes import LAMS

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    Autodiff,
    BilevelProblem,
    Cholesky,
    FirstOrderGradient,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MultilayerPerceptron,
    Newton,
    ScipyCG,
    ScipyMinimize,
    Softplus,
    Status,
    UnrolledGradient,
)

METHODS = [
    EXACT,
    MetaGradient(GradientDescent(0.05, 9), ImplicitGradient(CG(4))),
    MetaGradient(GradientDescent(None, 9), ImplicitGradient(ScipyCG(4))),
    MetaGradient(GradientDescent(None, 9, record=True), UnrolledGradient()),
    MetaGradient(GradientDescent(0.05, 9, record=True, proximal=False), UnrolledGradient()),
    MetaGradient(ScipyMinimize("BFGS"), FirstOrderGradient()),
]
IDS = [f"{type(m.inner_solver).__name__}, {m.label}" for m in METHODS]


def _draws():
    rng = np.random.default_rng(20190910)
    X, Y = rng.normal(size=(2, 7, 3)), rng.normal(size=(2, 7))
    return X, Y, [rng.normal(size=shape) for shape in ((3, 2), 2, 2, 1)]


X, Y, LEAVES = _draws()


def _loss(X, y):
    """A small network of named parts; what `parts` returns decides the structure of θ."""

    def of(parts):
        def loss(theta):
            W, b, w, c = parts(theta)
            return anp.mean((anp.dot(anp.tanh(anp.dot(X, W) + b), w) + c[0] - y) ** 2)

        return loss

    return of


W, B, V, C = LEAVES
# The vector lists the leaves in the order of the tree; dict keys are sorted.
TREES = {
    "list": ([W, B, V, C], lambda t: t),
    "tuple": ((W, B, V, C), lambda t: t),
    "dict": ({"a": W, "b": B, "c": V, "d": C}, lambda t: (t["a"], t["b"], t["c"], t["d"])),
    "nested": (
        {"body": [W, (B,)], "head": {"bias": C, "weight": V}},
        lambda t: (t["body"][0], t["body"][1][0], t["head"]["weight"], t["head"]["bias"]),
    ),
}


def _leaves(tree):
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree) for leaf in _leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for each in tree for leaf in _leaves(each)]
    return [tree]


def _same_structure(tree, other):
    assert type(tree) is type(other)
    if isinstance(tree, dict):
        assert list(tree) == list(other)
        for key in tree:
            _same_structure(tree[key], other[key])
    elif isinstance(tree, list | tuple):
        assert len(tree) == len(other)
        for one, two in zip(tree, other, strict=True):
            _same_structure(one, two)
    else:
        assert tree.shape == other.shape
        assert tree.dtype == other.dtype


@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("name", list(TREES))
def test_a_tree_equals_its_vector_bitwise(name, method):
    theta, parts = TREES[name]
    leaves = _leaves(theta)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    order = [next(i for i, leaf in enumerate(leaves) if leaf is each) for each in LEAVES]

    def from_vector(vector):
        pieces, start = [], 0
        for leaf in leaves:
            pieces.append(anp.reshape(vector[start : start + leaf.size], leaf.shape))
            start += leaf.size
        return [pieces[i] for i in order]

    vector = np.concatenate([leaf.ravel() for leaf in leaves])
    by_tree = BilevelProblem(*(Autodiff(_loss(x, y)(parts)) for x, y in zip(X, Y, strict=True)), 2.3)
    by_vector = BilevelProblem(*(Autodiff(_loss(x, y)(from_vector)) for x, y in zip(X, Y, strict=True)), 2.3)
    tree, flat = method(by_tree, theta), method(by_vector, vector)
    _same_structure(tree.gradient, theta)
    for leaf, wanted in zip(_leaves(tree.gradient), np.split(flat.gradient, ends), strict=True):
        assert np.array_equal(leaf.ravel(), wanted)
    assert tree.cost == flat.cost
    assert tree.status is flat.status


def test_nested_lists_of_numbers_are_arrays():
    scene = scenes.ridge(0.37)
    by_list = EXACT(scene.problem, scene.theta.tolist()).gradient
    assert np.array_equal(by_list, EXACT(scene.problem, scene.theta).gradient)


def test_integer_theta_is_cast_once():
    scene = scenes.ridge(0.37)
    theta = np.arange(6)
    estimate = EXACT(scene.problem, theta)
    assert estimate.gradient.dtype == np.float64
    assert np.array_equal(estimate.gradient, EXACT(scene.problem, theta.astype(float)).gradient)


@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_a_batch_is_its_problems(make, method):
    """λ (L, 1) against two tasks: every cell bitwise equals the problem solved alone, on NumPy."""
    one, two = make(0.4, seed=5), make(0.4, seed=6)
    losses = [_stack(getattr(one.problem, n), getattr(two.problem, n)) for n in ("inner", "outer")]
    lams = np.array(LAMS[:3])[:, None]
    problem, thetas = BilevelProblem(*losses, lams), np.stack([one.theta, two.theta])
    together = method(problem, thetas)
    assert together.gradient.shape == (3, 2, one.theta.size)
    for i, lam in enumerate(lams[:, 0]):
        for j, scene in enumerate((one, two)):
            alone = method(scene.problem.with_lam(lam), scene.theta)
            assert np.array_equal(together.gradient[i, j], alone.gradient)
            assert together.status[i, j] is alone.status
            assert together.inner.residual_norm[i, j] == alone.inner.residual_norm


def _stack(one, two):
    if isinstance(one, LeastSquares):
        return LeastSquares(np.stack([one.X, two.X]), np.stack([one.y, two.y]))
    return type(one)(np.stack([one.X, two.X]), np.stack([one.labels, two.labels]), one.n_classes)


@pytest.mark.parametrize(
    "method",
    [EXACT, METHODS[1], MetaGradient(GradientDescent(0.05, 9, record=True), UnrolledGradient())],
    ids=["exact", "CG-4", "unrolled"],
)
def test_one_bad_problem_leaves_its_neighbours_alone(method):
    """A step size far too long for one problem, a saddle in another: the third is bitwise itself."""
    h = np.array([[1.0, 2.0], [3e3, 1.0], [-5.0, 1.0]])
    problem = BilevelProblem(Diagonal(h, 1.0), Diagonal(np.ones((3, 2)), 0.5), 0.7)
    alone = BilevelProblem(Diagonal(h[0], 1.0), Diagonal(np.ones(2), 0.5), 0.7)
    theta = np.array([0.3, -0.8])
    together, single = method(problem, theta), method(alone, theta)
    assert np.array_equal(together.gradient[0], single.gradient)
    assert together.status[0] is single.status
    assert not together.ok.all()


@pytest.mark.parametrize("method", METHODS, ids=IDS)
def test_read_only_input_in_any_layout_gives_the_same_bits(method, rng):
    X, y, labels = rng.normal(size=(8, 3)), rng.normal(size=8), rng.integers(3, size=8)
    for build, theta in (
        (lambda X, y, _: LeastSquares(X, y), rng.normal(size=3)),
        (lambda X, _, c: scenes.SoftmaxCrossEntropy(X, c, 3), rng.normal(size=9)),
        (lambda X, y, _: MultilayerPerceptron(X, y, (2,), Softplus()), rng.normal(size=11)),
    ):
        results = []
        for layout in (np.ascontiguousarray, np.asfortranarray, _strided, _reversed):
            data = [layout(a) for a in (X, y, labels)]
            lam, start = layout(np.array([3.7])), layout(theta)
            for array in (*data, lam, start):
                array.flags.writeable = False
            before = [a.copy() for a in (*data, lam, start)]
            estimate = method(BilevelProblem(build(*data), build(*data), lam), start)
            assert all(np.array_equal(a, b) for a, b in zip((*data, lam, start), before, strict=True))
            results.append(estimate.gradient)
        assert all(np.array_equal(results[0], other) for other in results[1:])


def _strided(a):
    return np.repeat(np.repeat(a, 2, axis=0), 2, axis=-1)[::2, ..., ::2] if a.ndim > 1 else np.repeat(a, 3)[::3]


def _reversed(a):
    return np.ascontiguousarray(a[::-1])[::-1]


def test_results_do_not_share_memory_with_theta():
    scene = scenes.ridge(0.37)
    theta = scene.theta.copy()
    for inner in (GradientDescent(None, 0), GradientDescent(None, 2, record=True), Newton(max_steps=0)):
        solution = inner(scene.problem, theta)
        assert not np.shares_memory(solution.value, theta)


@pytest.mark.parametrize("method", METHODS[:5], ids=IDS[:5])
@pytest.mark.parametrize("lam", LAMS, ids="{:.3g}".format)
def test_float32_stays_float32(method, lam):
    """Every array of the result is float32, and within 64·N·κ̄·eps₃₂ of the float64 result."""
    scene = scenes.ridge(lam)
    inner, outer = (
        LeastSquares(f.X.astype(np.float32), f.y.astype(np.float32))
        for f in (scene.problem.inner, scene.problem.outer)
    )
    estimate = method(BilevelProblem(inner, outer, lam), scene.theta.astype(np.float32))
    for array in (estimate.gradient, estimate.inner.value, estimate.inner.residual_norm):
        assert array.dtype == np.float32
    if estimate.linear is not None:
        assert estimate.linear.value.dtype == estimate.linear.residual_norm.dtype == np.float32
    wanted = method(scene.problem, scene.theta).gradient
    if np.isfinite(wanted).all():
        tolerance = 64 * 6 * scene.condition * float(np.finfo(np.float32).eps)
        assert np.linalg.norm(estimate.gradient - wanted) <= tolerance * np.linalg.norm(wanted)


def test_measured_memory_is_reported():
    scene = scenes.ridge(0.37)
    plain = MetaGradient(GradientDescent(None, 3), ImplicitGradient(CG(2)))
    measured = MetaGradient(GradientDescent(None, 3), ImplicitGradient(CG(2)), measure_memory=True)
    assert plain(scene.problem, scene.theta).cost.peak_bytes is None
    assert measured(scene.problem, scene.theta).cost.peak_bytes > scene.theta.nbytes


def test_wrong_objects_are_named():
    scene = scenes.ridge(0.37)
    with pytest.raises(ArgumentTypeError, match=r"problem: .*LeastSquares"):
        EXACT(scene.problem.inner, scene.theta)
    with pytest.raises(ArgumentTypeError, match="inner_solver"):
        MetaGradient(Newton, ImplicitGradient(CG(3)))
    with pytest.raises(ArgumentTypeError, match="estimator"):
        MetaGradient(Newton(), "CG")
    with pytest.raises(ArgumentTypeError, match="linear_solver"):
        ImplicitGradient(Cholesky)
    with pytest.raises(ArgumentError, match="theta"):
        EXACT(scene.problem, {})


@pytest.mark.parametrize("steps", [220, 800])
@pytest.mark.parametrize("method", METHODS, ids=IDS)
@pytest.mark.parametrize("make", [scenes.ridge, scenes.softmax], ids=["ridge", "softmax"])
def test_a_run_that_diverges_is_told_by_its_status_and_by_no_warning(make, method, steps):
    """Warnings are errors here: what overflows at 1e200 was said once, by `DIVERGED`."""
    scene = make(0.37)
    far = replace(method, inner_solver=GradientDescent(50.0, steps, record=True))
    estimate = far(scene.problem, scene.theta)
    assert estimate.status is Status.DIVERGED
