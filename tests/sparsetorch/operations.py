"""Every differentiable operation, once on CSRTensors and once on the dense matrices they stand for.

The tests of values, gradients, transformations and random inputs all run down this one table.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, get_args

import torch
from random_matrices import dense, random_csr, random_pattern
from torch import Tensor

from sparsetorch import (
    CSRTensor,
    Pattern,
    block_diag,
    bmat,
    galerkin,
    hstack,
    kron,
    masked_matmul,
    spmm,
    vstack,
)
from sparsetorch.linalg import solve_triangular
from sparsetorch.semiring import Combine, Reduce


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
        kind = torch.complex128 if dtype.is_complex else torch.float64
        values = torch.randn(shape, generator=generator, dtype=kind)
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


def stored_softmax(A: Tensor, dim: int) -> Tensor:
    stored = A != 0  # the tests' matrices hold no stored zeros
    return torch.where(stored, A, -1e30).softmax(dim) * stored


def diagonal_of(i: Inputs, shape: Any) -> Tensor:
    """A differentiable vector as long as a diagonal."""
    return torch.cat([i.d, i.x])[: min(shape)]


def rectangular_diagonal(d: Tensor, shape: Any) -> Tensor:
    eye = torch.eye(*shape, dtype=d.dtype)[..., : len(d)]
    return torch.cat([eye * d, eye.new_zeros(shape[0], shape[1] - len(d))], 1)


def pairs(i: Inputs) -> tuple[Tensor, Tensor]:
    count = min(len(i.rows), len(i.cols))
    return i.rows[:count], i.cols[:count]


def block_diagonal(A: Tensor, B: Tensor) -> Tensor:
    m, q = A.shape[-1], B.shape[-1]
    above = torch.cat([A, A.new_zeros(*A.shape[:-1], q)], -1)
    below = torch.cat([B.new_zeros(*B.shape[:-1], m), B], -1)
    return torch.cat([above, below], -2)


def kronecker(A: Tensor, B: Tensor) -> Tensor:
    product = torch.einsum("...ij,...kl->...ikjl", A, B)
    return product.flatten(-4, -3).flatten(-2)


def semiring(A: Tensor, X: Tensor, reduce: str, combine: str) -> Tensor:
    pad = torch.nn.functional.pad  # by a column that is not stored, so that there is always one
    a, x = pad(A, (0, 1)).unsqueeze(-1), pad(X, (0, 0, 0, 1)).unsqueeze(-3)
    messages = a * x if combine == "mul" else a + x  # (..., n, m + 1, k)
    stored = (a != 0).expand(messages.shape)
    empty = ~stored.any(-2)
    if reduce == "logsumexp":
        safe = torch.where(stored, messages, -1e30)
        return torch.where(empty, float("-inf"), torch.logsumexp(safe, -2))
    if reduce in ("sum", "mean"):
        total = (messages * stored).sum(-2)
        return total / stored.sum(-2).clamp(min=1) if reduce == "mean" else total
    worst = float("-inf") if reduce == "max" else float("inf")
    chosen = getattr(torch.where(stored, messages, worst), f"a{reduce}")(-2)
    return torch.where(empty, 0.0, chosen)


def definite(i: Inputs) -> Any:
    """A square matrix, sparse or dense, whose triangles are invertible."""
    if isinstance(i.A, Tensor):
        return i.A @ i.A.mT + torch.diag(i.d**2 + 1)
    return (i.A @ i.A.T).add_diagonal(i.d**2 + 1)


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
    same("entrywise product", lambda i: i.A * i.B),
    same("entrywise product on one pattern", lambda i: i.A * (2 * i.A)),
    same("power", lambda i: i.A**2),
    same("map", lambda i: torch.tanh(i.A)),
    Operation("map of a callable", lambda i: i.A.map(lambda v: v * v), lambda i: i.A * i.A),
    same("sum of rows", lambda i: i.A.sum(-1)),
    same("sum of columns", lambda i: i.A.sum(-2)),
    same("sum of matrices", lambda i: i.A.sum((-2, -1))),
    same("sum of all", lambda i: i.A.sum()),
    same("mean of rows", lambda i: i.A.mean(-1)),
    same("mean of columns", lambda i: i.A.mean(-2)),
    same("mean of matrices", lambda i: i.A.mean((-1, -2))),
    same("mean of all", lambda i: i.A.mean()),
    same("maximum of rows", lambda i: i.A.amax(-1)),
    same("minimum of columns", lambda i: i.A.amin(-2)),
    same("maximum of matrices", lambda i: i.A.amax((-2, -1))),
    same("minimum of all", lambda i: i.A.amin()),
    Operation("norm of rows", lambda i: i.A.norm(dim=-1) ** 3, lambda i: (i.A**2).sum(-1) ** 1.5),
    Operation(
        "norm of matrices",
        lambda i: i.A.norm(dim=(-2, -1)) ** 4,
        lambda i: (i.A**2).sum((-2, -1)) ** 2,
    ),
    Operation(
        "norm (1) of matrices",
        lambda i: i.A.norm(1, dim=(-2, -1)) ** 2,
        lambda i: i.A.abs().sum(-2).amax(-1) ** 2,
    ),
    Operation(
        "norm (inf) of matrices",
        lambda i: i.A.norm(float("inf"), (-2, -1)) ** 2,
        lambda i: i.A.abs().sum(-1).amax(-1) ** 2,
    ),
    same("norm (1) of columns", lambda i: torch.linalg.norm(i.A, 1, -2) ** 2),
    Operation(
        "norm (inf) of rows",
        lambda i: i.A.norm(float("inf"), -1) ** 2,
        lambda i: i.A.abs().amax(-1) ** 2,
    ),
    same("map to absolute values", lambda i: torch.abs(i.A)),
    same("sum of rows as a column", lambda i: i.A.sum(-1, keepdim=True)),
    Operation(
        "diagonal above the main one",
        lambda i: i.A.diagonal(1),
        lambda i: i.A.diagonal(1, dim1=-2, dim2=-1),
    ),
    Operation("softmax of rows", lambda i: i.A.softmax(-1), lambda i: stored_softmax(i.A, -1)),
    Operation("softmax of columns", lambda i: i.A.softmax(-2), lambda i: stored_softmax(i.A, -2)),
    Operation("trace", lambda i: i.A.trace(), lambda i: i.A.diagonal(dim1=-2, dim2=-1).sum(-1)),
    same("lower triangle", lambda i: i.A.tril(1)),
    same("upper triangle", lambda i: i.A.triu()),
    Operation(
        "add diagonal",
        lambda i: i.A.add_diagonal(diagonal_of(i, i.A.pattern.shape)),
        lambda i: i.A + rectangular_diagonal(diagonal_of(i, i.A.shape[-2:]), i.A.shape[-2:]),
    ),
    Operation(
        "lookup",
        lambda i: i.A.lookup(*pairs(i)),
        lambda i: i.A[..., pairs(i)[0], pairs(i)[1]],
    ),
    Operation("vstack", lambda i: vstack([i.A, i.B]), lambda i: torch.cat([i.A, i.B], -2)),
    Operation("hstack", lambda i: hstack([i.A, i.B]), lambda i: torch.cat([i.A, i.B], -1)),
    Operation(
        "stack",
        lambda i: torch.stack([i.A, 2 * i.A]),
        lambda i: torch.stack([i.A, 2 * i.A]),
    ),
    Operation(
        "block diagonal",
        lambda i: block_diag([i.A, i.C]),
        lambda i: block_diagonal(i.A, i.C),
    ),
    Operation(
        "blocks",
        lambda i: bmat([[i.A, None], [i.C.T, 2 * i.C.T]]),
        lambda i: torch.cat(
            [torch.cat([i.A, torch.zeros_like(i.A)], -1), torch.cat([i.C.mT, 2 * i.C.mT], -1)], -2
        ),
    ),
    Operation(
        "lower triangular solve",
        lambda i: solve_triangular(definite(i), i.d),
        lambda i: torch.linalg.solve_triangular(
            definite(i), i.d.unsqueeze(-1), upper=False
        ).squeeze(-1),
    ),
    Operation(
        "transposed upper triangular solve",
        lambda i: solve_triangular(definite(i), i.Y.mT, lower=False, transpose=True),
        lambda i: torch.linalg.solve_triangular(definite(i).mT, i.Y.mT, upper=False),
    ),
    Operation(
        "unit triangular solve",
        lambda i: solve_triangular(0.1 * (i.A @ i.A.T), i.d, unit_diagonal=True),
        lambda i: torch.linalg.solve_triangular(
            0.1 * (i.A @ i.A.mT), i.d.unsqueeze(-1), upper=False, unitriangular=True
        ).squeeze(-1),
    ),
    Operation("Kronecker product", lambda i: kron(i.A, i.C), lambda i: kronecker(i.A, i.C)),
]
OPERATIONS += [
    Operation(
        f"{reduce} of {combine}",
        lambda i, reduce=reduce, combine=combine: spmm(i.A, i.X, reduce, combine),
        lambda i, reduce=reduce, combine=combine: semiring(i.A, i.X, reduce, combine),
    )
    for reduce in get_args(Reduce)
    for combine in get_args(Combine)
]


def as_tensor(result: Any) -> Tensor:
    return dense(result) if isinstance(result, CSRTensor) else result


def values_of(result: Any) -> Tensor:
    return result.values if isinstance(result, CSRTensor) else result
