"""Every differentiable operation, once on CSRTensors and once on the dense matrices they stand for.

The tests of values, gradients, transformations and random inputs all run down this one table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from random_matrices import dense, random_csr, random_pattern
from torch import Tensor

from sparsetorch import CSRTensor, Pattern, galerkin, masked_matmul


class Inputs(NamedTuple):
    """Matrices A, B (n, m), C (m, p); vectors and scalars; a pattern (n, p); index lists."""

    A: Any
    B: Any
    C: Any
    x: Tensor  # (m,)
    X: Tensor  # (2, m, 3)
    Y: Tensor  # (2, 3, n)
    d: Tensor  # (n,)
    s: Tensor  # ()
    mask: Pattern
    rows: Tensor
    cols: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """What gradients are taken of."""
        matrices = (self.A.values, self.B.values, self.C.values)
        return (*matrices, self.x, self.X, self.Y, self.d, self.s)

    def with_tensors(self, *tensors: Tensor) -> "Inputs":
        a, b, c, x, X, Y, d, s = tensors
        A, B, C = (M.with_values(v) for M, v in zip((self.A, self.B, self.C), (a, b, c)))
        return self._replace(A=A, B=B, C=C, x=x, X=X, Y=Y, d=d, s=s)

    def densified(self) -> "Inputs":
        return self._replace(A=dense(self.A), B=dense(self.B), C=dense(self.C))


def random_inputs(
    n: int, m: int, p: int, density: float, seed: int, batch: tuple[int, ...] = (), **options: Any
) -> Inputs:
    generator = torch.Generator().manual_seed(seed)
    dtype = options.get("dtype", torch.float64)

    def tensor(*shape: int) -> Tensor:
        values = torch.randn(shape, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    def indices(size: int) -> Tensor:
        count = int(torch.randint(0, size + 3, (), generator=generator)) if size else 0
        return torch.randint(0, max(size, 1), (count,), generator=generator)

    return Inputs(
        A=random_csr(n, m, density, seed, batch=batch, **options),
        B=random_csr(n, m, density, seed + 10, batch=batch, **options),
        C=random_csr(m, p, density, seed + 20, batch=batch, **options),
        x=tensor(m),
        X=tensor(2, m, 3),
        Y=tensor(2, 3, n),
        d=tensor(n),
        s=tensor(),
        mask=random_pattern(n, p, 0.5, seed + 30, options.get("index_dtype")),
        rows=indices(n),
        cols=indices(m),
    )


def on_mask(product: Tensor, mask: Pattern) -> Tensor:
    stored = product.new_zeros(mask.shape).flatten()
    stored[mask.row.long() * mask.shape[1] + mask.col] = 1
    return product * stored.reshape(mask.shape)


class Operation(NamedTuple):
    name: str
    sparse: Callable[[Inputs], Any]
    reference: Callable[[Inputs], Tensor]


def same(name: str, expression: Callable[[Inputs], Any]) -> Operation:
    """An operation that is written alike for CSRTensors and dense tensors."""
    return Operation(name, expression, expression)


OPERATIONS = [
    same("matrix-vector", lambda i: i.A @ i.x),
    same("matrix-matrix", lambda i: i.A @ i.X),
    same("vector-matrix", lambda i: i.d @ i.A),
    same("dense-sparse", lambda i: i.Y @ i.A),
    Operation(
        "matvec",
        lambda i: i.A.matvec(i.X[..., 0]),
        lambda i: (i.A @ i.X[..., :1]).squeeze(-1),
    ),
    Operation(
        "rmatvec",
        lambda i: i.A.rmatvec(i.Y[..., 0, :]),
        lambda i: (i.Y[..., :1, :] @ i.A).squeeze(-2),
    ),
    same("sparse-sparse", lambda i: i.A @ i.C),
    Operation(
        "masked sparse",
        lambda i: masked_matmul(i.A, i.C, i.mask),
        lambda i: on_mask(i.A @ i.C, i.mask),
    ),
    Operation(
        "masked dense",
        lambda i: masked_matmul(i.Y.mT @ i.X.mT, dense(i.C), i.mask),
        lambda i: on_mask(i.Y.mT @ i.X.mT @ i.C, i.mask),
    ),
    Operation("galerkin", lambda i: galerkin(i.A.T, i.B, i.C), lambda i: i.A.mT @ i.B @ i.C),
    same("sum", lambda i: i.A + i.B),
    same("difference", lambda i: i.A - i.B),
    same("sum on one pattern", lambda i: i.A + 2 * i.A),
    same("negation", lambda i: -i.A),
    same("scaling by numbers", lambda i: 2.0 * i.A / 3),
    same("scaling by tensors", lambda i: i.s * i.A / (2 + i.s**2)),
    Operation("scale rows", lambda i: i.A.scale_rows(i.d), lambda i: i.d[:, None] * i.A),
    Operation("scale columns", lambda i: i.A.scale_cols(i.x), lambda i: i.A * i.x),
    Operation("transpose", lambda i: i.A.T, lambda i: i.A.mT),
    Operation("diagonal", lambda i: i.A.diagonal(), lambda i: i.A.diagonal(dim1=-2, dim2=-1)),
    Operation(
        "submatrix",
        lambda i: i.A.submatrix(i.rows, i.cols),
        lambda i: i.A[..., i.rows, :][..., i.cols],
    ),
    Operation(
        "slices", lambda i: i.A.submatrix(slice(1, None), slice(0, 2)), lambda i: i.A[..., 1:, :2]
    ),
    Operation("to dense", lambda i: i.A.to_dense(), lambda i: i.A),
]


def as_tensor(result: Any) -> Tensor:
    return dense(result) if isinstance(result, CSRTensor) else result


def values_of(result: Any) -> Tensor:
    return result.values if isinstance(result, CSRTensor) else result
