"""Hessians of losses linear in their parameters as FᵀF with one or C rows a sample.

With few samples and many parameters everything about such a Hessian is known from F Fᵀ, which is small.
"""

from __future__ import annotations

from dataclasses import dataclass

from implicit_grad.backend import Array, namespace, transpose


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """F = X/√n: the factor of XᵀX/n."""

    X: Array

    @property
    def rank(self) -> int:
        """Number of rows n."""
        return int(self.X.shape[-2])

    @property
    def _scale(self) -> float:
        return float(self.X.shape[-2]) ** -0.5

    def apply(self, v: Array) -> Array:
        """Return X v/√n."""
        return (self.X @ v[..., None])[..., 0] * self._scale

    def adjoint(self, w: Array) -> Array:
        """Return Xᵀ w/√n."""
        return (transpose(self.X) @ w[..., None])[..., 0] * self._scale

    def gram(self) -> Array:
        """Return X Xᵀ/n."""
        return self.X @ transpose(self.X) / self.X.shape[-2]


@dataclass(frozen=True, eq=False)
class ClassRows:
    r"""Factor of the softmax Hessian: C rows for each sample.

    .. math:: H = \frac1n \sum_i x_i x_i^\top \otimes (\mathrm{diag}(p_i) - p_i p_i^\top), \qquad
              \mathrm{diag}(p) - p p^\top = B B^\top, \qquad B = \mathrm{diag}(\sqrt p) - p \sqrt{p}^\top

    so that row (i, c) of F is :math:`x_i \otimes B_i e_c / \sqrt n`.
    """

    X: Array
    p: Array

    @property
    def rank(self) -> int:
        """Number of rows n·C."""
        return int(self.X.shape[-2]) * int(self.p.shape[-1])

    def _roots(self) -> Array:
        """B_i: `(..., n, C, C)`."""
        xp = namespace(self.p)
        root = xp.sqrt(self.p)
        eye = xp.eye(self.p.shape[-1], dtype=self.p.dtype)
        # On the diagonal √p(1 − p): 1 − p as the sum of the others keeps its digits where p is nearly 1.
        others = self.p @ (1 - eye)
        return eye * (root * others)[..., None] - (1 - eye) * self.p[..., :, None] * root[..., None, :]

    def apply(self, v: Array) -> Array:
        """Return Bᵢᵀ (X V)ᵢ/√n, sample by sample."""
        xp, (n, classes) = namespace(v), self.p.shape[-2:]
        outputs = self.X @ xp.reshape(v, (*v.shape[:-1], self.X.shape[-1], classes))
        rows = (transpose(self._roots()) @ outputs[..., None])[..., 0] * float(n) ** -0.5
        return xp.reshape(rows, (*rows.shape[:-2], n * classes))

    def adjoint(self, w: Array) -> Array:
        """Return Xᵀ (Bᵢ wᵢ)/√n, flattened like the parameters."""
        xp, (n, classes) = namespace(w), self.p.shape[-2:]
        rows = xp.reshape(w, (*w.shape[:-1], n, classes, 1))
        matrix = transpose(self.X) @ (self._roots() @ rows)[..., 0] * float(n) ** -0.5
        return xp.reshape(matrix, (*matrix.shape[:-2], self.X.shape[-1] * classes))

    def gram(self) -> Array:
        """Return F Fᵀ: entries (xᵢ·xⱼ)(Bᵢᵀ Bⱼ)/n, without forming F."""
        xp, (n, classes) = namespace(self.p), self.p.shape[-2:]
        roots = self._roots()
        samples = self.X @ transpose(self.X) / n
        # (n, C, C) → one matrix (C, n·C) whose columns are those of every B: its Gram matrix has all BᵢᵀBⱼ.
        columns = xp.moveaxis(roots, -3, -2)
        columns = xp.reshape(columns, (*columns.shape[:-3], classes, n * classes))
        classes_gram = transpose(columns) @ columns
        blocks = xp.reshape(classes_gram, (*classes_gram.shape[:-2], n, classes, n, classes))
        product = blocks * samples[..., :, None, :, None]
        return xp.reshape(product, (*product.shape[:-4], n * classes, n * classes))

    def hessian(self) -> Array:
        """Return H as an array, class block by class block: Xᵀ diag(s_cd) X/n."""
        xp, (n, classes) = namespace(self.p), self.p.shape[-2:]
        features = self.X.shape[-1]
        eye = xp.eye(classes, dtype=self.p.dtype)
        others = self.p @ (1 - eye)
        s = eye * (self.p * others)[..., None] - (1 - eye) * self.p[..., :, None] * self.p[..., None, :]
        weights = xp.moveaxis(s, -3, -1) / n  # (..., C, C, n)
        left = transpose(self.X)[..., None, None, :, :] * weights[..., None, :]
        blocks = left @ self.X[..., None, None, :, :]  # (..., C, C, p, p)
        H = xp.moveaxis(xp.moveaxis(blocks, -2, -4), -1, -2)  # (..., p, C, p, C) in two moves
        H = xp.reshape(H, (*H.shape[:-4], features * classes, features * classes))
        return 0.5 * (H + transpose(H))  # the products round differently on the two sides
