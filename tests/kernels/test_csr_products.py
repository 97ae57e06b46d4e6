"""Every product of every implementation: result and each gradient against dense arithmetic.

Run once per implementation: reference and native here, Triton on a GPU if there is one, and in a
process that interprets it (`test_csr_triton.py` starts this file again with TRITON_INTERPRET=1).
All memory that PyTorch hands out uninitialized is filled with NaN, so what a kernel forgets to
write shows.
"""

import os

import pytest
import torch
from csr_cases import LARGE, MIXED, SMALL, densify, layout_of, relative_error, sample
from scipy import sparse
from torch import Tensor

from sparsetorch_kernels import (
    Layout,
    _native,
    sddmm,
    spgemm,
    spgemm_structure,
    spmm,
    spmv,
    transpose_structure,
)
from sparsetorch_kernels.csr import backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# The interpreter takes a second for what the others do in a millisecond.
MATRICES = SMALL if INTERPRETED else SMALL | LARGE
COLUMNS = (1, 3, 66) if INTERPRETED else (1, 3, 64, 130)
BATCHES = [((2, 1), (3,)), ((), (3,)), ((3,), ()), ((2,), (2,)), ((0,), ())]
# Half precision rounds a result once, after sums in float32; a gradient that is summed over a
# broadcast dimension is rounded again.
TOLERANCE = {
    torch.float16: 2**-9,
    torch.bfloat16: 2**-6,
    torch.float32: 1e-5,
    torch.float64: 1e-12,
    torch.complex64: 1e-5,
    torch.complex128: 1e-12,
}
EXACT = {dtype: torch.complex128 if dtype.is_complex else torch.float64 for dtype in TOLERANCE}

F32, F64, I32, I64 = torch.float32, torch.float64, torch.int32, torch.int64
F16, BF16, C64, C128 = torch.float16, torch.bfloat16, torch.complex64, torch.complex128
DTYPES = ((F16, I64), (BF16, I32), (F32, MIXED), (F32, I32), (F64, I64))
COMPLEX = ((C64, I32), (C128, MIXED))
IMPLEMENTATIONS = {
    "reference": (*DTYPES, *COMPLEX),
    "native": (*DTYPES, (F32, I64), (F64, I32), (F64, MIXED), *COMPLEX),
}
if torch.cuda.is_available():
    IMPLEMENTATIONS["cuda"] = IMPLEMENTATIONS["native"]
if INTERPRETED:  # complex products are made of real ones before they reach a kernel
    IMPLEMENTATIONS = {"triton": ((BF16, I32), (F32, MIXED), (F64, I64))}


def index_name(index) -> str:
    return "mixed" if index == MIXED else str(index)[6:]


each_implementation = pytest.mark.parametrize(
    ("implementation", "dtype", "index"),
    [
        pytest.param(name, dtype, index, id=f"{name}-{str(dtype)[6:]}-{index_name(index)}")
        for name, dtypes in IMPLEMENTATIONS.items()
        for dtype, index in dtypes
    ],
    indirect=["implementation"],
)
pytestmark = [each_implementation, pytest.mark.parametrize("name", MATRICES)]


@pytest.fixture(autouse=True)
def implementation(request, monkeypatch):
    """Route every product to one implementation."""
    if request.param == "cuda":
        with torch.device("cuda"):
            yield
        return
    if request.param == "native":
        if _native.ops() is None:
            pytest.skip(f"no native library: {_native.status()}")
        yield
        return
    monkeypatch.setattr(backend, "_cpu_ops", lambda: None)
    if request.param == "triton":
        from sparsetorch_kernels.csr import triton

        monkeypatch.setattr(backend, "reference", triton)
        monkeypatch.setattr(backend, "HALF", ())  # these kernels take half precision as it is
    yield


@pytest.fixture(autouse=True)
def _poison():
    """Fill uninitialized memory with NaN (and integers with their largest value)."""
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # thousands of tiny products: threads would only wait for each other
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def check(product, dense_product, arguments: dict[str, Tensor]) -> None:
    """Compare result and gradients with the same computation on dense matrices in float64."""
    precise = EXACT[next(iter(arguments.values())).dtype]
    exact = {k: v.detach().to(precise).requires_grad_() for k, v in arguments.items()}
    got, want = product(*arguments.values()), dense_product(*exact.values())
    cotangent = torch.randn_like(got)
    got_grads = torch.autograd.grad(got, list(arguments.values()), cotangent)
    want_grads = torch.autograd.grad(
        want, list(exact.values()), cotangent.to(precise), allow_unused=True, materialize_grads=True
    )
    tolerance = TOLERANCE[got.dtype]
    assert got.dtype == next(iter(arguments.values())).dtype
    assert relative_error(got, want) <= tolerance, "result"
    for name, got_grad, want_grad in zip(arguments, got_grads, want_grads):
        assert relative_error(got_grad, want_grad) <= tolerance, f"gradient of {name}"


def views(matrix, index) -> tuple[Layout, Layout]:
    layout = layout_of(matrix, index)
    return layout, layout.T


def test_spmm(name, dtype, index):
    for a in views(MATRICES[name], index):
        for k in COLUMNS:
            check(
                lambda values, x, a=a: spmm(a, values, x),
                lambda values, x, a=a: densify(a, values) @ x,
                {"values": draw(a.col.numel(), dtype=dtype), "x": draw(a.n_cols, k, dtype=dtype)},
            )


def test_spmv(name, dtype, index):
    for a in views(MATRICES[name], index):
        check(
            lambda values, x, a=a: spmv(a, values, x),
            lambda values, x, a=a: densify(a, values) @ x,
            {"values": draw(a.col.numel(), dtype=dtype), "x": draw(a.n_cols, dtype=dtype)},
        )


def test_sddmm(name, dtype, index):
    for a in views(MATRICES[name], index):
        for k in COLUMNS:
            check(
                lambda u, v, a=a: sddmm(a, u, v),
                lambda u, v, a=a: sample(a, u @ v.mT),
                {"u": draw(a.n_rows, k, dtype=dtype), "v": draw(a.n_cols, k, dtype=dtype)},
            )


def test_batches_broadcast(name, dtype, index):
    for a in views(MATRICES[name], index):
        nnz, n, m = a.col.numel(), a.n_rows, a.n_cols
        for v_batch, x_batch in BATCHES[: 2 if INTERPRETED else None]:
            check(
                lambda values, x, a=a: spmm(a, values, x),
                lambda values, x, a=a: densify(a, values) @ x,
                {
                    "values": draw(*v_batch, nnz, dtype=dtype),
                    "x": draw(*x_batch, m, 3, dtype=dtype),
                },
            )
            check(
                lambda values, x, a=a: spmv(a, values, x),
                lambda values, x, a=a: (densify(a, values) @ x.unsqueeze(-1)).squeeze(-1),
                {"values": draw(*v_batch, nnz, dtype=dtype), "x": draw(*x_batch, m, dtype=dtype)},
            )
            check(
                lambda u, v, a=a: sddmm(a, u, v),
                lambda u, v, a=a: sample(a, u @ v.mT),
                {"u": draw(*v_batch, n, 3, dtype=dtype), "v": draw(*x_batch, m, 3, dtype=dtype)},
            )


def product_cases(name: str, index) -> list[tuple[Layout, Layout, Layout]]:
    """A B and its transpose B^T A^T on the product's pattern, and A B on a sparse mask."""
    a = layout_of(MATRICES[name], index)
    b = layout_of(sparse.random_array((a.n_cols, 35), density=0.1, rng=1), index)
    crow, col = spgemm_structure(a, b)
    c = Layout(crow, col, None, *transpose_structure(crow, col, b.n_cols), a.n_rows, b.n_cols)
    mask = layout_of(sparse.random_array((a.n_rows, 35), density=0.02, rng=2), index)
    return [(a, b, c), (b.T, a.T, c.T), (a, b, mask)]


def test_spgemm(name, dtype, index):
    for a, b, c in product_cases(name, index):
        nnz_a, nnz_b = a.col.numel(), b.col.numel()
        for a_batch, b_batch in BATCHES[1 : 2 if INTERPRETED else None]:
            check(
                lambda u, v, a=a, b=b, c=c: spgemm(a, u, b, v, c),
                lambda u, v, a=a, b=b, c=c: sample(c, densify(a, u) @ densify(b, v)),
                {
                    "a_values": draw(*a_batch, nnz_a, dtype=dtype),
                    "b_values": draw(*b_batch, nnz_b, dtype=dtype),
                },
            )
