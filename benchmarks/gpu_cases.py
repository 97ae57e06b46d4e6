"""What `bench_gpu.py` compares: one function a product, and the table of all cases.

Peers are what a user of PyTorch or CuPy would call on the same matrix; one that refuses a dtype, a
layout or the size is left out by `bench_gpu.py`. The bytes of a contest are those that have to move
when no cache holds anything and everything is read and written once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from gpu_problem import Contest, Problem
from scipy import sparse
from scipy.sparse.linalg import spsolve_triangular
from torch import Tensor

from sparsetorch import CSRTensor, masked_matmul, sddmm, spmm
from sparsetorch.linalg import cg, solve_triangular

F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
INDEX = 4  # bytes of an int32


def stored(p: Problem, permuted: bool = False) -> int:
    """Bytes of the matrix; its transpose is read through a permutation."""
    per_entry = p.dtype.itemsize + INDEX * (2 if permuted else 1)
    return p.nnz * per_entry + (p.n + 1) * INDEX


def dense(p: Problem, vectors: int) -> int:
    return p.n * vectors * p.dtype.itemsize


def spmv(p: Problem, transpose: bool = False) -> Contest:
    x = p.normal(p.n)
    contenders = {
        "sparsetorch": lambda: (p.A.rmatvec(x) if transpose else p.A.matvec(x),),
        "torch": lambda: ((p.csr.t() if transpose else p.csr) @ x,),
    }
    contenders |= p.by_peer(lambda c: _product(c.matrix(p.A), c.array(x), transpose))
    moved = stored(p, permuted=transpose) + dense(p, 2)
    return Contest((p.product(x, transpose=transpose),), contenders, moved)


def _product(A, x, transpose: bool = False) -> Callable[[], tuple]:
    return (lambda: (A.T @ x,)) if transpose else (lambda: (A @ x,))


def spmm_columns(p: Problem, k: int) -> Contest:
    X = p.normal(p.n, k)
    contenders = {"sparsetorch": lambda: (p.A @ X,), "torch": lambda: (p.csr @ X,)}
    contenders |= p.by_peer(lambda c: _product(c.matrix(p.A), c.array(X)))
    return Contest((p.product(X),), contenders, stored(p) + dense(p, 2 * k))


def product_gradients(p: Problem, k: int) -> Contest:
    """Forward, and the gradients of the values and of X; torch by a leaf CSR tensor."""
    X, G = p.normal(p.n, k), p.normal(p.n, k)
    values, leaf = p.values.detach().requires_grad_(), p.csr.detach().requires_grad_()
    one, g = (X.squeeze(1), G.squeeze(1)) if k == 1 else (X, G)
    x, x_torch = one.detach().requires_grad_(), X.detach().requires_grad_()

    def ours() -> tuple[Tensor, ...]:
        y = p.A.with_values(values) @ x
        return y, *torch.autograd.grad(y, (values, x), g)

    def torchs() -> tuple[Tensor, ...]:
        y = torch.sparse.mm(leaf, x_torch)
        return y, *torch.autograd.grad(y, (leaf, x_torch), G)

    want = (p.product(X), p.entries(G, X), p.product(G, transpose=True))
    moved = 2 * stored(p) + stored(p, permuted=True) + dense(p, 6 * k)
    return Contest(want, {"sparsetorch": ours, "torch": torchs}, moved)


def sampled(p: Problem, k: int) -> Contest:
    U, V = p.normal(p.n, k), p.normal(p.n, k)
    mask = p.A.with_values(torch.zeros_like(p.values)).to_torch()
    contenders = {
        "sparsetorch": lambda: (sddmm(p.pattern, U, V),),
        "torch": lambda: (torch.sparse.sampled_addmm(mask, U, V.mT, beta=0),),
    }
    return Contest((p.entries(U, V),), contenders, stored(p) + dense(p, 2 * k))


def sampled_gradients(p: Problem, k: int) -> Contest:
    """Forward, and the gradients of both dense matrices."""
    U, V = p.normal(p.n, k), p.normal(p.n, k)
    u, v, u_torch, v_torch = (t.detach().requires_grad_() for t in (U, V, U, V))
    mask = p.A.with_values(torch.zeros_like(p.values)).to_torch()

    def ours() -> tuple[Tensor, ...]:
        s = sddmm(p.pattern, u, v).values
        return s, *torch.autograd.grad(s, (u, v), p.values)

    def torchs() -> tuple[Tensor, ...]:
        s = torch.sparse.sampled_addmm(mask, u_torch, v_torch.mT, beta=0)
        return s, *torch.autograd.grad(s, (u_torch, v_torch), p.csr)

    want = (p.entries(U, V), p.product(V), p.product(U, transpose=True))
    moved = 2 * stored(p) + stored(p, permuted=True) + dense(p, 6 * k)
    return Contest(want, {"sparsetorch": ours, "torch": torchs}, moved)


def sparse_product(p: Problem) -> Contest:
    """A A: sparsetorch on the pattern that it found once, the peers from nothing, as they must."""
    want = p.from_scipy(_sorted(_exact(p) @ _exact(p)).data)
    contenders = {"sparsetorch": lambda: (p.A @ p.A,), "torch": lambda: (p.csr @ p.csr,)}
    contenders |= p.by_peer(lambda c: _product(c.matrix(p.A), c.matrix(p.A)))
    moved = 2 * stored(p) + want.numel() * (p.dtype.itemsize + INDEX) + (p.n + 1) * INDEX
    return Contest((want,), contenders, moved)


def masked_product(p: Problem) -> Contest:
    """A A at the entries of A; the peers compute the whole product first."""
    square = _exact(p) @ _exact(p)
    places = p.matrix.tocoo()
    want = np.asarray(square[places.row, places.col]).ravel()
    ones = CSRTensor(p.pattern, torch.ones_like(p.values))
    mask = ones.to_torch()
    contenders = {
        "sparsetorch": lambda: (masked_matmul(p.A, p.A, p.pattern),),
        "torch": lambda: ((p.csr @ p.csr) * mask,),
    }

    def scipys(c):
        A, B = c.matrix(p.A), c.matrix(ones)
        return lambda: ((A @ A).multiply(B),)

    return Contest((p.from_scipy(want),), contenders | p.by_peer(scipys), 3 * stored(p))


def transpose(p: Problem) -> Contest:
    """The transpose in CSR form; sparsetorch knows its pattern and moves the values."""
    want = p.from_scipy(_sorted(_exact(p).T).data)
    _ = p.A.T  # finds the pattern
    contenders = {
        "sparsetorch": lambda: (p.A.T,),
        "torch": lambda: (p.csr.t().to_sparse_csr(),),
    }

    def scipys(c):
        A = c.matrix(p.A)
        return lambda: (A.T.tocsr(),)

    moved = p.nnz * (2 * p.dtype.itemsize + INDEX)
    return Contest((want,), contenders | p.by_peer(scipys), moved)


def row_softmax(p: Problem) -> Contest:
    coo = p.A.to_torch(torch.sparse_coo)
    contenders = {
        "sparsetorch": lambda: (p.A.softmax(-1),),
        "torch": lambda: (torch.sparse.softmax(coo, 1),),
    }
    moved = 2 * p.nnz * p.dtype.itemsize + (p.n + 1) * INDEX
    return Contest((p.softmax(),), contenders, moved)


def semiring_max(p: Problem, k: int) -> Contest:
    """max of a_ij x_j over each row; on CUDA torch has it for dense scatters alone."""
    X = p.normal(p.n, k)
    row = p.row.unsqueeze(1).expand(-1, k)

    def torchs() -> tuple[Tensor]:
        if X.is_cpu:
            return (torch.sparse.mm(p.csr, X, "amax"),)
        terms = p.values.unsqueeze(1) * X.index_select(0, p.col)
        return (torch.zeros_like(X).scatter_reduce(0, row, terms, "amax", include_self=False),)

    contenders = {"sparsetorch": lambda: (spmm(p.A, X, "max"),), "torch": torchs}
    return Contest((p.largest(X),), contenders, stored(p) + dense(p, 2 * k))


def triangular(p: Problem, transposed: bool = False) -> Contest:
    lower = _sorted(sparse.tril(_exact(p)))
    A = CSRTensor.from_scipy(lower, p.dtype, p.device)
    csr, b = A.to_torch(), p.normal(p.n)
    matrix = _sorted(lower.T) if transposed else lower
    want = p.from_scipy(spsolve_triangular(matrix, b.double().cpu().numpy(), lower=not transposed))

    def torchs() -> tuple[Tensor]:
        x = torch.triangular_solve(b.unsqueeze(1), csr, upper=False, transpose=transposed)[0]
        return (x.squeeze(1),)

    contenders = {
        "sparsetorch": lambda: (solve_triangular(A, b, transpose=transposed),),
        "torch": torchs,
    }

    def scipys(c):
        L, right = c.matrix(A), c.array(b)
        return lambda: (c.spsolve_triangular(L, right, lower=True),)

    if not transposed:
        contenders |= p.by_peer(scipys)
    moved = A.nnz * (p.dtype.itemsize + INDEX) + (p.n + 1) * INDEX + dense(p, 2)
    return Contest((want,), contenders, moved)


def conjugate_gradients(p: Problem, iterations: int) -> Contest:
    """A fixed number of iterations, with no preconditioner; torch's by hand, without one check."""
    b = p.normal(p.n)
    steps = min(iterations, p.n // 4)
    contenders = {
        "sparsetorch": lambda: (cg(p.A, b, rtol=0.0, maxiter=steps).x,),
        "torch": lambda: (_plain_cg(lambda x: p.csr @ x, b, steps),),
    }

    def scipys(c):
        A, right = c.matrix(p.A), c.array(b)
        return lambda: (c.cg(A, right, steps),)

    # Per iteration: A p, three updates of vectors, two inner products.
    moved = steps * (stored(p) + dense(p, 2 + 3 * 3 + 3))
    want = _plain_cg(p.product, b.double(), steps)
    return Contest((want,), contenders | p.by_peer(scipys), moved)


def _plain_cg(multiply: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    x, r, direction = torch.zeros_like(b), b.clone(), b.clone()
    rr = r @ r
    for _ in range(steps):
        image = multiply(direction)
        step = rr / (direction @ image)
        x += step * direction
        r -= step * image
        before, rr = rr, r @ r
        direction = r + (rr / before) * direction
    return x


def _exact(p: Problem) -> sparse.csr_array:
    """The matrix in float64, its values rounded to the dtype."""
    arrays = (p.exact.cpu().numpy(), p.matrix.indices, p.matrix.indptr)
    return sparse.csr_array(arrays, shape=p.matrix.shape)


def _sorted(matrix) -> sparse.csr_array:
    matrix = sparse.csr_array(matrix)
    matrix.sort_indices()
    return matrix


class Case(NamedTuple):
    title: str
    make: Callable[[Problem], Contest]
    dtypes: Sequence[torch.dtype] = (F32, F64)
    slack: float = 1.0  # how much larger than a product's the error may be
    steps: int = 0  # iterations within one call
    checked: Callable[[Problem], Contest] | None = None  # what is checked in place of `make`


ITERATIONS = 50
CASES = [
    Case("SpMV", spmv, (F32, F64, F16, BF16)),
    Case("SpMV, transposed", partial(spmv, transpose=True)),
    *(Case(f"SpMM {k}", partial(spmm_columns, k=k), (F32,)) for k in (1, 4, 16)),
    Case("SpMM 64", partial(spmm_columns, k=64), (F32, F64, F16, BF16)),
    Case("SpMM 256", partial(spmm_columns, k=256), (F32, F16, BF16)),
    Case("SpMV, both gradients", partial(product_gradients, k=1)),
    Case("SpMM 64, both gradients", partial(product_gradients, k=64)),
    Case("SDDMM 64", partial(sampled, k=64), (F32, F64, F16, BF16)),
    Case("SDDMM 64, both gradients", partial(sampled_gradients, k=64)),
    Case("SpGEMM A A, known pattern", sparse_product),
    Case("masked A A", masked_product),
    Case("transpose, known pattern", transpose),
    Case("row softmax", row_softmax),
    Case("semiring max 64", partial(semiring_max, k=64)),
    Case("triangular solve", triangular, slack=10),
    Case("triangular solve, transposed", partial(triangular, transposed=True), slack=10),
    Case(
        f"CG, {ITERATIONS} iterations",
        partial(conjugate_gradients, iterations=ITERATIONS),
        slack=10,
        steps=ITERATIONS,
        # Later iterates differ by more than rounding: directions that have converged come back.
        checked=partial(conjugate_gradients, iterations=4),
    ),
]
