"""Values in another order: against indexing, in every dtype, with every kind of derivative."""

import pytest
import torch

from sparsetorch_kernels import permute

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5), (0, 4), (2, 3, 6), (70_001,)])
def test_it_is_indexing(dtype, index, shape):
    perm = torch.randperm(shape[-1]).to(index)
    values = torch.randn(shape, dtype=dtype)
    assert torch.equal(permute(values, perm), values[..., perm.long()])


def test_views_that_are_not_contiguous_or_are_conjugated():
    perm = torch.randperm(4)
    values = torch.randn(4, 3, dtype=torch.complex64)
    assert torch.equal(permute(values.mT, perm), values.mT[..., perm])
    assert torch.equal(permute(values.mH, perm), values.mH.resolve_conj()[..., perm])
    assert torch.equal(permute(values.mH.imag, perm), values.mH.imag[..., perm])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_derivatives(dtype):
    perm = torch.randperm(6)
    values = torch.randn(2, 6, dtype=dtype, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: permute(v, perm), values, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda v: permute(v, perm) ** 2, values)


def test_transformations():
    perm = torch.randperm(6)
    values, tangent = torch.randn(2, 3, 6)
    pushed = torch.func.jvp(lambda v: permute(v, perm) ** 2, (values,), (tangent,))[1]
    assert torch.equal(pushed, 2 * values[:, perm] * tangent[:, perm])
    call = torch.vmap(lambda v: permute(v, perm), in_dims=0)
    assert torch.equal(call(values), values[:, perm])
    call = torch.vmap(lambda v: permute(v, perm), in_dims=1)  # of vectors along dimension 0
    assert torch.equal(call(values.mT.contiguous()), values[:, perm])
    compiled = torch.compile(lambda v: permute(v, perm), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(values), values[:, perm])
    hessian = torch.func.hessian(lambda v: (permute(v, perm) ** 3).sum())(values[0])
    assert torch.allclose(hessian, torch.diag(6 * values[0]))
