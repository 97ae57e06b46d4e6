"""`A[...]` and selections of entries, against NumPy-style indexing of the dense matrix."""

import numpy as np
import pytest
import torch
from random_matrices import dense, random_csr

from sparsetorch import CSRTensor, Pattern

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
    "pairs": ([0, 2, 5], [1, 1, 4]),
    "pairs that repeat": ([2, 2], [0, 0]),
    "NumPy integers": (np.int64(2), np.int32(1)),
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


def test_prune_keeps_what_is_larger_in_any_matrix_of_the_batch():
    pattern = Pattern(torch.tensor([0, 2, 4]), torch.tensor([0, 1, 0, 2]), (2, 3))
    A = CSRTensor(pattern, torch.tensor([[0.1, -3.0, 0.0, 1.0], [0.1, 0.0, 2.0, 1.0]]))
    assert A.prune(0.5).pattern.col.tolist() == [1, 0, 2]
    one = A.with_values(A.values[0])
    assert one.prune().pattern.col.tolist() == [0, 1, 2]
    assert one.prune(0.5).values.tolist() == [-3.0, 1.0]


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
    with pytest.raises(ValueError, match="k: expected a number"):
        A.topk_per_row(-1)


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
