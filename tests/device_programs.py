"""Programs that use every function with a derivative rule on devices, each (x, c) → array for x, c of six entries."""

import autograd.numpy as anp
import autograd.scipy.special as special
import numpy as np
from autograd.numpy import linalg

X = np.array([0.31, 0.87, 0.44, 0.62, 0.23, 0.58])
V = np.array([0.5, -1.25, 0.75, 2.0, -0.3, 1.1])
C = np.array([1.3, -0.4, 0.9, 1.7, -2.2, 0.6])


def grid(x):
    return x.reshape(2, 3)


UNARY = """negative abs fabs reciprocal exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan sinh cosh
tanh arcsinh arctanh square sqrt conj real"""

BINARY = "add subtract multiply divide maximum minimum fmax fmin logaddexp logaddexp2 arctan2 hypot"

PROGRAMS = {
    **{name: (lambda x, c, name=name: getattr(anp, name)(x)) for name in UNARY.split()},
    "arccosh": lambda x, c: anp.arccosh(x + 1.5),
    **{name: (lambda x, c, name=name: getattr(anp, name)(x * c, c[::-1] + x[::-1])) for name in BINARY.split()},
    "multiply, broadcast": lambda x, c: grid(x) * x[:3] + grid(c) * grid(x)[:, :1] * x[1],
    "clip": lambda x, c: anp.clip(x, 0.3, 0.6) * x,
    "astype": lambda x, c: x.astype(np.float32).astype(np.float64) * x,
    "matmul": lambda x, c: grid(x) @ grid(x).T @ grid(c),
    "matmul, vectors": lambda x, c: (grid(x) @ x[:3]) + (x[:2] @ grid(x))[:2] * (x @ c),
    "matmul, batch": lambda x, c: x.reshape(3, 1, 2) @ c.reshape(1, 2, 3)[:, :, :2] @ x.reshape(3, 2, 1),
    "tensordot": lambda x, c: anp.tensordot(grid(x), grid(x), [[1], [1]]) + anp.tensordot(x[:2], c[:2] * x[:2], 0),
    "outer": lambda x, c: anp.outer(x, x * c),
    "inner": lambda x, c: anp.inner(grid(x), grid(c) * grid(x)),
    "transpose": lambda x, c: anp.transpose(x.reshape(1, 2, 3), (2, 0, 1)) * x[:2] + grid(x).T[:, None, :],
    "swapaxes": lambda x, c: anp.swapaxes(grid(x), 0, 1) * x[4:],
    "moveaxis": lambda x, c: anp.moveaxis(x.reshape(1, 2, 3), 0, -1) * x[0],
    "expand_dims": lambda x, c: anp.expand_dims(x, 1) * x,
    "squeeze": lambda x, c: anp.squeeze(x.reshape(1, 6, 1)) * c * x,
    "broadcast_to": lambda x, c: anp.broadcast_to(x[None, :], (4, 6)) * x,
    "cumsum": lambda x, c: anp.cumsum(x) * c + anp.cumsum(grid(x), axis=1).ravel(),
    "repeat": lambda x, c: anp.repeat(x, 2) * anp.repeat(c * x, 2) + anp.ravel(anp.repeat(grid(x), 2, axis=1)),
    "tile": lambda x, c: anp.tile(x, 2) * anp.tile(c, 2),
    "diff": lambda x, c: anp.diff(x * c, n=2) * x[:4],
    "roll": lambda x, c: anp.roll(x, 2) * x * c,
    "triu": lambda x, c: anp.triu(grid(x)) * grid(c),
    "tril": lambda x, c: anp.tril(grid(x)) * grid(x),
    "flipud": lambda x, c: anp.flipud(grid(x)) * grid(x),
    "fliplr": lambda x, c: anp.fliplr(grid(x)) * grid(x),
    "diag": lambda x, c: anp.diag(x[:3] * x[3:]) @ grid(x).T + anp.diag(anp.outer(x, x))[:3, None],
    "atleast_1d": lambda x, c: anp.atleast_1d(anp.sum(x)) * x,
    "atleast_2d": lambda x, c: anp.atleast_2d(x) * x[:, None],
    "split": lambda x, c: anp.split(x, 3)[1] * anp.split(x, 3)[2],
    "norm": lambda x, c: linalg.norm(x * c) + linalg.norm(grid(x), axis=1),
    "solve": lambda x, c: linalg.solve(square_of(x, c), x[:3]),
    "inv": lambda x, c: linalg.inv(square_of(x, c)),
    "det": lambda x, c: linalg.det(square_of(x, c)),
    "slogdet": lambda x, c: linalg.slogdet(square_of(x, c))[1],
    "expit": lambda x, c: special.expit(x * c),
    "erf": lambda x, c: special.erf(x * c),
    # What needed a rule.
    "sum": lambda x, c: anp.sum(x * c) * anp.sum(grid(x), axis=0) + anp.sum(grid(x), axis=-1, keepdims=True),
    "sum of a number": lambda x, c: anp.sum(anp.sum(x)) * c,
    "sum over two axes": lambda x, c: anp.sum(x.reshape(1, 2, 3), axis=(0, 2)) * x[:2],
    "mean": lambda x, c: anp.mean(x * c) * anp.mean(grid(x), axis=1),
    "prod": lambda x, c: anp.prod(x) + anp.prod(grid(x), axis=0),
    "var": lambda x, c: anp.var(x * c, ddof=1) + anp.var(grid(x), axis=0),
    "std": lambda x, c: anp.std(x * c) + anp.std(grid(x), axis=1, keepdims=True),
    "std of one": lambda x, c: anp.std(x[:1]) + x,
    "max": lambda x, c: anp.max(x * c) * anp.max(grid(x), axis=0),
    "min": lambda x, c: anp.min(x * c) * anp.min(grid(x), axis=1),
    "amax": lambda x, c: anp.amax(grid(x), axis=0) * x[:3],
    "amin": lambda x, c: anp.amin(grid(x), axis=0) * x[:3],
    "max of equals": lambda x, c: anp.max(anp.concatenate([x, x])),
    "reshape": lambda x, c: anp.reshape(x, (3, 2)) @ grid(c * x),
    "ravel": lambda x, c: grid(x).T.ravel() * x + grid(x).flatten(),
    "slices": lambda x, c: x[1:4] * x[::2] + x[-1],
    "entries": lambda x, c: grid(x)[1, 2] * grid(x)[:, 1] + grid(x)[..., None, 0],
    "where": lambda x, c: anp.where(c > 0, x**2, x * 3.0) + anp.where(x > 0.5, x, 0.0) * x,
    "where, abs": lambda x, c: anp.abs(x * c) ** 3,
    "power": lambda x, c: x**3 + x**2.5 + 2.0**x + x ** (x + 1.0) + x**0,
    "power, NumPy scalar": lambda x, c: x ** np.float64(2.5) * c,
    "dot": lambda x, c: anp.dot(grid(x), x[:3]) * anp.dot(x, c) + anp.dot(x[:2], grid(x))[:2],
    "dot of matrices": lambda x, c: anp.dot(grid(x), grid(x * c).T) * anp.dot(x[0], x[1]),
    "dot of many axes": lambda x, c: anp.dot(x.reshape(1, 2, 3), x.reshape(1, 3, 2)),
    "dot of a number": lambda x, c: anp.dot(x[0], x) + anp.dot(x, x[1]),
    "dot with a tensor": lambda x, c: anp.dot(x[:3], x.reshape(1, 3, 2)) + anp.dot(x.reshape(1, 2, 3), c[:3]),
    "einsum": lambda x, c: anp.einsum("ij,kj->ik", grid(x), grid(c * x)),
    "einsum, implicit": lambda x, c: anp.einsum("ij,j", grid(x), x[:3]),
    "einsum, ellipsis": lambda x, c: anp.einsum("...j,...j->...", grid(x), grid(x) * x[0]),
    "einsum, sums": lambda x, c: anp.einsum("ij,k->k", grid(x), x[:2]) + anp.einsum("ij->", grid(x)),
    "einsum, three": lambda x, c: anp.einsum("i,ij,j->", x[:2], grid(x), x[3:]),
    "concatenate": lambda x, c: anp.concatenate([x[:2] ** 2, x[4:], c[:1]]),
    "vstack": lambda x, c: anp.vstack([x, x * c]) @ x,
    "hstack": lambda x, c: anp.hstack([grid(x), grid(x) ** 2]),
    "stack": lambda x, c: anp.stack([x, c * x**2], axis=1),
    "array": lambda x, c: anp.array([x[0] * x[1], x[2], x[2]]) * anp.array(x[:3]) + anp.array([x[0], 2.0, x[1]]),
    "array of arrays": lambda x, c: anp.array([[x[0], x[1]], [x[2], x[0]]]) @ x[:2],
    "append": lambda x, c: anp.append(x, x[0] * x[1]),
    "array, more axes": lambda x, c: anp.array(x, ndmin=2) * x,
}


def square_of(x, c):
    """A well conditioned 3 × 3 matrix of x."""
    rows = anp.concatenate([x, x[:3] * c[:3]]).reshape(3, 3)
    return rows @ rows.T + anp.outer(c[:3], c[:3]) * x[0] + anp.outer(x[1:4], x[1:4]) + anp.diag(x[:3] + 1.0)


def loss_of(program, c):
    """Σ sin(out) + out², so that no order of any entry is flat."""

    def loss(x):
        out = program(x, c)
        return anp.sum(anp.sin(out) + out**2)

    return loss
