"""A CSRTensor where PyTorch expects a tensor: in modules, in `torch.*`, and by its short names."""

import copy
import io
import re
from typing import Any

import pytest
import torch
from random_matrices import dense, random_csr
from torch import nn

from sparsetorch import CSRTensor, Pattern, TypedCSR

A: Any = random_csr(4, 3, 0.6)
X: Any = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Smoother(nn.Module):
    """A module that keeps a matrix."""

    def __init__(self, matrix: CSRTensor):
        super().__init__()
        self.matrix: Any
        self.register_buffer("matrix", matrix)  # type: ignore
        self.weight = nn.Parameter(torch.ones(3, dtype=matrix.dtype))

    def forward(self, x: Any) -> Any:
        return self.matrix @ (self.weight * x)


def buffered(seed: int = 0, dtype: torch.dtype = torch.float64) -> Smoother:
    matrix = random_csr(4, 3, 0.6, seed=0, dtype=dtype).detach()
    return Smoother(matrix * float(seed + 1))


# Buffers


@pytest.mark.parametrize(
    ("convert", "dtype"),
    [
        (lambda m: m.float(), torch.float32),
        (lambda m: m.half(), torch.float16),
        (lambda m: m.bfloat16(), torch.bfloat16),
        (lambda m: m.to(torch.float32), torch.float32),
        (lambda m: m.float().double(), torch.float64),
        (lambda m: m.to("cpu"), torch.float64),
        (lambda m: m.cpu(), torch.float64),
    ],
)
def test_a_module_converts_its_matrix(convert, dtype):
    module = buffered()
    pattern, before = module.matrix.pattern, module.matrix.values
    module = convert(module)
    assert module.matrix.dtype == module.weight.dtype == dtype
    assert module.matrix.pattern is pattern
    torch.testing.assert_close(module.matrix.values, before.to(dtype))
    assert module(X[:, 0].to(dtype)).dtype == dtype


def test_a_real_dtype_leaves_no_complex_matrix_without_its_imaginary_part():
    module = buffered(dtype=torch.complex128)
    assert module.double().matrix.dtype == torch.complex128  # as any complex buffer
    with pytest.raises(TypeError, match="would lose the imaginary part"):
        module.to(torch.float64)


def test_a_state_is_saved_and_loaded_into_the_same_entries():
    module, other = buffered(), buffered(seed=1).float()
    before = other.matrix.values
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    state = torch.load(file)  # on a pattern of its own
    assert isinstance(state["matrix"], CSRTensor)
    other.load_state_dict(state)
    assert other.matrix.values is before  # in place, as other buffers
    torch.testing.assert_close(before, module.matrix.values.float())
    x = X[:, 0]
    torch.testing.assert_close(copy.deepcopy(module)(x), module(x))


def test_a_state_with_other_entries_is_refused_or_assigned():
    module = buffered()
    before = module.matrix.values.clone()
    state = module.state_dict() | {"matrix": random_csr(4, 3, 0.5, seed=7).detach()}
    with pytest.raises(RuntimeError, match=r"matrix.*expected the entries of .*assign=True"):
        module.load_state_dict(state)
    assert torch.equal(module.matrix.values, before)
    module.load_state_dict(state, assign=True)
    assert module.matrix is state["matrix"]


def test_a_module_without_memory_gets_it():
    module = buffered()
    meta = copy.deepcopy(module).to("meta")
    assert meta.matrix.is_meta
    assert not module.matrix.is_meta
    meta.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(meta.matrix.values, module.matrix.values)
    emptied = module.to_empty(device="cpu")
    assert emptied.matrix.shape == (4, 3)
    assert emptied.share_memory().matrix.values.is_shared()


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (A.values, TypeError, "copy_: expected a CSRTensor, got Tensor; A.values.copy_(values)"),
        (A.to(torch.complex128), TypeError, "would lose the imaginary part of torch.complex128"),
        (A.T, ValueError, "copy_: expected the entries of Pattern(shape=(4, 3)"),
        (
            A.with_values(A.values.expand(2, -1)),
            ValueError,
            "copy_: expected a batch that fits shape (4, 3), got (2, 4, 3)",
        ),
    ],
)
def test_what_is_not_copied(source, error, message):
    with pytest.raises(error, match=re.escape(message)):
        A.detach().clone().copy_(source)


def test_a_copy_shares_no_values():
    copied = A.detach().clone()
    crow, col = A.pattern.crow.long(), A.pattern.col.long()
    wide = CSRTensor(Pattern(crow, col, (4, 3), torch.int64), 2 * A.detach().values)
    assert copied.copy_(wide) is copied
    assert torch.equal(copied.values, 2 * A.values)
    assert copied.pattern is A.pattern
    (gradient,) = torch.autograd.grad(A.clone().values.sum(), A.values)
    assert torch.equal(gradient, torch.ones_like(A.values))


# Short names


def test_what_a_tensor_says_of_itself():
    for M in (A, A.detach().to(torch.complex64), A.with_values(A.values.expand(2, -1))):
        D = dense(M)
        assert (M.is_floating_point(), M.is_complex()) == (D.is_floating_point(), D.is_complex())
        assert (torch.is_floating_point(M), torch.is_complex(M)) == (not M.is_complex(),
                                                                     M.is_complex())  # fmt: skip
        assert (M.dim(), M.size(), M.size(-1), M.is_cuda) == (D.dim(), D.size(), D.size(-1), False)


def test_short_names_of_to():
    typed = TypedCSR({("a", "likes", "b"): A.detach()})
    for M in (A, typed):
        for name, dtype in (("half", torch.float16), ("bfloat16", torch.bfloat16),
                            ("float", torch.float32), ("double", torch.float64)):  # fmt: skip
            converted = getattr(M.cpu(), name)()
            assert type(converted) is type(M)
            converted = converted if M is A else converted["a", "likes", "b"]
            assert converted.dtype == dtype
            assert converted.pattern is A.pattern


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_and_back():
    on_cuda = buffered().cuda().matrix
    assert on_cuda.is_cuda
    matrix = buffered().matrix
    assert torch.equal(on_cuda.cpu().values, matrix.values)
    assert matrix.cuda().pattern is matrix.cuda(0).pattern


@pytest.mark.parametrize("reduction", ["sum", "mean", "amax", "amin", "norm"])
@pytest.mark.parametrize("dim", [None, -1, -2, 0, (-2, -1)])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_reduced_dimensions_are_kept(reduction, dim, batch):
    M = random_csr(4, 3, 0.6, batch=batch)
    if batch and dim == 0:
        dim = 1
    kept = getattr(M, reduction)(dim=dim, keepdim=True)
    every = tuple(range(M.ndim)) if dim is None else dim
    assert kept.shape == torch.sum(dense(M), every, keepdim=True).shape
    assert torch.equal(kept.flatten(), getattr(M, reduction)(dim=dim).flatten())


# Functions of torch


def test_functions_of_torch():
    batch: Any = random_csr(4, 3, 0.6, batch=(2,))
    D = dense(A)
    for got, expected in (
        (torch.sum(A, 1, keepdim=True), D.sum(1, keepdim=True)),
        (A.abs(), D.abs()),
        (abs(A), D.abs()),
        (torch.clone(A), D),
        (torch.zeros_like(A), torch.zeros_like(D)),
        (torch.zeros_like(A, dtype=torch.float32), torch.zeros_like(D, dtype=torch.float32)),
        (torch.diagonal(A), D.diagonal()),
        (torch.diagonal(A, 1), D.diagonal(1)),
        (torch.diagonal(batch, -2, 1, 2), dense(batch).diagonal(-2, 1, 2)),
        (torch.diagonal(batch, dim1=-2, dim2=-1), dense(batch).diagonal(dim1=-2, dim2=-1)),
        (A.mm(X), D @ X),
        (X.T.mm(A.T), X.T @ D.T),
        (A.mm(A.T), D @ D.T),
        (torch.sparse.mm(A, X), D @ X),
        (torch.sparse.mm(A, A.T), D @ D.T),
    ):
        M: Any = got
        torch.testing.assert_close(dense(M) if isinstance(M, CSRTensor) else M, expected)
    assert torch.zeros_like(A, requires_grad=True).pattern is A.pattern  # type: ignore


@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin"])
def test_products_that_reduce_otherwise(reduce):
    expected = torch.sparse.mm(A.detach().to_torch(), X, reduce)
    torch.testing.assert_close(torch.sparse.mm(A, X, reduce), expected)
    with pytest.raises(ValueError, match="reduce: expected 'sum', 'mean'"):
        torch.sparse.mm(A, X, "median")


@pytest.mark.parametrize("offset", [-9, -3, -1, 1, 2, 9])
def test_other_diagonals_and_their_gradients(offset):
    got, expected = A.diagonal(offset), A.to_dense().diagonal(offset)
    if abs(offset) < 9:
        weights = torch.arange(1.0, 1 + got.numel(), dtype=got.dtype)
        torch.testing.assert_close(got, expected)
        gradients = [torch.autograd.grad((x * weights).sum(), A.values)[0] for x in (got, expected)]
        torch.testing.assert_close(*gradients)
    else:
        assert got.shape == (0,)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (lambda: torch.abs(A, out=X), r"abs: with a CSRTensor it takes the arguments \(A\), got"),
        (
            lambda: torch.sum(A, 1, dtype=torch.float32),
            r"sum: .*\(A, dim=None, keepdim=False\), got 2 positional ones and dtype; apply it to "
            r"A\.values .* or to A\.to_dense\(\)",
        ),
        (lambda: torch.mm(A, X, out=X), r"mm: with a CSRTensor it takes the arguments \(a, b\)"),
        (lambda: torch.zeros_like(A, layout=torch.strided), r"zeros_like: with a CSRTensor"),
        (lambda: torch.sparse.softmax(A, 1), r"sparse_softmax is not defined for a CSRTensor"),
    ],
)
def test_arguments_that_are_not_taken_are_named(operation, message):
    with pytest.raises(TypeError, match=message):
        operation()


def test_errors_from_within_stay_as_they_are():
    with pytest.raises(TypeError, match="nothing is cast silently"):
        torch.mm(A, X.float())
    with pytest.raises(ValueError, match=r"diagonal: .*write A\.diagonal\(offset\)"):
        torch.diagonal(A, 0, 1, 0)
    with pytest.raises(ValueError, match="mm: expected operands of 2 and 2 dimensions"):
        A.mm(X[:, 0])
