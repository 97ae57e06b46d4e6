"""The modules of norms against the definition; their functions: tests/kernels/test_norms.py."""

from functools import partial

import pytest
import torch
from torch.nn.functional import silu

from nemotron_blocks.norm import GatedRMSNorm, RMSNorm


def definition(x, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 4, 6), (5, 6), (1, 6), (0, 6)])
def test_norms_are_their_definitions(shape):
    y, z, w = drawn(*shape), drawn(*shape, seed=1), drawn(6, seed=2)
    plain, gated = RMSNorm(6).double(), GatedRMSNorm(6, 2).double()
    for module in (plain, gated):
        module.weight.data.copy_(w)
    torch.testing.assert_close(plain(y), definition(y, 1e-5) * w)
    expected = definition((y * silu(z)).unflatten(-1, (2, 3)), 1e-5).flatten(-2) * w
    torch.testing.assert_close(gated(y, z), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_rounded_once(dtype):
    y, z = (drawn(7, 64, dtype=dtype, seed=k).requires_grad_() for k in range(2))
    for make, inputs in ((RMSNorm, (y,)), (partial(GatedRMSNorm, groups=4), (y, z))):
        exact = [t.detach().double().requires_grad_() for t in inputs]
        found, expected = make(64)(*inputs), make(64).double()(*exact)
        assert found.dtype == dtype
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(found.double(), expected, rtol=eps, atol=1e-7)
        for a, b in zip(
            torch.autograd.grad(found.float().sin().sum(), inputs),
            torch.autograd.grad(expected.sin().sum(), exact),
        ):
            assert a.dtype == dtype
            assert (a.double() - b).norm() < 2 * eps * b.norm()
