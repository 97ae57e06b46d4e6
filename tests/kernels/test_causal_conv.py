"""The convolution before the scan against its formula: results, gradients, documents, steps.

In pieces in PyTorch here, by Triton kernels in a process that interprets them (`test_ssd_triton.py`
starts this file again with TRITON_INTERPRET=1).
"""

import os

import pytest
import torch
from ssd_cases import TOLERANCE, documents, error

from sparsetorch_kernels import causal_conv, causal_conv_step
from sparsetorch_kernels.ssd import conv, reference

NAMES = ("x", "weight", "bias", "initial")
# batch, length, channels, taps
SIZES = [(2, 13, 3, 4), (1, 1, 2, 4), (2, 0, 3, 4), (2, 7, 5, 1), (0, 4, 3, 2), (1, 2, 1, 4)]


DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # fills what is uninitialized with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def implementation(monkeypatch):
    monkeypatch.setattr(conv, "PIECE", 20)
    if INTERPRETED:
        from sparsetorch_kernels.ssd import conv_triton

        monkeypatch.setattr(conv, "_kernels", lambda x: conv_triton)
        monkeypatch.setattr(conv_triton, "ROWS", 8)
        monkeypatch.setattr(conv_triton, "COLUMNS", 4)


def draw(size, dtype) -> list[torch.Tensor]:
    batch, length, channels, taps = size
    shapes = (batch, length, channels), (channels, taps), (channels,), (batch, taps - 1, channels)
    return [torch.randn(s, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_results_and_gradients_are_those_of_the_formula(size, dtype, activation, packed, device):
    arguments = [t.detach().to(device).requires_grad_() for t in draw(size, dtype)]
    seq_idx = documents(*size[:2]).to(device) if packed else None
    y, _ = causal_conv(*arguments, seq_idx=seq_idx, activation=activation)
    grad = torch.randn_like(y)
    wide = [t.detach().double().requires_grad_() for t in arguments]
    want = reference.causal_conv(*wide, seq_idx_BL=seq_idx, silu=activation == "silu")
    assert y.dtype == dtype
    assert error(y, want) < TOLERANCE[dtype]
    got = torch.autograd.grad(y, arguments, grad)
    for name, a, b in zip(NAMES, got, torch.autograd.grad(want, wide, grad.double())):
        assert error(a, b) < 2 * TOLERANCE[dtype], name


def test_the_formula_is_that_of_conv1d():
    x, weight, bias, initial = draw((2, 13, 3, 4), torch.float64)
    padded = torch.cat([initial, x], 1).mT
    want = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=3).mT
    torch.testing.assert_close(reference.causal_conv(x, weight, bias, initial, silu=False), want)


@pytest.mark.parametrize("lengths", [[3, 1, 9], [1, 1, 11], [11, 1, 1]], ids=str)
def test_documents_are_as_if_each_ran_alone(lengths):
    x, weight, bias, initial = (t.detach() for t in draw((1, 13, 3, 4), torch.float64))
    seq_idx = torch.arange(3).repeat_interleave(torch.tensor(lengths))[None]
    y, final = causal_conv(x, weight, bias, initial, seq_idx)
    for i, part in enumerate(torch.arange(13).split(lengths)):
        alone, last = causal_conv(x[:, part], weight, bias, initial if i == 0 else None)
        torch.testing.assert_close(y[:, part], alone)
    torch.testing.assert_close(final, last)


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_steps_go_on_where_the_convolution_stopped(taps):
    x, weight, bias, initial = draw((2, 6, 3, taps), torch.float64)
    y, final = causal_conv(x, weight, bias, initial)
    start, state = causal_conv(x[:, :2], weight, bias, initial)
    outputs = [start]
    for t in range(2, 6):
        out, state = causal_conv_step(x[:, t], weight, bias, state)
        outputs.append(out[:, None])
    torch.testing.assert_close(torch.cat(outputs, 1), y)
    torch.testing.assert_close(state, final)
    assert state.data_ptr() != x.data_ptr()


@pytest.mark.skipif(INTERPRETED, reason="autocast is PyTorch's")
def test_autocast_rounds_no_sum():
    x, weight, bias, initial = (t.detach() for t in draw((2, 5, 3, 4), torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        got = causal_conv_step(x[:, 0], weight, bias, initial)[0]
    assert torch.equal(got, causal_conv_step(x[:, 0], weight, bias, initial)[0])


def test_missing_arguments_are_zero():
    x, weight, bias, initial = draw((2, 6, 3, 4), torch.float64)
    y, final = causal_conv(x, weight)
    zeros = causal_conv(x, weight, torch.zeros_like(bias), torch.zeros_like(initial))
    torch.testing.assert_close((y, final), zeros)
    torch.autograd.grad(y.sum(), (x, weight))


@pytest.mark.parametrize("activation", ["silu", None])
def test_first_and_second_derivatives_are_those_of_differences(activation):
    arguments, seq_idx = draw((2, 7, 2, 3), torch.float64), documents(2, 7)

    def call(*tensors):
        return causal_conv(*tensors, seq_idx=seq_idx, activation=activation)

    assert torch.autograd.gradcheck(call, arguments)
    assert torch.autograd.gradgradcheck(call, arguments)


def test_a_compiled_convolution_equals_an_eager_one():
    torch.compiler.reset()
    arguments = draw((2, 7, 2, 3), torch.float64)

    def loss(*tensors):
        y, final = causal_conv(*tensors)
        return y.sin().sum() + final.cos().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got, want = compiled(*arguments), loss(*arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )
