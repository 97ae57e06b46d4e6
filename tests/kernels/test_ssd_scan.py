"""The scan against its definition: results and every gradient, in every dtype and awkward size.

Products of matrices here; the Triton kernels in a process that interprets them
(`test_ssd_triton.py` starts this file again with TRITON_INTERPRET=1). All memory that PyTorch hands
out uninitialized is filled with NaN, so what a kernel forgets to write shows.
"""

import os
from typing import Any

import pytest
import torch
from ssd_cases import NAMES, SIZES, TOLERANCE, documents, draw, error, expected

from sparsetorch_kernels import ssd_scan
from sparsetorch_kernels.ssd import backend, gemm, ops, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
DTYPES = DTYPES if INTERPRETED else [torch.float64, *DTYPES]
# The interpreter takes a second for what the others do in milliseconds: fewer sizes, and one of
# several blocks in each dimension where blocks are short.
FEW = {name: SIZES[name] for name in ("nothing", "one head", "no state")}
SEVERAL = {
    "blocks": (1, 35, 2, 17, 1, 17, 32),
    "segments": (2, 21, 4, 3, 2, 5, 4),  # two chunks in each
}
CASES = FEW | SEVERAL if INTERPRETED else SIZES
SMALL = (1, 13, 2, 3, 1, 2, 8)
DEVICES = ["cpu", *["cuda"] * torch.cuda.is_available()]
needs_no_kernel = pytest.mark.skipif(INTERPRETED, reason="does not differ between implementations")


@pytest.fixture(autouse=True)
def poisoned_memory():
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def implementation(monkeypatch):
    """What is tested: the kernels where they are interpreted, else small pieces of the sequence."""
    if INTERPRETED:
        from sparsetorch_kernels.ssd import triton, triton_backward, triton_states

        short = triton_states.StateTiles(16, 16, 1)
        monkeypatch.setattr(backend, "_wants_kernels", lambda x: True)
        monkeypatch.setattr(triton_backward, "LONGEST_BLOCK", 16)
        monkeypatch.setattr(triton_backward, "LONGEST_PART", dict.fromkeys(DTYPES, 16))
        monkeypatch.setattr(triton_states, "PROGRAMS", 24)
        monkeypatch.setattr(triton_states, "STATE_TILES", dict.fromkeys(DTYPES, short))
        monkeypatch.setattr(triton, "TILES", dict.fromkeys(DTYPES, triton.Tiles(16, 16, 4, 1)))
    monkeypatch.setattr(gemm, "PIECE", 1000)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("size", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_and_gradients_are_those_of_the_definition(size, dtype, packed, device):
    arguments = [t.detach().to(device).requires_grad_() for t in draw(size, dtype)]
    seq_idx = documents(*size[:2]).to(device) if packed else None
    y, final = ssd_scan(*arguments, seq_idx=seq_idx, chunk_size=size[-1])
    grad_y, grad_final = torch.randn_like(y), torch.randn_like(final)
    want_y, want_final, want = expected(arguments, seq_idx, grad_y, grad_final)
    assert (y.dtype, final.dtype) == (dtype, arguments[-1].dtype)
    assert error(y, want_y) < TOLERANCE[dtype]
    # The kernels multiply in bfloat16 where the arguments are, on the CPU in float32.
    kernels = INTERPRETED or device == "cuda"
    assert error(final, want_final) < TOLERANCE[dtype if kernels else final.dtype]
    grads = torch.autograd.grad((y, final), arguments, (grad_y, grad_final))
    for name, argument, got, right in zip(NAMES, arguments, grads, want):
        if right is None:  # nothing depends on it where there is nothing
            assert not got.any(), name
            continue
        assert got.dtype == argument.dtype
        # A's is one number per head, in which terms of either sign cancel.
        assert error(got, right) < 4 * TOLERANCE[dtype], name


@pytest.mark.parametrize("widest", [2, 3])  # of three numbers: too wide for kernels, or not
@pytest.mark.parametrize("what", ["WIDEST_STATE", "WIDEST_HEAD"])
def test_wide_states_and_heads_go_another_way(what, widest, monkeypatch):
    monkeypatch.setattr(backend, what, widest)
    arguments = draw((1, 13, 2, 3, 1, 3, 8), torch.float32)
    inputs = [t.detach() for t in arguments]
    _, _, decayed, states = ops._forward(*inputs, seq_idx=None, chunk_size=8, keep=True)
    kernels = INTERPRETED and widest == 3
    assert (len(decayed) > 0, len(states)) == (not kernels, 1 if kernels else 2)
    assert backend.kept(inputs[0], inputs[3], 8) == (len(decayed) > 0, len(states))
    y, final = ssd_scan(*arguments, chunk_size=8)
    grad_y, grad_final = torch.randn_like(y), torch.randn_like(final)
    _, _, want = expected(arguments, None, grad_y, grad_final)
    got = torch.autograd.grad((y, final), arguments, (grad_y, grad_final))
    for name, a, b in zip(NAMES, got, want):
        assert error(a, b) < TOLERANCE[torch.float32], name


@pytest.mark.parametrize("missing", ["D", "initial_state", "both"])
@pytest.mark.parametrize("result", [0, 1], ids=["y", "final_state"])
def test_optional_arguments_and_single_results(missing, result):
    arguments = draw(SMALL, torch.float32)
    kept = [i for i in range(7) if not (missing in (NAMES[i], "both") and i > 4)]
    given: Any = [t if i in kept else None for i, t in enumerate(arguments)]
    out = ssd_scan(*given, chunk_size=8)[result]
    wide: Any = [None if t is None else t.detach().double().requires_grad_() for t in given]
    right = reference.ssd_scan(*wide)[result]
    grad = torch.randn_like(out)
    known = [i for i in kept if not (result == 1 and NAMES[i] in "CD")]  # they act on y alone
    got = torch.autograd.grad(out, [arguments[i] for i in known], grad)
    want = torch.autograd.grad(right, [wide[i] for i in known], grad.double())
    for i, a, b in zip(known, got, want):
        assert error(a, b) < 4e-6, NAMES[i]


@needs_no_kernel
def test_packed_documents_are_as_if_each_ran_alone():
    arguments = draw((1, 20, 4, 5, 2, 3, 8), torch.float32)
    x, dt, A, B, C, D, state = (t.detach() for t in arguments)
    lengths = [3, 1, 9, 7]
    seq_idx = torch.arange(4).repeat_interleave(torch.tensor(lengths))[None]
    y, final = ssd_scan(x, dt, A, B, C, D, state, seq_idx, 8)
    for i, part in enumerate(torch.arange(20).split(lengths)):
        cut = [t[:, part] for t in (x, dt, B, C)]
        first = state if i == 0 else None
        alone, last = ssd_scan(cut[0], cut[1], A, cut[2], cut[3], D, first, chunk_size=8)
        assert error(y[:, part], alone.double()) < 1e-6
    assert error(final, last.double()) < 1e-6


def test_nothing_leaks_backwards_between_documents():
    x, dt, A, B, C, D, state = draw((1, 20, 2, 5, 1, 3, 8), torch.float32)
    seq_idx = (torch.arange(20) >= 13).long()[None]
    y, _ = ssd_scan(x, dt, A, B, C, D, state, seq_idx, 8)
    grads = torch.autograd.grad(y[:, 13:].sum(), (x, dt, B, C, state))
    for grad in grads[:4]:
        assert not grad[:, :13].any()
        assert grad[:, 13:].any()
    assert not grads[4].any()


@needs_no_kernel
def test_the_final_state_goes_on_where_the_scan_stopped():
    x, dt, A, B, C, D, state = draw((2, 21, 4, 5, 2, 3, 8), torch.float32)
    y, final = ssd_scan(x, dt, A, B, C, D, state, chunk_size=8)
    first, middle = ssd_scan(x[:, :9], dt[:, :9], A, B[:, :9], C[:, :9], D, state, chunk_size=8)
    second, last = ssd_scan(x[:, 9:], dt[:, 9:], A, B[:, 9:], C[:, 9:], D, middle, chunk_size=8)
    assert error(torch.cat([first, second], 1), y.double()) < 1e-6
    assert error(last, final.double()) < 1e-6
    grad = torch.randn_like(y)
    whole = torch.autograd.grad(y, (x, dt, state), grad)
    halves = torch.autograd.grad(torch.cat([first, second], 1), (x, dt, state), grad)
    for a, b in zip(halves, whole):
        assert error(a, b.double()) < 4e-6


def test_fast_decay_neither_overflows_nor_drowns_its_gradient():
    """What is left after a step is e^-12 or so, and 0 in float32 after a few of them."""
    size = (1, 40, 1, 4, 1, 4, 16)
    arguments = draw(size, torch.float32)
    with torch.no_grad():
        arguments[1].fill_(1.0)
        arguments[2].fill_(-12.0)
    y, final = ssd_scan(*arguments, chunk_size=16)
    grad_y, grad_final = torch.randn_like(y), torch.zeros_like(final)
    want = expected(arguments, None, grad_y, grad_final)[2]
    got = torch.autograd.grad((y, final), arguments, (grad_y, grad_final))
    for name, a, b in zip(NAMES, got, want):
        assert error(a, b) < 4e-6, name


def test_strided_and_broadcast_arguments():
    """x, B and C are parts of one tensor, as behind a projection; gradients come transposed."""
    _, dt, A, _, _, D, state = (t.detach() for t in draw((2, 9, 4, 5, 2, 3, 8), torch.float32))
    whole = torch.randn(2, 9, 40).requires_grad_()

    def parts(t):
        x, B, C = t[..., 3:35].split([20, 6, 6], dim=-1)
        return x.unflatten(-1, (4, 5)), B.unflatten(-1, (2, 3)), C.unflatten(-1, (2, 3))

    grad_y = torch.randn(2, 9, 5, 4).transpose(2, 3)
    grad_final = torch.randn(2, 4, 3, 5).transpose(2, 3)
    found = []
    for scan, dtype in ((ssd_scan, torch.float32), (reference.ssd_scan, torch.float64)):
        x, B, C = parts(whole.to(dtype))
        others = [t.to(dtype).requires_grad_() for t in (dt[:1].expand(2, -1, -1), A, D, state)]
        steps, A_H, D_H, first = others
        results = scan(x, steps, A_H, B, C, D_H, first)
        grads = [grad_y.to(dtype), grad_final.to(dtype)]
        found.append([*results, *torch.autograd.grad(results, (whole, *others), grads)])
    for got, want in zip(*found):
        assert error(got, want.double()) < 4e-6


def test_a_large_step_leaves_the_steps_after_it_exact():
    """Sums of all steps would be large ever after it, and their differences coarse."""
    arguments = draw((1, 40, 1, 4, 1, 4, 40), torch.float32)
    with torch.no_grad():
        arguments[1].fill_(2e-3)
        arguments[1][:, 3] = 1000.0
        arguments[2].fill_(-16.0)
        arguments[0][:, 3] *= 1e-6  # else it is all that is seen
    y, final = ssd_scan(*arguments, chunk_size=40)
    grad_y, grad_final = torch.randn_like(y), torch.randn_like(final)
    want_y, want_final, want = expected(arguments, None, grad_y, grad_final)
    assert error(y, want_y) < 4e-6
    assert error(final, want_final) < 4e-6
    got = torch.autograd.grad((y, final), arguments, (grad_y, grad_final))
    for name, a, b in zip(NAMES, got, want):
        if name != "A":  # which has a thousand times the rounding of what goes past the large step
            assert error(a, b) < 2e-5, name


@needs_no_kernel
def test_the_error_in_float32_is_about_that_of_the_definition():
    arguments: Any = draw((2, 512, 4, 16, 2, 32, 128), torch.float32)
    want = reference.ssd_scan(*(t.double() for t in arguments))[0]
    ours = error(ssd_scan(*arguments)[0], want)
    assert ours < 2 * error(reference.ssd_scan(*arguments)[0], want)


@needs_no_kernel
def test_the_backward_keeps_nothing_quadratic_in_the_chunk():
    kept = []

    def pack(t):
        kept.append(t)
        return t

    x, dt, A, B, C, D, _ = draw((1, 512, 2, 4, 1, 4, 64), torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ssd_scan(x, dt, A, B, C, D)
    own = {t.data_ptr() for t in (x, dt, A, B, C, D)}
    new = sum(t.numel() for t in kept if t.data_ptr() not in own)
    assert new == x.numel() + 512 // 64 * 2 * 4 * 4  # one of the size of x, and a state per chunk
