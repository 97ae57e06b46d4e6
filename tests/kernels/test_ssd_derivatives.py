"""Derivatives of the scan beyond one backward: twice, compiled, under torch.func; and on meta."""

from typing import Any

import pytest
import torch
from ssd_cases import documents, draw

from sparsetorch_kernels import ssd_scan, ssd_step

SIZE = (2, 9, 4, 3, 2, 2, 4)
SEQ = documents(2, 9)


def loss(*tensors: Any) -> torch.Tensor:
    y, final = ssd_scan(*tensors, seq_idx=SEQ, chunk_size=4)
    return y.sin().sum() + final.cos().sum()


def test_first_and_second_derivatives_are_those_of_differences():
    arguments, seq_idx = draw((1, 5, 2, 2, 1, 2, 2), torch.float64), torch.tensor([[0, 0, 0, 4, 4]])

    def call(*tensors: Any):
        return ssd_scan(*tensors, seq_idx=seq_idx, chunk_size=2)

    assert torch.autograd.gradcheck(call, arguments)
    assert torch.autograd.gradgradcheck(call, arguments)


def test_second_derivatives_where_one_argument_depends_on_another():
    x, dt, A, B, C, _, _ = draw((1, 5, 2, 2, 1, 2, 2), torch.float64)

    def call(x, dt):
        return ssd_scan(x, dt * (1 + x.square().sum(-1)), A, B, C)[0]

    assert torch.autograd.gradgradcheck(call, (x, dt))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_compiled_scan_equals_an_eager_one(dynamic, dtype):
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    arguments = draw(SIZE, dtype)
    got, want = compiled(*arguments), loss(*arguments)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, arguments), torch.autograd.grad(want, arguments)
    )


def test_a_compiled_scan_without_gradients():
    torch.compiler.reset()
    arguments = [t.detach() for t in draw(SIZE, torch.float32)]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*arguments), loss(*arguments))


@pytest.mark.parametrize("full", [True, False], ids=["all arguments", "the needed ones"])
@pytest.mark.parametrize("keep", [True, False])
def test_the_registration(full, keep):
    *arguments, state = draw(SIZE, torch.float32)
    inputs: Any = (*arguments, state, SEQ, 4) if full else (*arguments[:5], None, None, None, 4)
    if not keep:
        inputs = tuple(t.detach() if isinstance(t, torch.Tensor) else t for t in inputs)
    torch.library.opcheck(torch.ops.sparsetorch.ssd_scan.default, (*inputs, keep))


def test_gradients_under_torch_func():
    arguments = draw(SIZE, torch.float64)
    got = torch.func.grad(loss, argnums=tuple(range(7)))(*(t.detach() for t in arguments))
    want = torch.autograd.grad(loss(*arguments), arguments)
    torch.testing.assert_close(got, want)


def test_forward_mode_is_refused():
    arguments: Any = [t.detach() for t in draw(SIZE, torch.float64)]
    with pytest.raises(RuntimeError, match=r"jvp|forward"):
        torch.func.jvp(lambda x: ssd_scan(x, *arguments[1:])[0], arguments[:1], arguments[:1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shapes_and_dtypes_without_memory(dtype):
    arguments: Any = [t.to("meta") for t in draw((2, 300, 4, 3, 2, 2, 4), dtype)]
    y, final = ssd_scan(*arguments)
    assert (y.shape, y.dtype) == ((2, 300, 4, 3), dtype)
    assert (final.shape, final.dtype) == ((2, 4, 3, 2), torch.float32)
    x, dt, A, B, C, D, state = arguments
    y, state = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D, state)
    assert (y.shape, y.dtype, state.shape) == ((2, 4, 3), dtype, (2, 4, 3, 2))


def test_autocast_changes_nothing():
    arguments: Any = draw(SIZE, torch.float32)
    step = [t if t.dim() == 1 else t[:, 0] for t in arguments[:6]] + [arguments[6]]
    want = torch.autograd.grad(loss(*arguments), arguments), ssd_step(*step)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = torch.autograd.grad(loss(*arguments), arguments), ssd_step(*step)
    torch.testing.assert_close(got, want)
