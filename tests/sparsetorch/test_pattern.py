"""Patterns: what is checked, what is computed once, and how long it is kept."""

import copy
import gc
import pickle
import re
import weakref

import pytest
import torch
from random_matrices import MIXED, random_csr, random_pattern

import sparsetorch.pattern
from sparsetorch import CSRTensor, Pattern, graph, merging, poisson
from sparsetorch.linalg import slogdet, solve
from sparsetorch.structure import wider
from sparsetorch_kernels import _native

CROW = torch.tensor([0, 2, 2, 3])
COL = torch.tensor([0, 2, 1])


@pytest.fixture
def calls(monkeypatch):
    """How often each structural kernel is called."""
    count = {"transpose_structure": 0, "spgemm_structure": 0}

    def counted(name):
        original = getattr(sparsetorch.pattern, name)

        def call(*args):
            count[name] += 1
            return original(*args)

        return call

    for name in count:
        monkeypatch.setattr(sparsetorch.pattern, name, counted(name))
    return count


def test_describes_itself():
    pattern = Pattern(CROW, COL, (3, 3))
    assert (pattern.shape, pattern.nnz, pattern.device.type) == ((3, 3), 3, "cpu")
    assert pattern.row.tolist() == [0, 0, 2]
    assert repr(pattern) == "Pattern(shape=(3, 3), nnz=3, dtype=torch.int32, device='cpu')"


def test_indices_are_int32_unless_asked_or_too_long():
    assert Pattern(CROW, COL, (3, 3)).dtype == torch.int32
    assert Pattern(CROW, COL, (3, 3), dtype=torch.int64).dtype == torch.int64
    assert Pattern(CROW, COL, (3, 2**31)).dtype == torch.int64


@pytest.mark.parametrize(
    ("crow", "col", "shape", "message"),
    [
        (
            CROW.float(),
            COL,
            (3, 3),
            "crow: expected a 1-D int32 or int64 tensor, got torch.float32",
        ),
        (CROW, COL[None], (3, 3), "col: expected a 1-D int32 or int64 tensor, got .* (1, 3)"),
        ([0, 1], COL, (3, 3), "crow: expected a tensor, got list"),
        (CROW, COL, (3, 3, 3), "shape: expected (n_rows, n_cols), got (3, 3, 3)"),
        (CROW, COL, (3, -1), "shape: expected (n_rows, n_cols), got (3, -1)"),
        (CROW, COL, (4, 3), "crow: expected 5 row pointers for 4 rows, got 4"),
        (CROW + 1, COL, (3, 3), "crow: expected to run from 0 to nnz = 3, got 1 to 4"),
        (CROW, COL[:2], (3, 3), "crow: expected to run from 0 to nnz = 2, got 0 to 3"),
        (
            torch.tensor([0, 3, 2, 3]),
            COL,
            (3, 3),
            "crow: expected row pointers that never decrease, got 3 before 2 at row 1",
        ),
        (CROW, COL, (3, 2), "col: expected indices from 0 to 1, got 0 to 2"),
        (CROW, COL - 1, (3, 3), "col: expected indices from 0 to 2, got -1 to 1"),
        (
            CROW,
            torch.tensor([2, 0, 1]),
            (3, 3),
            "got 2 before 0 in row 0; CSRTensor.from_coo sorts",
        ),
        (
            CROW,
            torch.tensor([1, 1, 1]),
            (3, 3),
            "got 1 before 1 in row 0; CSRTensor.from_coo sorts",
        ),
    ],
)
def test_bad_arguments_are_named(crow, col, shape, message):
    with pytest.raises(ValueError, match=re.escape(message).replace(r"\.\*", ".*")):
        Pattern(crow, col, shape)


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("strided", ["crow", "col"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_index_arrays_with_strides(strided, dtype):
    """What is not PyTorch reads them by their address alone."""
    A = poisson(4, dtype=torch.float64)
    arrays = {"crow": A.pattern.crow.to(dtype), "col": A.pattern.col.to(dtype)}
    arrays[strided] = torch.stack([arrays[strided]] * 2, 1)[:, 0]
    B = CSRTensor(Pattern(arrays["crow"], arrays["col"], (4, 4), dtype), A.values)
    x = torch.arange(4).double()
    torch.testing.assert_close(B.to_torch() @ x, A.to_dense() @ x)
    torch.testing.assert_close(solve(B, x), torch.linalg.solve(A.to_dense(), x))
    torch.testing.assert_close(slogdet(B)[1], A.to_dense().logdet())
    assert (graph.connected_components(B.pattern)[1] == 0).all()
    assert graph.reverse_cuthill_mckee(B.pattern).tolist() == [3, 2, 1, 0]


def test_index_arrays_that_will_do_are_not_copied():
    crow, col = CROW.int(), torch.cat([COL, COL]).int()[3:]
    pattern = Pattern(crow, col, (3, 3))
    assert (pattern.crow.data_ptr(), pattern.col.data_ptr()) == (crow.data_ptr(), col.data_ptr())


def test_the_transpose_is_computed_once_and_knows_its_origin(calls):
    pattern = random_pattern(6, 4, 0.5, 0)
    assert pattern.T.T is pattern
    assert pattern.T is pattern.T
    assert pattern.T.layout is pattern.T.layout
    assert pattern.layout is pattern.layout
    assert calls["transpose_structure"] == 1


def test_training_steps_compute_no_structure(calls):
    A, B = random_csr(6, 4, seed=0), random_csr(4, 5, seed=1)
    counts = []
    for _ in range(3):
        M = A.with_values(A.values * 2)
        loss = (M @ B).values.sum() + (M.T @ torch.ones(6).double()).sum() + (M + A).values.sum()
        loss.backward()
        counts.append(dict(calls))
    assert counts[0] == counts[1] == counts[2] == {"transpose_structure": 3, "spgemm_structure": 1}


def test_a_transpose_outlives_its_origin():
    pattern = random_pattern(6, 4, 0.5, 0)
    crow, transpose = pattern.crow, pattern.T
    del pattern
    assert torch.equal(transpose.T.crow, crow)
    assert transpose.T.T is transpose


def test_a_product_is_found_once(calls):
    A, B = random_pattern(6, 4, 0.5, 0), random_pattern(4, 5, 0.5, 1)
    assert A.matmul(B) is A.matmul(B)
    assert calls["spgemm_structure"] == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_a_product_that_nobody_differentiates_is_found_with_its_values(mode, calls):
    A, B = random_csr(6, 4, seed=0), random_csr(4, 5, seed=1)
    dense = A.to_dense() @ B.to_dense()
    with mode():
        C = A.detach() @ B.detach()
    torch.testing.assert_close(C.to_dense().clone(), dense)
    assert calls["spgemm_structure"] == (1 if _native.ops() is None else 0)
    again = A.with_values(A.values.detach().requires_grad_()) @ B
    assert again.pattern is C.pattern  # kept, and good for derivatives
    torch.testing.assert_close(again.to_dense(), dense)
    again.values.sum().backward()
    with pytest.raises(ValueError, match=r"matmul: inner dimensions differ: \(6, 4\) @ \(6, 4\)"):
        A.detach() @ A.detach()


def test_a_product_is_forgotten_with_its_partner():
    A, B = random_pattern(6, 4, 0.5, 0), random_pattern(4, 5, 0.5, 1)
    product = weakref.ref(A.matmul(B))
    assert product() is not None
    del B
    assert product() is None
    B = random_pattern(4, 6, 0.5, 2)  # perhaps at the address of the old one
    assert A.matmul(B).shape == (6, 6)


def test_a_partner_forgets_the_patterns_that_kept_results_for_it():
    """Else a matrix that lives long collects a little of every one that it meets."""
    partner = random_pattern(6, 6, 0.5, 1)
    before = weakref.getweakrefcount(partner)
    for seed in range(20):
        pattern = random_pattern(6, 6, 0.5, seed)
        for keep in (pattern.matmul, pattern.union, pattern.intersection):
            keep(partner)
    assert weakref.getweakrefcount(partner) > before
    del pattern, keep
    assert weakref.getweakrefcount(partner) == before


def test_patterns_are_freed_without_the_garbage_collector():
    A, B = random_pattern(6, 4, 0.5, 0), random_pattern(6, 4, 0.5, 1)
    for used in (A.T.matmul(B), A.union(B), A.union(A), A.diagonal, A.is_symmetric):
        del used
    alive = weakref.ref(A)
    gc.disable()
    try:
        del A
        assert alive() is None
    finally:
        gc.enable()


def test_a_union_with_a_contained_pattern_is_the_pattern_itself():
    A = random_pattern(5, 5, 1.0, 0)
    assert A.union(random_pattern(5, 5, 0.5, 1)).pattern is A


def test_the_diagonal():
    pattern = Pattern(torch.tensor([0, 2, 3, 5]), torch.tensor([0, 2, 0, 1, 2]), (3, 3))
    assert pattern.diagonal.rows.tolist() == [0, 2]
    assert pattern.diagonal.positions.tolist() == [0, 4]


def test_structural_symmetry():
    pattern = random_pattern(6, 6, 0.3, 0)
    assert not pattern.is_symmetric
    assert pattern.union(pattern.T).pattern.is_symmetric
    assert not random_pattern(6, 4, 0.3, 0).is_symmetric


@pytest.mark.parametrize("restore", [copy.copy, copy.deepcopy])
def test_copies_share_what_cannot_change(restore):
    pattern = random_pattern(6, 4, 0.5, 0)
    assert restore(pattern) is pattern


@pytest.mark.parametrize("crow_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_pickling(dtype, crow_dtype):
    pattern = random_pattern(6, 4, 0.5, 0)
    crow = pattern.crow.to(wider(dtype, crow_dtype))
    pattern = Pattern.trusted(crow, pattern.col.to(dtype), (6, 4))
    restored = pickle.loads(pickle.dumps(pattern))
    assert (restored.dtype, restored.crow.dtype) == (pattern.dtype, pattern.crow.dtype)
    assert restored.shape == pattern.shape
    assert torch.equal(restored.crow, pattern.crow)
    assert torch.equal(restored.col, pattern.col)


def test_moving_to_a_device_keeps_what_is_known(calls):
    pattern = random_pattern(6, 4, 0.5, 0)
    assert pattern.to("cpu") is pattern
    _ = pattern.layout
    moved = pattern.to("meta")
    assert moved.layout.t_perm is not None
    assert moved.layout.t_perm.device.type == "meta"
    assert pattern.to("meta") is moved
    assert calls["transpose_structure"] == 1


def test_operations_check_their_partner():
    A = random_pattern(6, 4, 0.5, 0)
    with pytest.raises(ValueError, match=re.escape("inner dimensions differ: (6, 4) @ (6, 4)")):
        A.matmul(A)
    with pytest.raises(ValueError, match=re.escape("shapes differ: (6, 4) and (4, 6)")):
        A.union(A.T)
    with pytest.raises(ValueError, match=r"union: the patterns are on cpu and meta; move one"):
        A.union(random_pattern(6, 4, 0.5, 0, torch.int64).to("meta"))
    with pytest.raises(ValueError, match="intersection: shapes differ"):
        A.intersection(random_pattern(4, 6, 0.5, 0, torch.int64))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (0, 5), (5, 0), (1, 1)])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_patterns_are_merged_on_the_cpu_as_elsewhere(shape, density):
    n, m = shape
    a, b = (random_pattern(n, m, density, seed) for seed in (0, 1))
    a, b = (a.crow, a.col), (b.crow, b.col)
    keys = merging._keys(a, shape), merging._keys(b, shape)
    for found, expected in (
        (merging.union(a, b, shape), merging._union_of_keys(keys[0], keys[1], shape)),
        (merging.intersection(a, b, shape), merging._intersection_of_keys(*keys, shape)),
    ):
        for got, want in zip(found, expected):
            assert torch.equal(got.long(), want.long())


def test_partners_with_wider_indices_widen_the_result():
    A, B = random_pattern(6, 4, 0.4, 0), random_pattern(6, 4, 0.4, 1)
    for first, second in ((A, B.long), (A.long, B)):
        for operation in ("union", "intersection"):
            found = getattr(first, operation)(second)
            expected = getattr(A, operation)(B)
            assert {found.pattern.dtype, found.pattern.crow.dtype} == {torch.int64}
            assert all(torch.equal(a, b) for a, b in zip(found[1:], expected[1:]))
            assert torch.equal(found.pattern.col, expected.pattern.col.long())
            assert getattr(first, operation)(second).pattern is found.pattern  # kept
        product = first.matmul(second.T)
        assert product.dtype == torch.int64
        assert torch.equal(product.col, A.matmul(B.T).col.long())
        assert first.matmul(second.T) is product
    assert A.long is A.long
    assert A.long.long is A.long
    gone = weakref.ref(A)
    del A, first, second, found, expected, product
    gc.collect()
    assert gone() is None  # what is kept of partners keeps none of them


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0, 6]), "rows: expected indices from 0 to 5, got 0 to 6"),
        (torch.tensor([-1]), "rows: expected indices from 0 to 5, got -1 to -1"),
        (torch.tensor([True] * 6), "got torch.bool of shape (6,)"),
        ([0, 1], "rows: expected a slice or a 1-D integer tensor, got [0, 1]"),
    ],
)
def test_submatrix_checks_its_indices(rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        random_pattern(6, 4, 0.5, 0).submatrix(rows, slice(None))


def test_products_that_nobody_differentiates_need_no_transpose():
    A = random_csr(6, 6).detach()
    B = A + CSRTensor.eye(6, dtype=A.dtype)  # a result: its constructor was not called
    x = torch.randn(6, dtype=A.dtype)
    torch.testing.assert_close(B @ x, B.to_dense() @ x)
    assert B.pattern.forward_layout.t_crow is None
    y = torch.randn(6, dtype=A.dtype, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad((B @ y).sum(), y)[0], B.to_dense().sum(0))
    assert B.pattern.forward_layout.t_crow is not None


def test_mixed_index_dtypes_survive_every_structure():
    pattern = random_pattern(6, 6, 0.4, 1, MIXED)
    other = random_pattern(6, 6, 0.4, 2)
    for result in (
        pattern.T,
        pattern.union(other).pattern,
        pattern.intersection(other).pattern,
        pattern.matmul(other),
        pattern.submatrix(slice(0, 3), slice(None)).pattern,
        pattern.with_diagonal.pattern,
    ):
        assert (result.crow.dtype, result.col.dtype) == (torch.int64, torch.int32)
    assert pattern.diagonal.positions.dtype == torch.int64
    assert Pattern(CROW, COL, (3, 3), crow_dtype=torch.int64).crow.dtype == torch.int64
    with pytest.raises(ValueError, match=r"crow_dtype: expected torch\.int64 "):
        Pattern(CROW, COL, (3, 3), torch.int64, torch.int32)
