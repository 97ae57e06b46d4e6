"""Norms against the definition: values, first and second derivatives, lower precision."""

from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import silu

from nemotron_blocks import norm
from nemotron_blocks.norm import GatedRMSNorm, RMSNorm


def definition(x, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 6), (5, 6), (1, 6), (0, 6)])
def test_norms_are_their_definitions(monkeypatch, by_hand, shape):
    monkeypatch.setattr(norm, "by_hand", lambda x: by_hand)
    y, z, w = drawn(*shape), drawn(*shape, seed=1), drawn(6, seed=2)
    plain, gated = RMSNorm(6).double(), GatedRMSNorm(6, 2).double()
    for module in (plain, gated):
        module.weight.data.copy_(w)
    torch.testing.assert_close(plain(y), definition(y, 1e-5) * w)
    expected = definition((y * silu(z)).unflatten(-1, (2, 3)), 1e-5).flatten(-2) * w
    torch.testing.assert_close(gated(y, z), expected)


@pytest.mark.parametrize("groups", [0, 1, 2])
def test_every_derivative(groups):
    y, z, w = (drawn(2, 6, seed=k).requires_grad_() for k in range(3))
    w = drawn(6, seed=3).requires_grad_()
    module = GatedRMSNorm(6, groups) if groups else RMSNorm(6)

    def call(weight, *inputs):
        return torch.func.functional_call(module.double(), {"weight": weight}, inputs)

    inputs = (w, y, z) if groups else (w, y)
    assert gradcheck(call, inputs)
    assert gradgradcheck(call, inputs)


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
