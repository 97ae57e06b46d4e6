"""Every way into and out of a CSRTensor, exactly."""

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from random_matrices import dense, random_csr, random_pattern

from sparsetorch import CSRTensor, Pattern, assembly
from sparsetorch.structure import row_major_order

FORMATS = ["csr", "csc", "coo", "bsr", "lil", "dok", "dia"]


def scipy_matrix(fmt: str, dtype: type = np.float64) -> Any:
    rng = np.random.default_rng(0)
    return sp.random_array((8, 6), density=0.4, rng=rng, dtype=dtype).asformat(fmt)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_from_scipy_is_exact(fmt, dtype):
    matrix = scipy_matrix(fmt, dtype)
    A = CSRTensor.from_scipy(matrix)
    # numml goes through float32 here: float64 values come back wrong by 1e-8.
    np.testing.assert_array_equal(A.to_dense().numpy(), matrix.toarray())
    assert A.to_dense().numpy().dtype == dtype


def test_from_scipy_takes_matrices_as_well_as_arrays():
    matrix = sp.csr_matrix(scipy_matrix("csr"))
    np.testing.assert_array_equal(CSRTensor.from_scipy(matrix).to_dense().numpy(), matrix.toarray())


def test_from_scipy_sorts_sums_and_keeps_explicit_zeros():
    data, indices, indptr = (
        np.array([1.0, 2.0, 4.0, 0.0]),
        np.array([2, 0, 2, 1]),
        np.array([0, 3, 4]),
    )
    matrix = sp.csr_array((data, indices, indptr), shape=(2, 3))
    A = CSRTensor.from_scipy(matrix)
    assert A.pattern.col.tolist() == [0, 2, 1]
    assert A.values.tolist() == [2.0, 5.0, 0.0]
    assert matrix.indices.tolist() == [2, 0, 2, 1]  # the source is left as it was


def test_from_scipy_copies():
    matrix = scipy_matrix("csr")
    A = CSRTensor.from_scipy(matrix)
    matrix.data[:] = 0
    assert A.values.abs().min() > 0


def test_indices_beyond_2_to_the_24_survive():
    # numml passes indices through float32 and corrupts them from 2^24 on.
    n = 2**24 + 3
    A = CSRTensor.from_scipy(sp.eye_array(n, format="csr"))
    assert A.pattern.dtype == torch.int32
    steps = torch.arange(n, dtype=torch.int32)
    assert torch.equal(A.pattern.col, steps)
    assert torch.equal(A.pattern.crow[:-1], steps)


def test_from_scipy_refuses_integers_unless_told_the_dtype():
    matrix = sp.csr_array(np.eye(2, dtype=np.int64))
    with pytest.raises(TypeError, match=r"int64, which cannot be differentiated; pass dtype"):
        CSRTensor.from_scipy(matrix)
    assert CSRTensor.from_scipy(matrix, dtype=torch.float32).dtype == torch.float32


def test_from_scipy_refuses_what_is_not_sparse():
    with pytest.raises(TypeError, match=r"expected a SciPy sparse matrix or array, got ndarray"):
        CSRTensor.from_scipy(np.eye(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_to_scipy_returns_a_copy(dtype):
    A = random_csr(5, 7, dtype=dtype)
    matrix = A.to_scipy()
    assert isinstance(matrix, sp.csr_array)
    np.testing.assert_array_equal(matrix.toarray(), dense(A).detach().numpy())
    before = A.values.clone()
    matrix.data[:] = 0
    matrix.indices[:] = 0
    assert torch.equal(A.values, before)
    assert A.pattern.col.any()


def test_to_scipy_refuses_a_batch():
    with pytest.raises(
        ValueError, match=r"to_scipy: expected one matrix, got a batch of shape \(2,\)"
    ):
        random_csr(3, 3, batch=(2,)).to_scipy()


@pytest.mark.parametrize("batch", [(), (3,)])
@pytest.mark.parametrize("n_triplets", [0, 1, 40])
def test_from_coo_sums_duplicates(batch, n_triplets):
    generator = torch.Generator().manual_seed(0)
    row = torch.randint(0, 5, (n_triplets,), generator=generator)
    col = torch.randint(0, 4, (n_triplets,), generator=generator)
    values = torch.randn(*batch, n_triplets, generator=generator, dtype=torch.float64)
    values.requires_grad_()
    A = CSRTensor.from_coo(row, col, values, (5, 4))
    expected = values.new_zeros(*batch, 20).index_add(-1, row * 4 + col, values)
    torch.testing.assert_close(A.to_dense(), expected.reshape(*batch, 5, 4))

    weights = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((A.to_dense() * weights).sum(), values)
    torch.testing.assert_close(gradient, weights[row, col].expand_as(values))


def test_from_coo_has_one_structure_for_every_order():
    row, col = torch.tensor([1, 0, 1, 1]), torch.tensor([2, 0, 2, 0])
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    A = CSRTensor.from_coo(row, col, values, (2, 3))
    order = torch.tensor([3, 2, 1, 0])
    B = CSRTensor.from_coo(row[order], col[order], values[order], (2, 3))
    assert torch.equal(A.pattern.crow, B.pattern.crow)
    assert torch.equal(A.pattern.col, B.pattern.col)
    assert torch.equal(A.values, B.values)
    assert A.values.tolist() == [2.0, 8.0, 5.0]


@pytest.mark.parametrize("shape", [(5, 7), (7, 5), (3, 10**6), (10**6, 3), (1, 1), (40, 40)])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("count", [0, 1, 2, 60])
def test_triplets_are_sorted_stably(shape, dtype, count):
    generator = torch.Generator().manual_seed(count)
    row, col = (torch.randint(0, n, (count,), generator=generator).to(dtype) for n in shape)
    expected = torch.sort(row.long() * shape[1] + col, stable=True).indices
    order = row_major_order(row, col, shape)
    if order is None:
        order = torch.arange(count)
    assert torch.equal(order, expected)
    row, col = row[order], col[order]
    assert row_major_order(row, col, shape) is None
    A = CSRTensor.from_coo(row, col, torch.ones(count), shape)
    assert float(A.sum()) == count
    Pattern(A.pattern.crow, A.pattern.col, shape)  # it is canonical
    col.fill_(0)  # and shares nothing with what was given
    Pattern(A.pattern.crow, A.pattern.col, shape)


def test_from_coo_is_the_same_every_time():
    generator = torch.Generator().manual_seed(0)
    row, col = torch.randint(0, 3, (2, 30_000), generator=generator)
    values = torch.randn(30_000, generator=generator)
    first, second = (CSRTensor.from_coo(row, col, values, (3, 3)) for _ in range(2))
    assert torch.equal(first.values, second.values)


def test_from_coo_differentiates_twice():
    row, col = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2])
    values = torch.randn(3, dtype=torch.float64, requires_grad=True)

    def cubes(v):
        return CSRTensor.from_coo(row, col, v, (2, 3)).values ** 3

    assert torch.autograd.gradcheck(cubes, values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(cubes, values)


def test_an_assembly_serves_many_values():
    row, col = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2])
    plan = assembly(row, col, (2, 3))
    for _ in range(2):
        values = torch.randn(3)
        expected = CSRTensor.from_coo(row, col, values, (2, 3)).values
        assert torch.equal(plan.sum(values), expected)


@pytest.mark.parametrize(
    ("row", "values", "message"),
    [
        (torch.tensor([0, 3]), torch.ones(2), r"row: expected indices from 0 to 1, got 0 to 3"),
        (torch.tensor([0, -1]), torch.ones(2), r"row: expected indices from 0 to 1, got -1 to 0"),
        (torch.tensor([0.0, 1.0]), torch.ones(2), r"row: .* got torch.float32"),
        (torch.tensor([0]), torch.ones(1), r"col: expected 1 indices on cpu like row, got 2"),
        (torch.tensor([0, 1]), torch.ones(3), r"values: expected 2 in the last dimension"),
    ],
)
def test_from_coo_names_bad_arguments(row, values, message):
    with pytest.raises(ValueError, match=message):
        CSRTensor.from_coo(row, torch.tensor([0, 1]), values, (2, 2))


def test_from_dense_stores_what_is_not_zero_in_any_matrix_of_a_batch():
    x = torch.zeros(2, 2, 3)
    x[0, 0, 1], x[1, 1, 2] = 5.0, 7.0
    A = CSRTensor.from_dense(x)
    assert A.values.tolist() == [[5.0, 0.0], [0.0, 7.0]]
    assert torch.equal(A.to_dense(), x)


def test_from_dense_on_a_pattern_is_differentiable():
    pattern = random_pattern(4, 5, 0.5, 0)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    A = CSRTensor.from_dense(x, pattern)
    assert A.pattern is pattern
    (gradient,) = torch.autograd.grad(A.values.sum(), x)
    assert torch.equal(gradient != 0, dense(A.with_values(torch.ones_like(A.values))) != 0)
    with pytest.raises(ValueError, match=r"pattern: expected shape \(2, 2\), got \(4, 5\)"):
        CSRTensor.from_dense(torch.ones(2, 2), pattern)


def test_identity_and_diagonal():
    assert torch.equal(CSRTensor.eye(3, dtype=torch.float64).to_dense(), torch.eye(3).double())
    d = torch.randn(2, 3)
    assert torch.equal(CSRTensor.diag(d).to_dense(), torch.diag_embed(d))


def test_values_are_neither_copied_nor_detached():
    # numml clones them, so that A.grad never arrives anywhere.
    values = torch.nn.Parameter(torch.ones(3))
    A = CSRTensor(Pattern(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), (2, 2)), values)
    (A @ torch.ones(2)).sum().backward()
    assert A.values is values
    assert values.grad is not None


def test_describes_itself():
    A = random_csr(3, 4, batch=(2,))
    assert A.shape == (2, 3, 4)
    assert (A.ndim, A.dtype, A.device.type, A.requires_grad) == (3, torch.float64, "cpu", True)
    assert repr(A) == (
        f"CSRTensor(shape=(2, 3, 4), nnz={A.nnz}, dtype=torch.float64, device='cpu', "
        "requires_grad=True)"
    )
    assert not A.detach().requires_grad


def test_conversion_of_dtype_and_device():
    A = random_csr(3, 4)
    assert A.to(torch.float32).dtype == torch.float32
    assert A.to(torch.float32).pattern is A.pattern
    assert A.to("meta").device.type == "meta"
    assert A.to("meta").pattern.device.type == "meta"


def test_copying_and_saving():
    A = random_csr(3, 4)
    clone = copy.deepcopy(A)
    assert clone.pattern is A.pattern
    assert clone.values is not A.values
    assert torch.equal(pickle.loads(pickle.dumps(A)).to_dense(), A.to_dense())
    file = io.BytesIO()
    torch.save({"A": A}, file)
    file.seek(0)
    restored = torch.load(file)["A"]  # by default PyTorch reads no classes that it does not know
    assert torch.equal(restored.values, A.values)
    assert restored.requires_grad


def test_a_damaged_pickle_is_refused():
    """Kernels follow the indices of a pattern wherever they lead."""
    wrong = Pattern.trusted(torch.tensor([0, 1, 2]), torch.tensor([0, 10**6]), (2, 2))
    with pytest.raises(ValueError, match="col: expected indices from 0 to 1"):
        pickle.loads(pickle.dumps(wrong))


def test_a_matrix_is_no_parameter():
    """`nn.Parameter(A)` would be taken for an attribute, and never trained."""
    A = random_csr(3, 4)
    with pytest.raises(TypeError, match=r"keep nn.Parameter\(A.values\)"):
        torch.nn.Parameter(A)  # pyright: ignore
