"""What is particular to the C++ library: the division of work, register tiles, raw memory."""

import pytest
import torch
from csr_cases import densify, layout_of, relative_error, sample
from scipy import sparse

from sparsetorch_kernels import _native, sddmm, spgemm, spmm, spmv


@pytest.fixture(autouse=True)
def _needs_the_library():
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")


@pytest.fixture(scope="module")
def long_rows():
    """Rows longer than any piece of work given to a thread, among short and empty ones."""
    matrix = sparse.random_array((200, 70_000), density=1e-5, rng=0).tolil()
    matrix[0] = matrix[150] = 1.0
    layout = layout_of(matrix)
    return layout, torch.randn(layout.col.numel(), dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_long_rows_are_summed_whole(long_rows, dtype):
    a, values = long_rows
    values = values * torch.randn(values.shape, dtype=dtype)
    x = torch.randn(a.n_cols, 5, dtype=dtype)
    u, v = torch.randn(a.n_rows, 5, dtype=dtype), torch.randn(a.n_cols, 5, dtype=dtype)
    dense = densify(a, values)
    assert relative_error(spmv(a, values, x[:, 0]), dense @ x[:, 0]) < 1e-12
    assert relative_error(spmm(a, values, x), dense @ x) < 1e-12
    assert relative_error(sddmm(a, u, v), sample(a, u @ v.mT)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_results_do_not_depend_on_the_number_of_threads(long_rows, dtype):
    a, values = long_rows
    values = values * torch.randn(values.shape, dtype=dtype)
    x, u = torch.randn(2, a.n_cols, 4, dtype=dtype), torch.randn(2, a.n_rows, 4, dtype=dtype)
    square = layout_of(sparse.random_array((3000, 3000), density=2e-3, rng=1))
    w = torch.randn(square.col.numel(), dtype=dtype)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(
                [
                    spmv(a, values, x[..., 0]),
                    spmm(a, values, x),
                    sddmm(a, u, x),
                    spgemm(square, w, square, w, square),
                ]
            )
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for first, second in zip(results[0], other):
            assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_every_number_of_columns(dtype):
    a = layout_of(sparse.random_array((40, 30), density=0.2, rng=0))
    values = torch.randn(a.col.numel(), dtype=dtype)
    exact_dtype = torch.complex128 if dtype.is_complex else torch.float64
    tolerance = 4 * torch.finfo(dtype).eps
    for k in [*range(70), 95, 127, 128, 129]:
        x, u = torch.randn(a.n_cols, k, dtype=dtype), torch.randn(a.n_rows, k, dtype=dtype)
        exact = densify(a, values.to(exact_dtype)) @ x.to(exact_dtype)
        assert relative_error(spmm(a, values, x), exact) < tolerance, k
        exact = sample(a, u.to(exact_dtype) @ x.to(exact_dtype).mT)
        assert relative_error(sddmm(a, u, x), exact) < tolerance, k


def test_strided_operands_and_structure():
    a = layout_of(sparse.random_array((12, 9), density=0.4, rng=0))

    def stretched(index):
        return index.repeat_interleave(2)[::2]

    strided = a._replace(crow=stretched(a.crow), col=stretched(a.col), t_perm=stretched(a.t_perm))
    values, x = torch.randn(a.col.numel(), 2)[:, 0], torch.randn(5, 9).mT
    assert torch.equal(spmm(strided, values, x), spmm(a, values.clone(), x.contiguous()))
    ones = torch.ones(()).expand(12, 5)
    assert torch.equal(spmm(strided.T, values, ones), spmm(a.T, values, ones.contiguous()))


def test_conjugates_that_are_not_yet_computed():
    a = layout_of(sparse.random_array((12, 9), density=0.4, rng=0))
    values, x = (
        torch.randn(a.col.numel(), dtype=torch.cfloat),
        torch.randn(9, 5, dtype=torch.cfloat),
    )
    for left, right in ((values.conj(), x), (values, x.conj())):
        torch.testing.assert_close(spmm(a, left, right), densify(a, left.resolve_conj()) @ right)
    negated = x.conj().imag  # when it is read
    assert negated.is_neg()
    torch.testing.assert_close(spmm(a, values.real, negated), densify(a, values.real) @ negated)


def test_masked_products_by_every_route():
    """Dots, scaled rows and searched rows are chosen by cost; each shape here favours another."""
    generator = torch.Generator().manual_seed(0)
    wide = layout_of(sparse.random_array((30, 2000), density=0.3, rng=0))
    tall = layout_of(sparse.random_array((2000, 40), density=0.3, rng=1))
    narrow = layout_of(sparse.random_array((40, 2000), density=0.3, rng=2))
    inner = layout_of(sparse.random_array((30, 40), density=0.2, rng=3))
    outer = layout_of(sparse.random_array((30, 2000), density=5e-4, rng=4))
    for a, b, c in ((wide, tall, inner), (inner, narrow, outer), (inner, narrow, wide)):
        u = torch.randn(a.col.numel(), generator=generator, dtype=torch.float64)
        v = torch.randn(b.col.numel(), generator=generator, dtype=torch.float64)
        exact = sample(c, densify(a, u) @ densify(b, v))
        assert relative_error(spgemm(a, u, b, v, c), exact) < 1e-13


def test_shapes_that_do_not_fit_are_refused_even_by_the_raw_operator():
    a = layout_of(sparse.random_array((5, 4), density=0.5, rng=0))
    native, nnz = torch.ops.sparsetorch_native, a.col.numel()
    with pytest.raises(RuntimeError, match="does not fit"):
        native.spmm(a.crow, a.col, None, torch.ones(1, nnz - 1), torch.ones(1, 4, 2), 4, False)
    with pytest.raises(RuntimeError, match="does not fit"):
        native.spmm(a.crow, a.col, None, torch.ones(1, nnz), torch.ones(1, 3, 2), 4, False)
    with pytest.raises(RuntimeError, match="broadcast"):
        native.spmm(a.crow, a.col, None, torch.ones(2, nnz), torch.ones(3, 4, 2), 4, False)
    with pytest.raises(RuntimeError, match="dtype"):
        native.sddmm(a.crow, a.col.long(), None, torch.ones(1, 5, 2), torch.ones(1, 4, 2), 4, False)
    rows, cols = torch.tensor([0, 5]), torch.tensor([0, 0])
    for outside in (rows, -rows):
        with pytest.raises(RuntimeError, match="rows: an index out of range"):
            native.find_entries(a.crow, a.col, outside, cols)
    with pytest.raises(RuntimeError, match="int64 vectors of one length"):
        native.find_entries(a.crow, a.col, rows, cols[:1])
    square = layout_of(sparse.random_array((5, 5), density=0.5, rng=0))
    first, index = torch.tensor([0, 2]), torch.tensor([0, 4])
    for beyond in (index + 1, -index):
        with pytest.raises(RuntimeError, match="index: expected rows 0"):
            native.principal_blocks(square.crow, square.col, first, beyond)
    for wrong in (first + 1, torch.tensor([0, 3, 2]), torch.tensor([0])):
        with pytest.raises(RuntimeError, match="first: expected 0"):
            native.principal_blocks(square.crow, square.col, wrong, index)
    with pytest.raises(RuntimeError, match="col: expected a square pattern"):
        native.principal_blocks(square.crow, square.col + 3, first, index)
    with pytest.raises(RuntimeError, match="int64 vectors on the CPU"):
        native.principal_blocks(square.crow, square.col, first.int(), index)
    with pytest.raises(RuntimeError, match="float32 or float64"):
        native.spmm(
            a.crow, a.col, None, torch.ones(1, nnz).half(), torch.ones(1, 4, 2).half(), 4, False
        )
