"""`A[...]` and selections of entries, against NumPy-style indexing of the dense matrix."""

from typing import Any

import numpy as np
import pytest
import torch
from random_matrices import dense, random_csr

from sparsetorch import CSRTensor, Pattern, poisson

KEYS = {
    "row": (2,),
    "last row": (-1,),
    "row and slice": (1, slice(1, 4)),
    "column": (slice(None), 3),
    "slice and column from the end": (slice(None, None, 2), -2),
    "reversed rows": (slice(None, None, -1),),
    "reversed part": (slice(5, 1, -2), slice(None, None, -1)),
    "empty slice": (slice(4, 2),),
    "list": ([3, 0, 3],),
    "empty list": ([],),
    "negative list": ([-1, 0],),
    "array": (np.array([1, 5]),),
    "tensor": (torch.tensor([4, 4, 1]),),
    "mask": (torch.tensor([True, False, True, True, False, False]),),
    "mask as a list": ([False, False, True, True, False, False],),
    "columns": (slice(None), [4, 1]),
    "slice and columns": (slice(1, 3), torch.tensor([0, 0, 2])),
    "every other row and column": (slice(None, None, 2), slice(1, None, 2)),
    "all rows, some columns": (slice(None), slice(1, 3)),
    "no columns": (slice(1, 4), slice(3, 1)),
    "list of rows and columns in a range": ([5, 5, 0], slice(2, 5)),
    "all columns in another order": (slice(None), [3, 0, 4, 1, 2]),
    "row and list": (3, [4, 0, 0]),
    "column and mask": (torch.tensor([True, False, True, True, False, False]), 0),
    "pairs": ([0, 2, 5], [1, 1, 4]),
    "pairs that repeat": ([2, 2], [0, 0]),
    "NumPy integers": (np.int64(2), np.int32(1)),
    "numbers in tensors": (torch.tensor(2), torch.tensor(3, dtype=torch.uint8)),
    "one place": (2, 1),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_parts_and_their_gradients(key):
    A = random_csr(6, 5, 0.5, seed=4)
    as_arrays = tuple(k.numpy() if isinstance(k, torch.Tensor) else k for k in key)
    places = np.array(np.arange(30).reshape(6, 5)[as_arrays])
    wanted = dense(A).flatten()[torch.from_numpy(places)]
    got = A[key[0]] if len(key) == 1 else A[key]
    got = dense(got) if isinstance(got, CSRTensor) else got
    torch.testing.assert_close(got, wanted)
    weights = torch.linspace(1, 2, got.numel(), dtype=got.dtype).reshape(got.shape)
    gradients = [
        torch.autograd.grad((x * weights).sum(), A.values, retain_graph=True)[0]
        for x in (got, wanted)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3])
def test_random_parts_are_those_of_scipy(density):
    A = random_csr(40, 50, density, seed=6).detach()
    S, generator = A.to_scipy(), np.random.default_rng(0)

    def key(size: int) -> slice | np.ndarray:
        if generator.random() < 0.5:
            start, stop = generator.integers(-size, size, 2)
            return slice(int(start), int(stop), int(generator.choice([1, 1, 3, -2])))
        return generator.integers(-size, size, generator.integers(0, 70))

    for _ in range(60):
        rows, cols = key(40), key(50)
        if not isinstance(rows, slice) and not isinstance(cols, slice):
            rows, cols = rows[: len(cols)], cols[: len(rows)]
            expected = np.asarray(S[rows, cols]).ravel()
            assert np.array_equal(
                A.lookup(*map(torch.from_numpy, (rows % 40, cols % 50))), expected
            )
            pairs: Any = A[rows, cols]
            assert np.array_equal(pairs, expected)
            continue
        part, expected = A[rows, cols], S[rows][:, cols]
        assert isinstance(part, CSRTensor)
        assert np.array_equal(part.to_dense().numpy(), expected.toarray())
        Pattern(part.pattern.crow, part.pattern.col, part.pattern.shape)  # it is canonical
        assert part.pattern.dtype == part.pattern.crow.dtype == torch.int32


def test_a_place_that_is_not_stored_has_a_zero_with_a_gradient():
    A = random_csr(6, 5, 0.5, seed=4)
    row, col = (int(i[0]) for i in torch.nonzero(dense(A) == 0, as_tuple=True))
    entry = A[row, col]
    assert (entry.shape, float(entry)) == ((), 0.0)  # type: ignore
    (gradient,) = torch.autograd.grad(entry, A.values)  # type: ignore
    assert (gradient == 0).all()


def test_a_column_is_found_with_the_transpose_and_without():
    A = random_csr(6, 5, 0.5, seed=4)
    fresh = CSRTensor._of(A[:]._sparse)  # type: ignore
    assert fresh.pattern.forward_layout.t_perm is None
    for j in range(5):
        torch.testing.assert_close(fresh[:, j], dense(A)[:, j])
        torch.testing.assert_close(A[:, j], fresh[:, j])


@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacfwd])
@pytest.mark.parametrize("key", ["row", "column", "one place", "slice and columns", "pairs"])
def test_parts_within_transforms(key, transform):
    A = random_csr(6, 5, 0.5, seed=4).detach()

    def total(values: torch.Tensor, A: CSRTensor = A) -> torch.Tensor:
        fresh = Pattern(A.pattern.crow, A.pattern.col, A.pattern.shape)
        part = CSRTensor(fresh, values)[KEYS[key] if len(KEYS[key]) > 1 else KEYS[key][0]]
        return (part.values if isinstance(part, CSRTensor) else part).square().sum()

    expected = torch.autograd.functional.jacobian(total, A.values)
    torch.testing.assert_close(transform(total)(A.values), expected)


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (6, IndexError, "index 6 is out of range for size 6"),
        ((0, -6), IndexError, "index -6 is out of range for size 5"),
        ([0, 6], IndexError, "expected indices from -6 to 5"),
        ((0, 0, 0), IndexError, "expected one or two indices, got 3"),
        (1.5, ValueError, "expected one dimension"),
        ([0.5], TypeError, "expected integers or booleans"),
        (True, TypeError, "expected an integer"),
        (None, TypeError, "expected an integer"),
        (torch.tensor(2.9), TypeError, r"expected an integer, .* got tensor\(2\.9"),
        (torch.tensor(True), TypeError, r"expected an integer, .* got tensor\(True"),
        ((0, torch.tensor(1j)), TypeError, r"A\[:, cols\]: expected an integer"),
        ([True, False], ValueError, "expected a mask of length 6, got 2"),
        (([0, 1], [0]), ValueError, "expected 2 indices like rows, got 1"),
        (torch.zeros(2, 2, dtype=torch.int64), ValueError, "expected one dimension"),
    ],
)
def test_what_is_not_an_index(key, error, message):
    with pytest.raises(error, match=message):
        random_csr(6, 5)[key]


def test_a_batch_is_not_indexed():
    with pytest.raises(ValueError, match="expected one matrix, got a batch of shape"):
        random_csr(6, 5, batch=(2,))[0]


def test_lookup_in_a_batch_and_in_an_empty_matrix():
    A = random_csr(6, 5, batch=(2,), seed=1)
    rows, cols = torch.tensor([0, 5, 3]), torch.tensor([4, 0, 3])
    torch.testing.assert_close(A.lookup(rows, cols), dense(A)[:, rows, cols])
    empty = random_csr(6, 5, 0.0)
    assert (empty.lookup(rows, cols) == 0).all()
    with pytest.raises(ValueError, match="cols: expected indices from 0 to 4"):
        A.lookup(rows, cols + 2)
    with pytest.raises(ValueError, match="cols: expected 3 indices like rows, got 2"):
        A.lookup(rows, cols[:2])


def test_find_gives_the_places_of_entries():
    pattern = random_csr(6, 5, seed=1).pattern
    rows, cols = torch.arange(6).repeat_interleave(5), torch.arange(5).repeat(6)
    places = pattern.find(rows.int(), cols)
    assert places[places >= 0].tolist() == list(range(pattern.nnz))
    stored = places >= 0
    assert torch.equal(rows[stored], pattern.row[places[stored]].long())
    assert torch.equal(cols[stored], pattern.col[places[stored]].long())
    with pytest.raises(ValueError, match="rows: expected indices from 0 to 5, got 0 to 6"):
        pattern.find(torch.tensor([0, 6]), torch.tensor([0, 0]))


def test_prune_keeps_what_is_larger_in_any_matrix_of_the_batch():
    pattern = Pattern(torch.tensor([0, 2, 4]), torch.tensor([0, 1, 0, 2]), (2, 3))
    A = CSRTensor(pattern, torch.tensor([[0.1, -3.0, 0.0, 1.0], [0.1, 0.0, 2.0, 1.0]]))
    assert A.prune(0.5).pattern.col.tolist() == [1, 0, 2]
    one = A.with_values(A.values[0])
    assert one.prune().pattern.col.tolist() == [0, 1, 2]
    assert one.prune(0.5).values.tolist() == [-3.0, 1.0]


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (3, 4)])
@pytest.mark.parametrize("batch", [(), (2,), (0,)])
def test_prune_without_entries(shape, batch):
    A = random_csr(shape[0], shape[1], 0.0, batch=batch)
    assert A.prune().shape == A.shape
    assert A.prune().nnz == 0
    assert poisson(4).prune(1e9).prune().nnz == 0


def test_topk_per_row_takes_the_largest_and_the_first_of_equal_ones():
    pattern = Pattern(torch.tensor([0, 3, 3, 6]), torch.tensor([0, 1, 2, 0, 1, 3]), (3, 4))
    A = CSRTensor(pattern, torch.tensor([1.0, -3.0, 2.0, 5.0, 5.0, -5.0]).requires_grad_())
    top = A.topk_per_row(2)
    assert top.to_dense().tolist() == [[0, -3, 2, 0], [0, 0, 0, 0], [5, 5, 0, 0]]
    top.values.sum().backward()
    assert A.values.grad is not None
    assert A.values.grad.tolist() == [0, 1, 1, 1, 1, 0]
    assert A.topk_per_row(0).nnz == 0
    assert A.topk_per_row(9).nnz == A.nnz
    with pytest.raises(ValueError, match="k: expected at least 0 entries per row"):
        A.topk_per_row(-1)


def test_principal_blocks_of_a_pattern():
    A = random_csr(8, 8)
    first, index = torch.tensor([0, 3, 3, 8]), torch.tensor([1, 4, 6, 0, 1, 4, 5, 7])
    blocks, source = A.pattern.principal_blocks(first.int(), index)
    got = CSRTensor(blocks, A.values[source]).to_dense()
    want = [A.to_dense()[part][:, part] for part in (index[:3], index[3:])]
    torch.testing.assert_close(got, torch.block_diag(*want))
    for wrong, found, message in (
        (first, index + 1, "index: expected indices from 0 to 7"),
        (first + 1, index, "first: expected numbers from 0 to 8 in order"),
        (torch.tensor([0, 5, 3, 8]), index, "first: expected numbers from 0 to 8 in order"),
        (first[:0], index, "first: expected numbers from 0 to 8 in order"),
        (torch.tensor([0, 8]), index, "index: expected increasing numbers in each set"),
    ):
        with pytest.raises(ValueError, match=message):
            A.pattern.principal_blocks(wrong, found)
    with pytest.raises(ValueError, match="principal_blocks: expected a square matrix, got"):
        random_csr(8, 9).pattern.principal_blocks(first, index)


def test_set_diagonal_finds_its_structure_once():
    A = random_csr(5, 5, 0.3, seed=2)
    d = torch.arange(5.0, dtype=torch.float64)
    B = A.with_diagonal(d)
    assert B.pattern is A.with_diagonal(2 * d).pattern
    assert torch.equal(B.diagonal(), d)
    torch.testing.assert_close(B.to_dense(), dense(A) - torch.diag(dense(A).diagonal() - d))
    assert B.with_diagonal(d).pattern is B.pattern  # nothing to add: the very pattern
    with pytest.raises(ValueError, match="d: expected size 5"):
        A.with_diagonal(d[:3])


@pytest.mark.parametrize("diagonal", [-7, -1, 0, 2, 9])
def test_triangles(diagonal):
    A = random_csr(6, 4, 0.6, seed=7)
    torch.testing.assert_close(A.tril(diagonal).to_dense(), dense(A).tril(diagonal))
    torch.testing.assert_close(A.triu(diagonal).to_dense(), dense(A).triu(diagonal))
