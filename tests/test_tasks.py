"""Laws of the task sources: 59 (streams), 60 (episodes), 61 (condition numbers), 62 and 63 (losses of tasks)."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given
from hypothesis import strategies as st

from implicit_grad import (
    CG,
    EXACT,
    ArgumentError,
    ArgumentTypeError,
    DataNotFound,
    GradientDescent,
    ImplicitGradient,
    LeastSquares,
    MetaGradient,
    MissingDependency,
    MultilayerPerceptron,
    SoftmaxCrossEntropy,
    Softplus,
    Tanh,  # noqa: F401  the repr of a source names it
)
from implicit_grad.data import PackedImages, load_omniglot
from implicit_grad.tasks import (
    Arithmetic,
    Clustered,
    Digits,
    Downsampling,
    Geometric,
    Omniglot,
    RandomRidge,
    Sinusoid,
    Split,
    TaskSource,
)
from implicit_grad.tasks import digits as digits_module
from implicit_grad.tasks import omniglot as omniglot_module
from implicit_grad.tasks._draws import orthonormal
from implicit_grad.tasks._few_shot import draw_episode

U = 2.0**-53

# Written as text: the fresh process of law 59 builds the very same ones.
SOURCES = (
    "RandomRidge()",
    "RandomRidge(dim=12, train_samples=5, test_samples=3, condition=1e4, spectrum=Clustered(2), noise=0.0)",
    "RandomRidge(dim=4, condition=None, spectrum=(3.0, 0.0, 1e-3), scale=10.0)",
    "Sinusoid(shots=4, hidden=(6, 5))",
    "Digits()",
    "Digits(ways=3, shots=2, queries=4, hidden=(7,), activation=Softplus())",
    "Omniglot(queries=4)",
    "Omniglot(ways=3, shots=2, queries=2, hidden=(6,), downsampling=Downsampling.LANCZOS, rotations=True)",
    "Omniglot(shots=1, queries=2, split=Split.EVALUATION)",
)


def build(text: str) -> TaskSource:
    if text.startswith("Omniglot"):
        try:
            load_omniglot()
        except DataNotFound as missing:
            pytest.skip(f"Omniglot's file is not here: {str(missing).splitlines()[0]}")
    return eval(text)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> TaskSource:
    return build(request.param)


def arrays(problem) -> list[np.ndarray]:
    """Features and targets of both halves."""
    halves = (problem.inner, problem.outer)
    return [part for f in halves for part in (f.X, f.labels if hasattr(f, "labels") else f.y)]


def fingerprint(problem, theta) -> str:
    digest = hashlib.sha256()
    for part in (*arrays(problem), theta):
        digest.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


# 59: streams


def test_same_seed_same_tasks_in_a_fresh_process_in_any_order(tmp_path):
    present = [text for text in SOURCES if not text.startswith("Omniglot") or _has_omniglot()]
    expected = {}
    for text in present:
        rng = np.random.default_rng(31)
        source = eval(text)
        expected[text] = fingerprint(source.sample(rng, tasks=3, lam=0.7), source.initial_parameters(rng))
    script = (
        "import sys, hashlib, numpy as np\n"
        f"sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from test_tasks import *\n"
        f"for text in reversed({present!r}):\n"
        "    np.random.default_rng(8).standard_normal(10)\n"
        "    rng, source = np.random.default_rng(31), eval(text)\n"
        "    print(fingerprint(source.sample(rng, tasks=3, lam=0.7), source.initial_parameters(rng)))\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    fresh = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert dict(zip(reversed(present), fresh.stdout.split(), strict=True)) == expected


def _has_omniglot() -> bool:
    try:
        load_omniglot()
    except DataNotFound:
        return False
    return True


def test_a_task_does_not_depend_on_how_many_are_drawn_nor_on_earlier_draws(source):
    few = arrays(source.sample(np.random.default_rng(17), tasks=2, lam=3.0))
    rng = np.random.default_rng(17)
    rng.standard_normal(5)
    many = arrays(source.sample(rng, tasks=5, lam=3.0))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:2])


def test_tasks_and_calls_are_fresh(source):
    rng = np.random.default_rng(17)
    first, second = (arrays(source.sample(rng, tasks=2, lam=3.0))[0] for _ in range(2))
    drawn = [*first, *second]
    for i, a in enumerate(drawn):
        assert not any(np.array_equal(a, b) for b in drawn[:i])


@given(seed=st.integers(2, 2**32), fewer=st.integers(1, 10))
def test_the_number_of_test_samples_does_not_change_the_train_half(seed, fewer):
    a, b = (
        RandomRidge(3, 4, m).sample(np.random.default_rng(seed), tasks=2, lam=0.3).inner for m in (fewer, fewer + 7)
    )
    np.testing.assert_array_equal(a.X, b.X)
    np.testing.assert_array_equal(a.y, b.y)


# What every source promises


def test_shapes_and_protocol(source):
    assert isinstance(source, TaskSource)
    assert hash(source) == hash(eval(repr(source)))
    assert eval(repr(source)) == source
    rng = np.random.default_rng(23)
    lam = np.array([[0.2], [5.0], [40.0]])
    problem, theta = source.sample(rng, tasks=4, lam=lam), source.initial_parameters(rng)
    assert problem.batch_shape == (3, 4)
    assert problem.inner.batch_shape == problem.outer.batch_shape == (4,)
    assert theta.shape == (source.size,) == (problem.inner.size,) == (problem.outer.size,)
    assert theta.dtype == problem.inner.dtype == np.float64
    assert problem.parameters(theta).shape == (3, 4, source.size)
    assert source.label
    assert "\n" not in source.label
    assert source.sample(rng, tasks=1, lam=0.4).batch_shape == (1,)
    assert source.sample(rng, tasks=2, lam=np.array([0.4, 0.5])).batch_shape == (2,)
    with pytest.raises(ArgumentError, match="lam"):
        source.sample(rng, tasks=2, lam=np.ones(3))


def test_every_source_runs_through_an_estimator(source):
    rng = np.random.default_rng(29)
    # λ outweighs the negative curvature that a network has on 784 inputs near 1.
    problem, theta = source.sample(rng, tasks=2, lam=np.array([[600.0], [900.0]])), source.initial_parameters(rng)
    estimate = MetaGradient(GradientDescent(None, 15), ImplicitGradient(CG(5)))(problem, theta)
    assert np.all(estimate.ok)
    assert np.all(np.isfinite(estimate.gradient))
    assert estimate.gradient.shape == (2, 2, source.size)
    assert np.all(np.linalg.norm(estimate.gradient, axis=-1) > 0)


@pytest.mark.parametrize("text", ["RandomRidge(dim=7, condition=1e3)", "Digits(ways=2, shots=3, queries=2)"])
def test_exact_meta_gradient_of_linear_models(text):
    source, rng = eval(text), np.random.default_rng(37)
    problem, theta = source.sample(rng, tasks=3, lam=0.25), source.initial_parameters(rng)
    estimate = EXACT(problem, theta)
    assert np.all(estimate.ok)
    if isinstance(source, RandomRidge):
        for task in range(3):
            X, y, X_test, y_test = (part[task] for part in arrays(problem))
            A = X.T @ X / 30 + 0.25 * np.eye(7)
            phi = np.linalg.solve(A, X.T @ y / 30 + 0.25 * theta)
            b = X_test.T @ (X_test @ phi - y_test) / 30
            g = 0.25 * np.linalg.solve(A, b)
            tolerance = 64 * 7 * (1.25 / 0.25) * U * np.mean(np.linalg.norm(X_test, axis=1) * np.abs(y_test)) * 5
            assert np.linalg.norm(g - estimate.gradient[task]) <= tolerance


@pytest.mark.parametrize("rng", [None, 7, np.random.RandomState(7), np.random])
def test_only_generators_are_sources_of_randomness(source, rng):
    with pytest.raises(ArgumentTypeError, match="rng"):
        source.sample(rng, tasks=2, lam=0.5)
    with pytest.raises(ArgumentTypeError, match="rng"):
        source.initial_parameters(rng)


def test_a_generator_that_cannot_spawn_is_refused():
    with pytest.raises(ArgumentTypeError, match="rng: cannot spawn"):
        RandomRidge().sample(np.random.Generator(np.random.RandomState(7)._bit_generator), tasks=2, lam=0.5)


@pytest.mark.parametrize(
    ("tasks", "error"), [(0, ArgumentError), (-3, ArgumentError), (2.0, ArgumentTypeError), (True, ArgumentTypeError)]
)
def test_number_of_tasks(source, tasks, error):
    with pytest.raises(error, match="tasks"):
        source.sample(np.random.default_rng(7), tasks=tasks, lam=0.5)


BAD = [
    ("RandomRidge(dim=0)", "dim", ArgumentError),
    ("RandomRidge(dim=2.5)", "dim", ArgumentTypeError),
    ("RandomRidge(train_samples=-1)", "train_samples", ArgumentError),
    ("RandomRidge(test_samples=True)", "test_samples", ArgumentTypeError),
    ("RandomRidge(condition=0.5)", "condition", ArgumentError),
    ("RandomRidge(condition=float('nan'))", "condition", ArgumentError),
    ("RandomRidge(condition=float('inf'))", "condition", ArgumentError),
    ("RandomRidge(condition='10')", "condition", ArgumentTypeError),
    ("RandomRidge(condition=None)", "condition", ArgumentTypeError),
    ("RandomRidge(dim=1)", "condition", ArgumentError),
    ("RandomRidge(train_samples=1)", "condition", ArgumentError),
    ("RandomRidge(rank=1)", "condition", ArgumentError),
    ("RandomRidge(rank=0)", "rank", ArgumentError),
    ("RandomRidge(rank=21)", "rank", ArgumentError),
    ("RandomRidge(train_samples=10, rank=11)", "rank", ArgumentError),
    ("RandomRidge(scale=0.0)", "scale", ArgumentError),
    ("RandomRidge(noise=-0.1)", "noise", ArgumentError),
    ("RandomRidge(noise=float('nan'))", "noise", ArgumentError),
    ("RandomRidge(noise=(0.1, 0.2))", "noise", ArgumentTypeError),
    ("RandomRidge(spectrum=(1.0, 0.5))", "condition", ArgumentError),
    ("RandomRidge(condition=None, spectrum=(1.0,), rank=1)", "condition, rank", ArgumentError),
    ("RandomRidge(condition=None, spectrum=(1.0, -0.5))", "spectrum", ArgumentError),
    ("RandomRidge(condition=None, spectrum=(1.0, float('inf')))", "spectrum", ArgumentError),
    ("RandomRidge(condition=None, spectrum=())", "spectrum", ArgumentError),
    ("RandomRidge(dim=2, condition=None, spectrum=(1.0, 1.0, 1.0))", "spectrum", ArgumentError),
    ("RandomRidge(train_samples=2, condition=None, spectrum=(1.0, 1.0, 1.0, 0.0))", "spectrum", ArgumentError),
    ("RandomRidge(condition=None, spectrum=3.0)", "spectrum", ArgumentTypeError),
    ("RandomRidge(condition=None, spectrum='geometric')", "spectrum", ArgumentTypeError),
    ("RandomRidge(condition=None, spectrum=Geometric)", "spectrum", ArgumentTypeError),
    ("RandomRidge(spectrum=Clustered(21))", "clusters", ArgumentError),
    ("RandomRidge(spectrum=Clustered(1))", "clusters", ArgumentError),
    ("Clustered(0)", "clusters", ArgumentError),
    ("Clustered(2.0)", "clusters", ArgumentTypeError),
    ("Sinusoid(shots=0)", "shots", ArgumentError),
    ("Sinusoid(queries=-2)", "queries", ArgumentError),
    ("Sinusoid(hidden=40)", "hidden", ArgumentTypeError),
    ("Sinusoid(hidden=(40, 0))", "hidden", ArgumentError),
    ("Sinusoid(amplitude=(2.0, 1.0))", "amplitude", ArgumentError),
    ("Sinusoid(phase=1.0)", "phase", ArgumentTypeError),
    ("Sinusoid(interval=(-1.0, float('nan')))", "interval", ArgumentError),
    ("Digits(ways=1)", "ways", ArgumentError),
    ("Digits(ways=11)", "ways", ArgumentError),
    ("Digits(shots=0)", "shots", ArgumentError),
    ("Digits(queries=-1)", "queries", ArgumentError),
    ("Digits(shots=100, queries=75)", "shots, queries", ArgumentError),
    ("Digits(hidden='40')", "hidden", ArgumentTypeError),
    ("Omniglot(ways=965)", "ways", ArgumentError),
    ("Omniglot(ways=660, split=Split.EVALUATION)", "ways", ArgumentError),
    ("Omniglot(ways=2637, split=Split.EVALUATION, rotations=True)", "ways", ArgumentError),
    ("Omniglot(shots=10, queries=11)", "shots, queries", ArgumentError),
    ("Omniglot(shots=1.0)", "shots", ArgumentTypeError),
    ("Omniglot(downsampling='nearest')", "downsampling", ArgumentTypeError),
    ("Omniglot(rotations=1)", "rotations", ArgumentTypeError),
    ("Omniglot(split='background')", "split", ArgumentTypeError),
    ("Omniglot(path=3.5)", "path", ArgumentTypeError),
]


@pytest.mark.parametrize(("text", "argument", "error"), BAD)
def test_bad_arguments_are_named_at_construction(text, argument, error):
    with pytest.raises(error, match=f"^{argument}"):
        eval(text)


def test_integers_of_numpy_make_the_same_source():
    assert Digits(ways=np.int64(3)) == Digits(ways=3)
    assert repr(Sinusoid(shots=np.int32(3), hidden=[4, np.int64(5)])) == repr(Sinusoid(shots=3, hidden=(4, 5)))
    assert hash(RandomRidge(condition=np.float64(10), dim=np.int64(4))) == hash(RandomRidge(condition=10, dim=4))


def test_importing_tasks_stays_light(tmp_path):
    script = "import sys, implicit_grad.tasks; print([m for m in ('sklearn', 'pooch', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"


# 61: spectra


@given(
    dim=st.integers(2, 30),
    extra=st.integers(0, 10),
    log10_condition=st.floats(0, 6),
    log10_scale=st.integers(-3, 3),
    rule=st.sampled_from([Geometric(), Arithmetic(), Clustered(2)]),
    seed=st.integers(2, 2**32),
)
@example(dim=2, extra=0, log10_condition=0.0, log10_scale=0, rule=Clustered(2), seed=5)
def test_condition_number_is_the_one_asked_for(dim, extra, log10_condition, log10_scale, rule, seed):
    condition, scale = 10.0**log10_condition, 10.0**log10_scale
    source = RandomRidge(dim, dim + extra, 3, condition, spectrum=rule, scale=scale)
    X = source.sample(np.random.default_rng(seed), tasks=2, lam=0.3).inner.X
    # Singular values of X: the square root of the condition number loses half as many digits as XᵀX would.
    found = np.linalg.svd(X, compute_uv=False) ** 2 / (dim + extra)
    tolerance = 16 * dim * U * condition**0.5
    assert np.all(np.abs(found[:, 0] / found[:, -1] - condition) <= 1e-10 * condition)
    assert np.all(np.abs(found - source.eigenvalues) <= tolerance * source.eigenvalues)
    assert abs(source.eigenvalues[0] - scale) <= 2 * U * scale


@given(
    dim=st.integers(1, 12),
    n=st.integers(1, 12),
    zeros=st.integers(0, 12),
    seed=st.integers(2, 2**32),
)
@example(dim=3, n=5, zeros=3, seed=5)
def test_listed_eigenvalues_and_rank(dim, n, zeros, seed):
    rank = max(0, min(dim - zeros, n))
    values = np.random.default_rng(seed).uniform(0.5, 2.0, rank).tolist() + [0.0] * min(zeros, dim - rank)
    source = RandomRidge(dim, n, 2, None, spectrum=tuple(values or [0.0]), scale=3.0)
    X = source.sample(np.random.default_rng(seed), tasks=2, lam=0.3).inner.X
    wanted = np.zeros(dim)
    wanted[:rank] = 3 * np.sort(values)[::-1][:rank]
    found = np.linalg.eigvalsh(np.swapaxes(X, -1, -2) @ X / n)[:, ::-1]
    assert np.all(np.abs(found - wanted) <= 16 * max(dim, n) * U * 6)
    np.testing.assert_array_equal(source.eigenvalues[rank:], 0)


@given(rank=st.integers(2, 40), log10_condition=st.floats(0, 12), clusters=st.integers(2, 40))
def test_rules_start_at_one_end_at_one_over_kappa_and_descend(rank, log10_condition, clusters):
    condition = 10.0**log10_condition
    for rule in (Geometric(), Arithmetic(), Clustered(min(clusters, rank))):
        values = rule.eigenvalues(rank, condition)
        assert values.shape == (rank,)
        assert values[0] == 1
        assert abs(values[-1] * condition - 1) <= 4 * U * condition**0.5
        assert np.all(np.diff(values) <= 0)
    inside = Geometric().eigenvalues(rank, condition)
    ratios = np.log(inside[:-1] / inside[1:])
    assert np.all(np.abs(ratios - np.log(condition) / (rank - 1)) <= 64 * U * (1 + np.log(condition)))
    gaps = -np.diff(Arithmetic().eigenvalues(rank, condition))
    assert np.all(np.abs(gaps - (1 - 1 / condition) / (rank - 1)) <= 4 * U)
    if condition > 1.5:
        assert np.unique(Clustered(min(clusters, rank)).eigenvalues(rank, condition)).size == min(clusters, rank)


@given(rows=st.integers(1, 20), missing=st.integers(0, 19), seed=st.integers(2, 2**32))
def test_columns_are_orthonormal(rows, missing, seed):
    columns = max(1, rows - missing)
    Q = orthonormal(np.random.default_rng(seed), rows, columns)
    assert Q.shape == (rows, columns)
    assert np.linalg.norm(Q.T @ Q - np.eye(columns), 2) <= 16 * rows * U


@pytest.mark.parametrize("size", [1, 3])
def test_orthogonal_factors_are_haar(size):
    # For Haar E tr Q = 0 and E (tr Q)² = 1; the bare Q of LAPACK's QR has a trace far from zero on average.
    rng, draws = np.random.default_rng(41), 4000
    traces = np.array([np.trace(orthonormal(rng, size, size)) for _ in range(draws)])
    assert abs(traces.mean()) <= 5 / draws**0.5
    assert abs((traces**2).mean() - 1) <= 5 * traces.var() * (3 / draws) ** 0.5
    raw = np.array([np.trace(np.linalg.qr(rng.standard_normal((size, size)))[0]) for _ in range(draws)])
    assert abs(raw.mean()) > 5 / draws**0.5  # the check has power


@given(dim=st.integers(2, 8), seed=st.integers(2, 2**32), log10_condition=st.integers(0, 3))
def test_both_halves_have_the_same_parameters_and_covariance(dim, seed, log10_condition):
    condition = 10.0**log10_condition
    source = RandomRidge(dim, dim + 3, 6, condition, noise=0.0)
    problem = source.sample(np.random.default_rng(seed), tasks=1, lam=0.3)
    X, y, X_test, y_test = (part[0] for part in arrays(problem))
    w = np.linalg.lstsq(X, y, rcond=None)[0]
    scale = np.linalg.norm(X_test, axis=1) * np.linalg.norm(w)
    assert np.all(np.abs(X_test @ w - y_test) <= 64 * dim * U * condition**0.5 * scale)


def test_test_features_have_the_train_covariance():
    source = RandomRidge(4, 6, 20_000, 50.0)
    problem = source.sample(np.random.default_rng(43), tasks=1, lam=0.3)
    train, test = problem.inner.X[0].T @ problem.inner.X[0] / 6, problem.outer.X[0].T @ problem.outer.X[0] / 20_000
    # Whitened, the sample covariance is I up to about 2·√(d/m).
    root = np.linalg.cholesky(train)
    white = np.linalg.solve(root, np.linalg.solve(root, test).T)
    assert np.linalg.norm(white - np.eye(4), 2) <= 4 * (4 / 20_000) ** 0.5


def test_noise_has_the_size_asked_for():
    problem = RandomRidge(4, 5000, 5000, noise=0.5).sample(np.random.default_rng(89), tasks=1, lam=0.3)
    for half in (problem.inner, problem.outer):
        X, y = half.X[0], half.y[0]
        residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        assert abs(np.std(residual) / 0.5 - 1) <= 5 / (2 * 5000) ** 0.5


# Sine waves


def test_sine_waves_are_those_of_the_paper():
    problem = Sinusoid(shots=6, queries=7).sample(np.random.default_rng(47), tasks=400, lam=2.0)
    amplitudes, phases = [], []
    for x, y, x_test, y_test in zip(*arrays(problem), strict=True):
        x, x_test = x[:, 0], x_test[:, 0]
        assert np.all(np.abs(np.concatenate([x, x_test])) <= 5)
        # A sin(x − p) = A cos p · sin x − A sin p · cos x: linear in two coefficients, the same for both halves.
        basis = np.stack([np.sin(x), np.cos(x)], axis=1)
        a, b = np.linalg.lstsq(basis, y, rcond=None)[0]
        tolerance = 64 * U * 5 * np.linalg.cond(basis)
        assert np.all(np.abs(a * np.sin(x_test) + b * np.cos(x_test) - y_test) <= tolerance)
        amplitudes.append(np.hypot(a, b))
        phases.append(np.arctan2(-b, a))
    slack = 64 * U * 5 * 10
    assert min(amplitudes) >= 0.1 - slack
    assert min(phases) >= -slack
    inputs = arrays(problem)[0].ravel()
    for values, low, high in ((amplitudes, 0.1, 5.0), (phases, 0.0, np.pi), (inputs, -5.0, 5.0)):
        assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_sinusoid_learner_is_the_papers_network():
    source = Sinusoid()
    problem = source.sample(np.random.default_rng(7), tasks=1, lam=2.0)
    assert isinstance(problem.inner, MultilayerPerceptron)
    assert problem.inner.widths == (1, 40, 40, 1)
    assert source.size == 1 * 40 + 40 + 40 * 40 + 40 + 40 * 1 + 1
    soft = Sinusoid(activation=Softplus()).sample(np.random.default_rng(7), tasks=1, lam=2.0)
    assert soft.inner.activation == soft.outer.activation == Softplus()


# Initial parameters


@pytest.mark.parametrize("text", ["Sinusoid(hidden=(40, 30))", "Digits(hidden=(40,))", "Omniglot(hidden=(8,))"])
def test_glorot_weights_and_zero_biases(text):
    source = build(text)
    rng = np.random.default_rng(53)
    theta = source.initial_parameters(rng)
    for W, b in source.sample(rng, tasks=1, lam=2.0).inner.layers(theta):
        np.testing.assert_array_equal(b, 0)
        squares = np.sum(W**2) * sum(W.shape) / 2
        assert abs(squares - W.size) <= 5 * (2 * W.size) ** 0.5
        assert abs(np.sum(W)) <= 5 * (W.size * 2 / sum(W.shape)) ** 0.5


def test_softmax_bias_row_is_zero():
    theta = Digits().initial_parameters(np.random.default_rng(59)).reshape(65, 5)
    np.testing.assert_array_equal(theta[-1], 0)
    assert np.all(theta[:-1] != 0)


def test_ridge_starts_from_the_law_of_its_parameters():
    theta = RandomRidge(dim=2000).initial_parameters(np.random.default_rng(61))
    assert scipy.stats.kstest(theta, "norm").pvalue > 1e-3


# 60: episodes


@given(
    ways=st.integers(1, 6),
    spare=st.integers(0, 4),
    shots=st.integers(1, 6),
    queries=st.integers(1, 6),
    more=st.integers(0, 3),
    seed=st.integers(2, 2**32),
)
@example(ways=5, spare=0, shots=3, queries=2, more=0, seed=5)
def test_support_and_query_are_disjoint_with_k_of_each_class(ways, spare, shots, queries, more, seed):
    sizes = [shots + queries + (more * c) % 4 for c in range(ways + spare)]
    episode = draw_episode(np.random.default_rng(seed), sizes, ways, shots, queries)
    assert len(set(episode.classes)) == ways
    assert set(episode.classes) <= set(range(len(sizes)))
    assert episode.support.shape == (ways, shots)
    assert episode.query.shape == (ways, queries)
    for c, support, query in zip(episode.classes, episode.support, episode.query, strict=True):
        together = [*support, *query]
        assert len(set(together)) == shots + queries
        assert set(together) <= set(range(sizes[c]))


def test_classes_and_samples_are_uniform():
    rng, draws = np.random.default_rng(67), 3000
    episodes = [draw_episode(rng, [6] * 5, 3, 2, 1) for _ in range(draws)]
    for chosen in (
        [(c, way) for e in episodes for way, c in enumerate(e.classes)],
        [(k, 0) for e in episodes for k in e.support.ravel()],
        [(k, 0) for e in episodes for k in e.query.ravel()],
    ):
        counts = np.unique(np.array(chosen), axis=0, return_counts=True)[1]
        assert counts.size in (15, 6)
        assert scipy.stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_digits_tasks_are_real_digits(hidden):
    from sklearn.datasets import load_digits

    raw = load_digits()
    number = {image.tobytes(): i for i, image in enumerate(raw.data / 16)}
    assert len(number) == len(raw.target)  # no two images are equal: an image tells its number
    problem = Digits(ways=4, shots=3, queries=6, hidden=hidden).sample(np.random.default_rng(71), tasks=20, lam=0.5)
    loss = MultilayerPerceptron if hidden else SoftmaxCrossEntropy
    assert isinstance(problem.inner, loss)
    orders = set()
    for X, labels, X_test, test_labels in zip(*arrays(problem), strict=True):
        if not hidden:
            np.testing.assert_array_equal(X[:, 64], 1)
            np.testing.assert_array_equal(X_test[:, 64], 1)
        support, query = ([number[row[:64].tobytes()] for row in each] for each in (X, X_test))
        assert len({*support, *query}) == 4 * (3 + 6)
        np.testing.assert_array_equal(np.bincount(labels, minlength=4), 3)
        np.testing.assert_array_equal(np.bincount(test_labels, minlength=4), 6)
        meaning = {label: set() for label in range(4)}
        for label, i in zip([*labels, *test_labels], [*support, *query], strict=True):
            meaning[label].add(raw.target[i])
        assert all(len(digits) == 1 for digits in meaning.values())
        order = tuple(digits.pop() for digits in meaning.values())
        assert len(set(order)) == 4
        orders.add(order)
    assert len(orders) > 10
    assert any(order != tuple(sorted(order)) for order in orders)


def test_digits_without_scikit_learn(monkeypatch):
    digits_module._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingDependency, match=r"implicit-grad\[data\]"):
        Digits().sample(np.random.default_rng(7), tasks=1, lam=0.5)


def coded_drawing(character: int, drawer: int) -> np.ndarray:
    """A drawing that tells who it is after any quarter turn: numbers in the top rows, a full corner below left."""
    small = np.zeros((28, 28), dtype=bool)
    small[0, :11] = [int(bit) for bit in f"{character:011b}"]
    small[1, :5] = [int(bit) for bit in f"{drawer:05b}"]
    small[20:, :8] = True
    index = np.arange(105) * 28 // 105
    return small[index[:, None], index]


def decode(image: np.ndarray) -> tuple[int, int, int]:
    """Character, drawer and quarter turns."""
    turn = next(k for k in range(4) if np.rot90(image, -k)[20:, :8].all())
    upright = np.rot90(image, -turn).astype(int).astype(str)
    return int("".join(upright[0, :11]), 2), int("".join(upright[1, :5]), 2), turn


@pytest.fixture(scope="module")
def coded_images() -> PackedImages:
    ink = np.array([[np.packbits(coded_drawing(c, d)) for d in range(20)] for c in range(1623)])
    return PackedImages(ink, np.zeros(1623, dtype=np.uint8), np.array(["A"]), 964)


@pytest.fixture
def coded(coded_images, monkeypatch):
    monkeypatch.setattr(omniglot_module, "load_omniglot", lambda path: coded_images)


@pytest.mark.parametrize("split", Split)
@pytest.mark.parametrize("rotations", [False, True])
def test_omniglot_tasks_are_real_characters(coded, split, rotations):
    source = Omniglot(ways=6, shots=2, queries=3, rotations=rotations, split=split, hidden=(3,))
    problem = source.sample(np.random.default_rng(73), tasks=25, lam=0.5)
    characters, turns = set(), set()
    for X, labels, X_test, test_labels in zip(*arrays(problem), strict=True):
        seen, meaning = set(), {label: set() for label in range(6)}
        for label, row in zip([*labels, *test_labels], [*X, *X_test], strict=True):
            character, drawer, turn = decode(row.reshape(28, 28))
            meaning[label].add((character, turn))
            seen.add((character, turn, drawer))
        assert len(seen) == 6 * (2 + 3)
        assert all(len(each) == 1 for each in meaning.values())
        assert len(set.union(*meaning.values())) == 6
        np.testing.assert_array_equal(np.bincount(labels), 2)
        np.testing.assert_array_equal(np.bincount(test_labels), 3)
        characters |= {c for each in meaning.values() for c, _ in each}
        turns |= {t for each in meaning.values() for _, t in each}
    official = range(964) if split is Split.BACKGROUND else range(964, 1623)
    assert characters <= set(official)
    # The range is used to its ends, not a part of it.
    assert np.ptp(list(characters)) > 0.8 * len(official)
    assert turns == (set(range(4)) if rotations else {0})


def test_omniglot_counts_its_classes(coded):
    assert Omniglot().n_classes == 964
    assert Omniglot(split=Split.EVALUATION).n_classes == 659
    assert Omniglot(split=Split.EVALUATION, rotations=True).n_classes == 4 * 659
    everything = Omniglot(ways=659, shots=1, queries=1, split=Split.EVALUATION)
    problem = everything.sample(np.random.default_rng(79), tasks=1, lam=0.5)
    found = {decode(row[:784].reshape(28, 28))[0] for row in problem.inner.X[0]}
    assert found == set(range(964, 1623))


@pytest.mark.parametrize("downsampling", Downsampling)
def test_omniglot_polarity(coded, downsampling):
    problem = Omniglot(downsampling=downsampling).sample(np.random.default_rng(83), tasks=2, lam=0.5)
    pixels = problem.inner.X[..., :784]
    np.testing.assert_array_equal(problem.inner.X[..., 784], 1)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    # A drawing has far more paper than ink.
    assert (pixels.mean() < 0.5) == (downsampling is Downsampling.NEAREST)


# 62 and 63: losses of the tasks


@given(
    ways=st.integers(2, 10), shots=st.integers(1, 5), seed=st.integers(2, 2**32), hidden=st.sampled_from([(), (4,)])
)
def test_cross_entropy_laws_on_digits(ways, shots, seed, hidden):
    source = Digits(ways=ways, shots=shots, queries=2, hidden=hidden)
    rng = np.random.default_rng(seed)
    loss = source.sample(rng, tasks=2, lam=0.5).inner
    zero = np.zeros((2, source.size))
    assert np.all(np.abs(loss.value(zero) - np.log(ways)) <= 4 * U * np.log(ways))

    theta = source.initial_parameters(rng) * np.ones((2, 1))
    # The last layer's gradient, a row per input of the layer and one for the bias, sums to zero over classes.
    inputs = hidden[-1] if hidden else 64
    rows = loss.gradient(theta)[:, -(inputs + 1) * ways :].reshape(2, inputs + 1, ways)
    assert np.all(np.abs(rows.sum(axis=-1)) <= 64 * ways * U)

    # One bias more for all classes changes nothing.
    shifted = theta.copy()
    shifted[:, -ways:] += 3.0
    assert np.all(np.abs(loss.value(shifted) - loss.value(theta)) <= 64 * U * (3 + np.abs(theta).sum(axis=-1)))

    huge = theta.copy()
    huge[:, -ways:] = np.linspace(-1e4, 1e4, ways)
    linearization = loss.linearize(huge)
    for part in (linearization.value, linearization.gradient, linearization.hvp(theta)):
        assert np.all(np.isfinite(part))


@pytest.mark.parametrize(
    "text", ["RandomRidge(dim=6, train_samples=9, condition=30.0)", "Sinusoid(hidden=(5,))", "Digits(shots=3)"]
)
@given(seed=st.integers(2, 2**32), cut=st.integers(1, 8))
def test_loss_of_a_split_is_the_weighted_mean_of_its_parts(text, seed, cut):
    source, rng = eval(text), np.random.default_rng(seed)
    loss, theta = source.sample(rng, tasks=3, lam=0.5).inner, source.initial_parameters(rng)
    n = loss.X.shape[-2]

    def part(rows):
        if isinstance(loss, LeastSquares):
            return LeastSquares(loss.X[:, rows], loss.y[:, rows])
        if isinstance(loss, SoftmaxCrossEntropy):
            return SoftmaxCrossEntropy(loss.X[:, rows], loss.labels[:, rows], loss.n_classes)
        return MultilayerPerceptron(loss.X[:, rows], loss.y[:, rows], loss.hidden)

    first, second = part(slice(0, cut)), part(slice(cut, n))
    for measure in ("value", "gradient"):
        whole, one, two = (getattr(f, measure)(theta) for f in (loss, first, second))
        size = np.abs(whole).max() + np.abs(one).max() + np.abs(two).max()
        # Terms of the gradient cancel: what is summed has the size of X times the outputs.
        size += np.abs(loss.X).max() * np.abs(theta).sum()
        assert np.all(np.abs(whole - (cut * one + (n - cut) * two) / n) <= 16 * n * U * size)
