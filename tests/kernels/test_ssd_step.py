"""The scan one position at a time."""

import pytest
import torch
from ssd_cases import NAMES, SIZES, TOLERANCE, draw, error, expected

from sparsetorch_kernels import ssd_scan, ssd_step


@pytest.mark.parametrize("size", [SIZES["a rest"], SIZES["one head"]], ids=["groups", "one head"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_steps_and_their_gradients_are_those_of_the_definition(size, dtype):
    torch.manual_seed(0)
    arguments = draw(size, dtype)
    x, dt, A, B, C, D, state = arguments
    outputs = []
    for t in range(size[1]):
        y, state = ssd_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], D, state)
        assert (y.dtype, state.dtype) == (dtype, arguments[-1].dtype)
        outputs.append(y)
    y = torch.stack(outputs, 1)
    grad_y, grad_state = torch.randn_like(y), torch.randn_like(state)
    want_y, want_state, want = expected(arguments, None, grad_y, grad_state)
    assert error(y, want_y) < TOLERANCE[dtype]
    assert error(state, want_state) < TOLERANCE[state.dtype]
    grads = torch.autograd.grad((y, state), arguments, (grad_y, grad_state))
    for name, got, right in zip(NAMES, grads, want):
        # Gradients of what all steps share are rounded at each of them.
        assert error(got, right) < 16 * TOLERANCE[dtype], name


def test_a_step_goes_on_where_a_scan_stopped():
    x, dt, A, B, C, D, state = (t.detach() for t in draw(SIZES["a rest"], torch.float32))
    y, final = ssd_scan(x, dt, A, B, C, D, state, chunk_size=8)
    _, before = ssd_scan(x[:, :-1], dt[:, :-1], A, B[:, :-1], C[:, :-1], D, state, chunk_size=8)
    kept = before.clone()
    last, after = ssd_step(x[:, -1], dt[:, -1], A, B[:, -1], C[:, -1], D, before)
    assert error(last, y[:, -1].double()) < 1e-6
    assert error(after, final.double()) < 1e-6
    assert before.equal(kept)


def test_a_step_without_a_skip():
    x, dt, A, B, C, D, state = draw(SIZES["a rest"], torch.float64)
    x, dt, B, C, zero = x[:, 0], dt[:, 0], B[:, 0], C[:, 0], torch.zeros_like(D)
    for a, b in zip(ssd_step(x, dt, A, B, C, None, state), ssd_step(x, dt, A, B, C, zero, state)):
        torch.testing.assert_close(a, b)


def test_steps_compile():
    torch.compiler.reset()
    x, dt, A, B, C, D, state = (t.detach() for t in draw(SIZES["a rest"], torch.float32))
    inputs = x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], D, state
    compiled = torch.compile(ssd_step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), ssd_step(*inputs))
