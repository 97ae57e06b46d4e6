"""Norms against their formula: results, every gradient, rounding, what is refused.

PyTorch's operators here, Triton kernels in a process that interprets them (`test_ssd_triton.py`
starts this file again with TRITON_INTERPRET=1).
"""

import os
from typing import Any

import pytest
import torch
from ssd_cases import TOLERANCE, error
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch_kernels import gated_rms_norm, rms_norm
from sparsetorch_kernels.norm import ops, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
# leading dimensions, channels, groups; 0 is ungated
SIZES = [((3, 4), 6, 0), ((5,), 6, 2), ((1,), 5, 1), ((0,), 6, 2), ((2, 7), 96, 3), ((13,), 33, 0)]
EPS = 1e-3


@pytest.fixture(autouse=True)
def implementation(monkeypatch):
    torch.manual_seed(0)
    if INTERPRETED:
        from sparsetorch_kernels.norm import triton

        monkeypatch.setattr(ops, "_kernels", lambda x, groups: triton)
        monkeypatch.setattr(triton, "PROGRAMS", 3)  # several rows to each
    torch.use_deterministic_algorithms(True)  # fills what is uninitialized with NaN
    yield
    torch.use_deterministic_algorithms(False)


def drawn(size, dtype, device="cpu") -> tuple[Any, ...]:
    """x, z (None where nothing is gated) and a weight."""
    rows, width, groups = size
    shapes = (*rows, width), (*rows, width), (width,)
    x, z, weight = (torch.randn(shape, dtype=torch.float64).to(device, dtype) for shape in shapes)
    for t in (x, z, weight):
        t.requires_grad_()
    return x, z if groups else None, weight


def call(inputs, groups):
    x, z, weight = inputs
    if z is None:
        return rms_norm(x, weight, EPS)
    return gated_rms_norm(x, z, weight, groups, EPS)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_results_and_gradients_are_those_of_the_formula(size, dtype, device):
    inputs = drawn(size, dtype, device)
    groups = max(size[2], 1)
    y = call(inputs, groups)
    change = torch.randn_like(y)
    wide: list[Any] = [None if t is None else t.detach().double().requires_grad_() for t in inputs]
    want = reference.norm(wide[0], wide[1], wide[2], groups, EPS)
    assert y.dtype == dtype
    assert y.shape == inputs[0].shape
    assert error(y, want) < TOLERANCE[dtype]
    with torch.no_grad():
        assert torch.equal(call(inputs, groups), y)
    present = [t for t in inputs if t is not None]
    got = torch.autograd.grad(y, present, change)
    expected = torch.autograd.grad(want, [t for t in wide if t is not None], change.double())
    for t, a, b in zip(present, got, expected):
        assert a.dtype == dtype
        assert a.shape == t.shape
        assert error(a, b) < 2 * TOLERANCE[dtype]


@pytest.mark.parametrize("device", DEVICES)
def test_parts_of_wider_rows_and_turned_ones_are_read_as_they_lie(device):
    both = torch.randn(4, 3, 20, dtype=torch.float64, device=device)
    weight = torch.randn(6, dtype=torch.float64, device=device)
    parts = both[..., 2:8], both[..., 9:15]
    turned = [part.transpose(0, 1) for part in parts]
    backwards = [torch.randn(6, 5, dtype=torch.float64, device=device).T for _ in range(2)]
    for y, z in (parts, turned, backwards):
        leaves: list[Any] = [t.detach().requires_grad_() for t in (y, z)]
        found = gated_rms_norm(leaves[0], leaves[1], weight, 2, EPS)
        want = reference.norm(leaves[0], leaves[1], weight, 2, EPS)
        torch.testing.assert_close(found, want)
        change = torch.randn_like(want)
        got = torch.autograd.grad(found, leaves, change)
        torch.testing.assert_close(got, torch.autograd.grad(want, leaves, change))


def test_the_formula_is_the_definition():
    y, z, weight = (t.detach() for t in drawn(((3, 4), 6, 2), torch.float64))
    gated = (y * torch.nn.functional.silu(z)).unflatten(-1, (2, 3))
    want = (gated / (gated.square().mean(-1, keepdim=True) + EPS).sqrt()).flatten(-2) * weight
    torch.testing.assert_close(reference.norm(y, z, weight, 2, EPS), want)


@pytest.mark.skipif(INTERPRETED, reason="second derivatives are PyTorch's anywhere")
@pytest.mark.parametrize("size", [((2,), 6, 0), ((2,), 6, 1), ((2,), 6, 2)], ids=str)
def test_derivatives_of_any_order(size):
    inputs = [t for t in drawn(size, torch.float64) if t is not None]
    groups = max(size[2], 1)

    def of_those(*given):
        return call((given[0], given[1] if len(given) == 3 else None, given[-1]), groups)

    assert gradcheck(of_those, inputs)
    assert gradgradcheck(of_those, inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_keeps_its_arguments_alone(dtype):
    x, z, weight = drawn(((5,), 64, 4), dtype)
    sizes: list[torch.Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t) or t, lambda t: t)
    with hooks:
        gated_rms_norm(x, z, weight.float(), 4)
    assert [t.dtype for t in sizes] == [dtype, dtype, torch.float32]


def test_what_does_not_fit_is_named():
    x, z, weight = drawn(((3,), 6, 2), torch.float32)
    for name, arguments in {
        "y: expected a tensor of real": (x.int(), z, weight, 2),
        "z: expected a tensor of torch.float32": (x, z.double(), weight, 2),
        "weight: expected a tensor of real": (x, z, [1.0] * 6, 2),
    }.items():
        with pytest.raises(TypeError, match=name):
            gated_rms_norm(*arguments)
    for name, arguments in {
        r"z: expected \(3, 6\) on cpu as y, got \(2, 6\)": (x, z[:2], weight, 2),
        r"weight: expected a number for each of the last dimension": (x, z, weight[:5], 2),
        "groups: expected a divisor of 6 channels, got 4": (x, z, weight, 4),
    }.items():
        with pytest.raises(ValueError, match=name):
            gated_rms_norm(*arguments)
    with pytest.raises(TypeError, match="x: expected a tensor of real"):
        rms_norm(x.int(), weight)
    with pytest.raises(ValueError, match=r"weight: .* of \(\)"):
        rms_norm(torch.tensor(1.0), weight)


@pytest.mark.skipif(INTERPRETED, reason="compiled code does not call the kernels")
def test_it_compiles():
    x, z, weight = drawn(((3,), 6, 2), torch.float32)
    compiled = torch.compile(gated_rms_norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, z, weight, 2), gated_rms_norm(x, z, weight, 2))


@pytest.mark.skipif(INTERPRETED, reason="autocast is PyTorch's")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_rounds_no_mean(dtype):
    inputs = drawn(((8,), 4096, 4), torch.float32)
    inputs = tuple((30 * t).detach().requires_grad_() for t in inputs)
    for given in (inputs, (inputs[0], None, inputs[2])):
        want = call(given, 4)
        present = [t for t in given if t is not None]
        change = torch.randn_like(want)
        expected = torch.autograd.grad(want, present, change)
        with torch.autocast("cpu", dtype):
            got = call(given, 4)
            gradients = torch.autograd.grad(got, present, change)
        assert torch.equal(got, want)
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected))


@pytest.mark.skipif(INTERPRETED, reason="transforms do not reach the kernels")
def test_transforms_and_forward_mode():
    x, z, weight = (t.detach() for t in drawn(((4,), 6, 2), torch.float64))
    each = torch.vmap(gated_rms_norm, in_dims=(0, 0, None, None))(x, z, weight, 2)
    torch.testing.assert_close(each, gated_rms_norm(x, z, weight, 2))
    along = torch.randn_like(x)
    tangent = torch.func.jvp(lambda x: gated_rms_norm(x, z, weight, 2), (x,), (along,))[1]
    _, want = torch.autograd.functional.jvp(lambda x: gated_rms_norm(x, z, weight, 2), x, along)
    torch.testing.assert_close(tangent, want)
