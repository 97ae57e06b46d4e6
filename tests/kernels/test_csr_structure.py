"""Transposed patterns, patterns of products and places of entries, by each implementation."""

import numpy as np
import pytest
import torch
from csr_cases import LARGE, MIXED, SMALL, layout_of
from scipy import sparse
from torch._subclasses.fake_tensor import FakeTensorMode

from sparsetorch_kernels import (
    Layout,
    _native,
    find_entries,
    principal_blocks,
    spgemm,
    spgemm_at_once,
    spgemm_structure,
    transpose_structure,
)
from sparsetorch_kernels.csr import structure

MATRICES = SMALL | LARGE

pytestmark = pytest.mark.parametrize("index", [torch.int32, torch.int64, MIXED], ids=str)
each_matrix = pytest.mark.parametrize("name", MATRICES)


@pytest.mark.parametrize(
    "transpose",
    [transpose_structure, structure.transpose_by_scipy, structure.transpose_by_sorting],
)
@each_matrix
def test_transpose(transpose, name, index):
    a = layout_of(MATRICES[name], index)
    values = torch.arange(a.col.numel())
    want = sparse.csr_array(
        (values.numpy(), a.col.numpy(), a.crow.numpy()), shape=(a.n_rows, a.n_cols)
    ).T.tocsr()
    want.sort_indices()
    t_crow, t_col, t_perm = transpose(a.crow, a.col, a.n_cols)
    assert (t_crow.dtype, t_col.dtype, t_perm.dtype) == (a.crow.dtype, a.col.dtype, a.crow.dtype)
    assert t_crow.tolist() == want.indptr.tolist()
    assert t_col.tolist() == want.indices.tolist()
    assert t_perm.tolist() == want.data.tolist()


@pytest.mark.parametrize("find", [find_entries, structure.find_by_bisection])
@each_matrix
def test_every_entry_is_found_and_no_other(find, name, index):
    a = layout_of(MATRICES[name], index)
    row = torch.repeat_interleave(torch.arange(a.n_rows), a.crow.diff().long())
    known = {pair: k for k, pair in enumerate(zip(row.tolist(), a.col.tolist()))}
    generator = torch.Generator().manual_seed(0)
    count = 500 if a.n_rows and a.n_cols else 0
    some = [torch.randint(max(n, 1), (count,), generator=generator) for n in (a.n_rows, a.n_cols)]
    rows, cols = torch.cat([row, some[0]]), torch.cat([a.col.long(), some[1]])
    found = find(a.crow, a.col, rows, cols)
    assert found.dtype == torch.int64
    assert found.tolist() == [known.get(pair, -1) for pair in zip(rows.tolist(), cols.tolist())]
    assert find(a.crow, a.col, rows[:0], cols[:0]).shape == (0,)


@pytest.mark.parametrize("blocks_of", [principal_blocks, structure.blocks_by_bisection])
@pytest.mark.parametrize("name", ["1x1", "63", "stencil", "empty"])
def test_principal_blocks_are_the_submatrices_on_overlapping_sets(blocks_of, name, index):
    A = sparse.csr_array((6, 6)) if name == "empty" else MATRICES[name]
    a = layout_of(A, index)
    rng = np.random.default_rng(0)
    sets = [np.sort(rng.permutation(a.n_rows)[:size]) for size in (a.n_rows, 1, 0, 20, 60)]
    first = torch.tensor([0, *np.cumsum([len(s) for s in sets])])
    crow, col, source = blocks_of(a.crow, a.col, first, torch.from_numpy(np.concatenate(sets)))
    assert {t.dtype for t in (crow, col, source)} == {torch.int64}
    values = np.arange(1, a.col.numel() + 1)
    whole = sparse.csr_array((values, a.col.numpy(), a.crow.numpy()), shape=(a.n_rows, a.n_cols))
    want = sparse.csr_array(sparse.block_diag([whole[s][:, s] for s in sets]))
    want.sort_indices()
    assert crow.tolist() == want.indptr.tolist()
    assert col.tolist() == want.indices.tolist()
    assert (source + 1).tolist() == want.data.tolist()


@pytest.mark.parametrize(
    "product", [spgemm_structure, structure.product_by_scipy, structure.product_by_sorting]
)
@each_matrix
def test_product_keeps_what_cancels(product, name, index):
    a = layout_of(MATRICES[name], index)
    b = layout_of(sparse.random_array((a.n_cols, 17), density=0.1, rng=0), index)
    crow, col = product(a, b)
    ones = [
        sparse.csr_array(
            (torch.ones(x.col.numel()).numpy(), x.col.numpy(), x.crow.numpy()),
            shape=(x.n_rows, x.n_cols),
        )
        for x in (a, b)
    ]
    want = sparse.csr_array(ones[0] @ ones[1])
    want.sort_indices()
    assert crow.tolist() == want.indptr.tolist()
    assert col.tolist() == want.indices.tolist()
    if product is spgemm_structure:
        assert (crow.dtype, col.dtype) == (a.crow.dtype, a.col.dtype)


def test_a_product_at_once_is_its_pattern_and_its_values(index, any_value):
    if _native.ops() is None:
        pytest.skip("the native library alone does it")
    for matrix in MATRICES.values():
        a = layout_of(matrix, index)
        b = layout_of(sparse.random_array((a.n_cols, 17), density=0.1, rng=0), index)
        crow, col = spgemm_structure(a, b)
        c = Layout(crow, col, None, *transpose_structure(crow, col, b.n_cols), a.n_rows, b.n_cols)
        u, v = (any_value(x.col.numel()) for x in (a, b))
        found = spgemm_at_once(a, u, b, v)
        assert found is not None
        assert torch.equal(found[0], crow)
        assert torch.equal(found[1], col)
        assert [x.dtype for x in found] == [crow.dtype, col.dtype, u.dtype]
        torch.testing.assert_close(found[2], spgemm(a, u, b, v, c), equal_nan=True)


@pytest.fixture(params=[torch.float32, torch.float64, torch.complex64, torch.complex128], ids=str)
def any_value(request):
    """Random values of a dtype, one of them infinite, one of them NaN."""

    def draw(count):
        values = torch.randn(count, dtype=request.param, generator=torch.Generator().manual_seed(0))
        values[count // 3 : count // 3 + 1] = torch.inf
        values[count // 2 : count // 2 + 1] = torch.nan
        return values

    return draw


def test_what_no_pass_finds_at_once(index, monkeypatch):
    a = layout_of(MATRICES["stencil"], index)
    n = a.col.numel()
    with FakeTensorMode():
        fake = torch.ones(n)
    for values in (torch.ones(2, n), torch.ones(n).half(), fake):
        assert spgemm_at_once(a, values, a, values) is None
    monkeypatch.setattr(_native, "ops", lambda: None)
    assert spgemm_at_once(a, torch.ones(n), a, torch.ones(n)) is None


@each_matrix
def test_transposing_twice_is_the_identity(name, index):
    a = layout_of(MATRICES[name], index)
    again = transpose_structure(*a.transposed, a.n_rows)
    assert torch.equal(again[0], a.crow)
    assert torch.equal(again[1], a.col)
    assert isinstance(a.T.T, Layout)
    assert a.T.T.crow is a.crow


def test_rows_of_every_length(index):
    """Short, long and full rows are sorted in ways of their own; parts are longer than one row."""
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(5000)[:count] for count in [*range(40), 100, 300, 4999, 5000]]
    crow = np.concatenate([[0], np.cumsum([len(row) for row in chosen])])
    wide = sparse.csr_array(
        (np.ones(crow[-1]), np.concatenate(chosen), crow), shape=(len(chosen), 5000)
    )
    a, b = layout_of(sparse.eye_array(len(chosen)), index), layout_of(wide, index)
    tall = layout_of(sparse.csr_array(np.ones((400, 1)) * np.eye(1, len(chosen), 43)), index)
    assert torch.equal(spgemm_structure(a, b)[1], b.col)
    values = torch.randn(b.col.numel())
    found = spgemm_at_once(a, torch.ones(a.n_rows), b, values)
    assert found is None or torch.equal(found[2], values)  # the native library finds it
    found = spgemm_at_once(b, values, layout_of(sparse.eye_array(5000), index), torch.ones(5000))
    assert found is None or torch.equal(found[2], values)
    crow, col = spgemm_structure(tall, b)  # 400 full rows: two million entries
    assert torch.equal(crow, torch.arange(401, dtype=crow.dtype) * 5000)
    assert torch.equal(col, torch.arange(5000, dtype=col.dtype).repeat(400))


def test_symmetric_patterns_and_those_that_are_nearly_so(index):
    """A symmetric pattern is found to be its own transpose, on any number of threads."""
    rng = np.random.default_rng(1)
    half = sparse.random_array((900, 900), density=0.15, rng=rng)
    whole = sparse.lil_array((half + half.T + sparse.eye_array(900)).astype(bool))
    hollow = whole.copy()
    hollow.setdiag(False)
    without_lower, without_upper = whole.copy(), whole.copy()
    row, col = sparse.tril(half, -1).nonzero()
    without_lower[row[-1], col[-1]] = without_upper[col[-1], row[-1]] = False
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for matrix in (whole, hollow, without_lower, without_upper):
                csr = sparse.csr_array(matrix)
                csr.eliminate_zeros()
                a = layout_of(csr, index)
                want = structure.transpose_by_scipy(a.crow, a.col, a.n_cols)
                assert all(map(torch.equal, transpose_structure(a.crow, a.col, a.n_cols), want))
    finally:
        torch.set_num_threads(before)
