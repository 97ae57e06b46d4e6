"""What bad operands get: an error that says what came and what to do."""

import re
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from operations import OPERATIONS, random_inputs, values_of
from random_matrices import random_csr

from sparsetorch import CSRTensor, Pattern, galerkin, masked_matmul, sddmm, spmm

A: Any = random_csr(4, 3)
x: Any = torch.ones(3, dtype=torch.float64)

ROW: Any = np.ones(4)
TWO: Any = np.float32(2)


@pytest.mark.parametrize(
    "operation",
    [
        lambda: A - 1.0,  # numml returns A + 1
        lambda: 1.0 - A,
        lambda: A + 1,
        lambda: 1 + A,
        lambda: A + x,
        lambda: x + A,
        lambda: x - A,
        lambda: torch.add(A, 1.0),
        lambda: torch.sub(x, A),
    ],
)
def test_only_sparse_matrices_are_added(operation):
    with pytest.raises(TypeError, match=r"would fill the places that are not stored"):
        operation()


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda: A @ x[:2], ValueError, "x: expected size 3 in dimension -1 for a matrix of shape"),
        (lambda: A @ torch.ones(4, 3), ValueError, "X: expected size 3 in dimension -2"),
        (lambda: x @ A, ValueError, "x: expected size 4 in dimension -1"),
        (lambda: A @ x.float(), TypeError, "nothing is cast silently: convert one with .to(dtype)"),
        (lambda: A @ x.to("meta"), ValueError, "is on cpu and the other operand on meta"),
        (lambda: A @ 2.0, TypeError, "@: expected a tensor or a CSRTensor, got float"),
        (lambda: ROW @ A, TypeError, "@: expected a tensor or a CSRTensor, got ndarray"),
        (lambda: A @ A, ValueError, "inner dimensions differ: (4, 3) @ (4, 3)"),
        (lambda: A + A.T, ValueError, "shapes differ: (4, 3) and (3, 4)"),
        (lambda: A + A.to(torch.float32), TypeError, "+: the matrix is torch.float64"),
        (lambda: A * A.T, ValueError, "intersection: shapes differ: (4, 3) and (3, 4)"),
        (lambda: A * x, TypeError, "got Tensor of shape (3,); use scale_rows or scale_cols"),
        (lambda: A / "2", TypeError, "expected a number or a 0-d tensor"),
        (lambda: A.scale_rows(x), ValueError, "d: expected size 4 in dimension -1"),
        (lambda: torch.div(x, A), TypeError, "division by a CSRTensor is not defined"),
        (
            lambda: torch.exp(A),
            TypeError,
            "exp is not defined for a CSRTensor; apply it to A.values",
        ),
        (lambda: torch.dot(A, A), TypeError, "dot is not defined for a CSRTensor"),
        (lambda: torch.stack([A, A], 1), ValueError, "dim: expected 0, got 1"),
        (lambda: A.with_values(x), ValueError, "values: expected (*batch, "),
        (lambda: A.with_values(torch.ones(A.nnz, dtype=torch.int64)), TypeError, "got torch.int64"),
        (
            lambda: A.with_values(A.values.to("meta")),
            ValueError,
            "expected on cpu like the pattern",
        ),
        (
            lambda: masked_matmul(A, A.T, A.pattern),
            ValueError,
            "a pattern of shape (n, m), got (4, 3)",
        ),
        (lambda: masked_matmul(A, x, A.pattern), TypeError, "got CSRTensor and Tensor"),
        (lambda: torch.transpose(A, 0, 0), ValueError, "expected the last two dimensions"),
    ],
)
def test_bad_operands_are_named(operation, error, message):
    with pytest.raises(error, match=re.escape(message)):
        operation()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex32, torch.int64, torch.bool])
def test_values_of_other_dtypes_than_the_six(dtype):
    values = torch.ones(1).to(dtype)
    pattern = Pattern(torch.tensor([0, 1]), torch.tensor([0]), (1, 1))
    with pytest.raises(TypeError, match=rf"^values: expected float16, .* complex128, got {dtype}"):
        CSRTensor(pattern, values)
    with pytest.raises(TypeError, match=f"got {dtype}"):
        CSRTensor.eye(2).to(dtype)


ON_META: Any = torch.ones((), device="meta")
X: Any = torch.ones(3, 2, dtype=torch.float64)
B: Any = random_csr(4, 3, seed=5)


def test_sums_heed_alpha():
    a, b = A.to_dense(), B.to_dense()
    alphas: Any = (2, -0.5, torch.tensor(3.0, dtype=torch.float64))
    for alpha in alphas:
        for function in (torch.add, torch.sub, torch.rsub):
            sparse: Any = function(A, B, alpha=alpha)
            torch.testing.assert_close(sparse.to_dense(), function(a, b, alpha=alpha))


def test_mm_and_mv_take_what_torch_takes():
    assert torch.equal(torch.mm(A, X), A @ X)
    assert torch.equal(torch.mm(X.T, A.T), X.T @ A.T)
    square: Any = torch.mm(A, A.T)
    assert torch.equal(square.values, (A @ A.T).values)
    assert torch.equal(torch.mv(A, x), A @ x)
    batch: Any = A.with_values(A.values.expand(2, -1))
    for wrong in (lambda: torch.mm(A, x), lambda: torch.mm(x, A.T), lambda: torch.mm(batch, X),
                  lambda: torch.mm(A, X.expand(2, 3, 2))):  # fmt: skip
        with pytest.raises(ValueError, match=r"mm: expected operands of 2 and 2 dimensions"):
            wrong()
    for wrong in (lambda: torch.mv(A, X), lambda: torch.mv(batch, x)):
        with pytest.raises(ValueError, match=r"mv: expected operands of 2 and 1 dimensions"):
            wrong()
    for wrong in (lambda: torch.mv(A, A.T), lambda: torch.mv(X.T, A.T)):
        with pytest.raises(TypeError, match=r"mv: expected a CSRTensor and a vector"):
            wrong()


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda: galerkin(A.T, A @ A.T, x), TypeError, "P: expected a CSRTensor, got Tensor; "),
        (lambda: galerkin(X.T, A.T @ A, A.T), TypeError, "R: expected a CSRTensor, got Tensor"),
        (lambda: masked_matmul(A, A.T, A), TypeError, "pattern: expected a Pattern, got CSRTensor"),
        (lambda: sddmm(A, X, X), TypeError, "pattern: expected a Pattern, got CSRTensor"),
        (lambda: sddmm(A.pattern, x, x), ValueError, "Y: expected (*batch, m, k), got shape (3,)"),
        (lambda: CSRTensor.from_dense(X, A), TypeError, "pattern: expected a Pattern"),
        (lambda: A.pattern.matmul(A), TypeError, "other: expected a Pattern, got CSRTensor"),
        (lambda: A.pattern.union(None), TypeError, "other: expected a Pattern, got NoneType"),
        (lambda: spmm(X, X), TypeError, "A: expected a CSRTensor, got Tensor"),
        (lambda: A.add_diagonal(x[:2]), ValueError, "d: expected size 3 in dimension -1"),
        (lambda: A.add_diagonal(x.float()), TypeError, "nothing is cast silently"),
        (lambda: A.add_diagonal(x.to("meta")), ValueError, "is on cpu and the other operand on"),
        (lambda: A.prune(-1), ValueError, "threshold: expected a number of at least 0, got -1"),
        (lambda: A.prune(np.nan), ValueError, "threshold: expected a number of at least 0"),
        (lambda: torch.pow(2, A), TypeError, "pow: expected a CSRTensor to a power"),
        (lambda: A * ON_META, ValueError, "is on cpu and what scales it on meta; move one with"),
        (lambda: A / ON_META, ValueError, "is on cpu and what scales it on meta"),
        (lambda: A**A, TypeError, "exponent: expected a number, got a CSRTensor"),
        (lambda: A ** torch.ones(A.nnz), TypeError, "exponent: expected a number, got a Tensor"),
        (lambda: A.topk_per_row(1.5), ValueError, "k: expected at least 0 entries per row"),
        (lambda: torch.transpose(A, 5, 6), ValueError, "expected the last two dimensions"),
        (
            lambda: A.with_values(A.values.expand(0, -1)).amax(),
            ValueError,
            "amax: a batch of shape (0,) has none",
        ),
    ],
)
def test_more_bad_operands(operation, error, message):
    with pytest.raises(error, match=re.escape(message)):
        operation()


# Operations whose expression in the table has torch put dense operands together first, that need
# structure, which a matrix on the meta device has not, or that take 0-d tensors of the CPU.
MIXING = ("masked dense", "add diagonal", "scaling by")
MIXING = (*MIXING, "lower triangular", "transposed upper", "unit triangular")


@pytest.mark.parametrize(
    "operation",
    [op for op in OPERATIONS if not op.name.startswith(MIXING)],
    ids=lambda op: op.name,
)
@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ("meta", ValueError, r"on (cpu|meta).* on (cpu|meta)"),
        (torch.float32, TypeError, r"float(32|64).*float(32|64)"),
    ],
    ids=str,
)
def test_operands_of_different_kinds(operation, other, error, message):
    inputs = random_inputs(5, 4, 6, 0.5, seed=1)
    result = values_of(operation.sparse(inputs)).sum()
    found = torch.autograd.grad(result, inputs.tensors(), allow_unused=True)
    used = {name for name, g in zip("ABCxXYds", found) if g is not None}
    if len(used) < 2:
        return  # there is nothing that it could differ from
    for name in used:
        operand: Any = getattr(inputs, name)
        with pytest.raises(error, match=message):
            operation.sparse(inputs._replace(**{name: operand.detach().to(other)}))


@pytest.mark.parametrize("reduce", ["sum", "mean", "min", "max", "logsumexp"])
@pytest.mark.parametrize("combine", ["mul", "add"])
def test_batches_of_a_semiring_product(reduce, combine):
    batch = A.with_values(A.values.expand(2, -1))
    with pytest.raises(ValueError, match=r"batches of shape \(2,\) and \(3,\) do not broadcast"):
        spmm(batch, X.expand(3, 3, 2), reduce, combine)


def test_pruning_hides_no_nan():
    values = torch.tensor([1.0, float("nan"), 0.0])
    M = CSRTensor(Pattern(torch.tensor([0, 3]), torch.tensor([0, 1, 2]), (1, 3)), values)
    assert M.prune().pattern.col.tolist() == [0, 1]


def test_numpy_numbers_scale():
    for scaled in (TWO * A, np.float64(2) * A, A * np.int64(2)):
        assert isinstance(scaled, CSRTensor)
        assert torch.equal(scaled.values, 2 * A.values)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.float32])
def test_indices_have_32_or_64_bits(dtype):
    with pytest.raises(ValueError, match=r"dtype: expected torch\.int32 or torch\.int64"):
        Pattern(torch.tensor([0, 1]), torch.tensor([200]), (1, 300), dtype=dtype)


def test_indices_that_int32_cannot_count_are_not_cut_to_it():
    with pytest.raises(ValueError, match=r"dtype: expected torch\.int64 for shape"):
        Pattern(torch.tensor([0, 1]), torch.tensor([5]), (1, 2**33), dtype=torch.int32)


@pytest.mark.parametrize("pointer", [5, -1])
def test_a_scipy_matrix_with_damaged_pointers_is_refused(pointer):
    matrix = sp.csr_array(sp.eye_array(3))
    matrix.indptr[1] = pointer
    with pytest.raises(ValueError, match="matrix: its index arrays are not valid"):
        CSRTensor.from_scipy(matrix)


def test_nothing_complex_becomes_real():
    B = CSRTensor.from_scipy(sp.csr_array(1j * sp.eye_array(3)))
    with pytest.raises(TypeError, match="would lose the imaginary part"):
        B.to(torch.float64)
    with pytest.raises(TypeError, match="would lose the imaginary part"):
        CSRTensor.from_scipy(B.to_scipy(), torch.float32)


@pytest.mark.parametrize(
    "operation",
    [lambda B, v: B + B.with_values(v), lambda B, v: B * B.with_values(v),
     lambda B, v: B.scale_rows(v[:, :4]), lambda B, v: B.scale_cols(v[:, :3]),
     lambda B, v: B + B.with_values(v).T.T],
)  # fmt: skip
def test_batches_that_do_not_broadcast(operation):
    B = A.with_values(torch.ones(2, A.nnz, dtype=A.dtype))
    with pytest.raises(ValueError, match=r"batches of shape \(2,\) and \(3,\) do not broadcast"):
        operation(B, torch.ones(3, A.nnz, dtype=A.dtype))


def test_what_is_no_tensor_is_named():
    with pytest.raises(TypeError, match="values: expected a tensor, got list"):
        CSRTensor(A.pattern, [1.0] * A.nnz)  # type: ignore
    with pytest.raises(TypeError, match="values: expected a tensor, got ndarray"):
        CSRTensor.from_coo(torch.tensor([0]), torch.tensor([0]), ROW[:1], (1, 1))  # type: ignore
    with pytest.raises(TypeError, match="x: expected a tensor, got list"):
        A.matvec([1.0, 2.0, 3.0])  # type: ignore
    with pytest.raises(TypeError, match="x: expected a dense tensor"):
        CSRTensor.from_dense(torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="shape: expected"):
        Pattern(torch.tensor([0, 1]), torch.tensor([0]), 2)  # type: ignore


def test_a_dense_matrix_without_rows():
    assert CSRTensor.from_dense(torch.zeros(0, 3)).shape == (0, 3)
    assert CSRTensor.from_dense(torch.zeros(2, 0, 3)).shape == (2, 0, 3)
