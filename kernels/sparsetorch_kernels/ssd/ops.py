"""The public scan: arguments checked, both registrations of its derivative.

As in `_register.py`, PyTorch needs two: an `autograd.Function` for eager mode and `torch.func`, and
custom ops for `torch.compile`. The backward is written by hand; a second derivative, in eager mode,
goes through the reference, and forward mode is refused by PyTorch.
"""

from typing import Any

import torch
from torch import Tensor

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.autocast import as_given
from sparsetorch_kernels.ssd import backend, checks, reference
from sparsetorch_kernels.ssd.gemm import Arguments

_SHAPES = {"x": "b l h p", "dt": "b l h", "A": "h", "B": "b l g n", "C": "b l g n", "D": "h"}


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    initial_state: Tensor | None = None,
    seq_idx: Tensor | None = None,
    chunk_size: int = 128,
) -> tuple[Tensor, Tensor]:
    """The state-space duality scan of Mamba-2, in time linear in the length.

        h_t = exp(dt_t A) h_(t-1) + dt_t x_t B_t^T,    y_t = h_t C_t + D x_t

    x (b, l, h, p); dt (b, l, h), positive, softplus applied; A (h,), negative; B and C (b, l, g, n)
    with h a multiple of g (head k reads group k // (h / g)); D (h,); initial_state (b, h, p, n),
    zero if None. x, B and C are of one dtype: float16, bfloat16, float32 or float64; sums and
    states are in float32 (float64 for float64), which dt, A, D and initial_state may be too.

    seq_idx (b, l), int32 or int64, numbers the documents that are packed in a row, in their order:
    no state passes from one to the next. initial_state belongs to the document of the first
    position, final_state to that of the last.

    Returns y (b, l, h, p) in x's dtype and final_state (b, h, p, n). Differentiable in every
    floating-point argument, twice in eager mode. chunk_size, at least 1, is the length of the
    chunks that are computed as products of matrices, and a limit: shorter ones are used where they
    are faster. It changes the result by rounding only.

    Raises TypeError or ValueError naming the argument that does not fit; that seq_idx goes back is
    noticed on the CPU only. Dao & Gu, arXiv:2405.21060; equivalent to
    `mamba_ssm.ops.triton.ssd_combined.mamba_chunk_scan_combined` with the softplus done before.
    """
    _check(x, dt, A, B, C, D, initial_state, "b h p n")
    checks.check_documents(seq_idx, x)
    checks.check_chunk_size(chunk_size)
    inputs = x, dt, A, B, C, D, initial_state, seq_idx, chunk_size
    if torch.compiler.is_compiling():
        tensors = [t for t in inputs if isinstance(t, Tensor)]
        keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        return _forward_op(*inputs, keep)[:2]
    if watched(*(t for t in inputs[:7] if t is not None)):
        return _Scan.apply(*inputs)[:2]
    return _forward(*inputs, False)[:2]


def ssd_step(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of `ssd_scan`, in time and memory that do not depend on those before it.

    x (b, h, p), dt (b, h), A (h,), B and C (b, g, n), D (h,) or None, and state (b, h, p, n) in
    float32 (float64 for float64), what `ssd_scan` or an earlier step returned. Returns
    y (b, h, p) in x's dtype and the new state. Dtypes and errors as in `ssd_scan`; differentiable
    by PyTorch's own rules, any number of times.
    """
    groups = _check(x, dt, A, B, C, D, state, "b h p n", skip="l", state_name="state")
    with as_given(x):
        return _step(x, dt, A, B, C, D, state, groups)


def _step(x, dt, A, B, C, D, state, groups: tuple[int, int]) -> tuple[Tensor, Tensor]:
    dtype = checks.sum_dtype(x.dtype)
    x_BGRP = x.to(dtype).unflatten(1, groups)
    dt_BGR, A_GR = dt.to(dtype).unflatten(1, groups), A.to(dtype).unflatten(0, groups)
    u_BGRP1 = (x_BGRP * dt_BGR[..., None])[..., None]
    decayed = state.to(dtype).unflatten(1, groups) * torch.exp(dt_BGR * A_GR)[..., None, None]
    state_BGRPN = decayed.addcmul_(u_BGRP1, B.to(dtype)[:, :, None, None])
    # A row times a matrix: the CPU's product of a matrix and a column takes ten times as long.
    C_BG1N = C.to(dtype)[:, :, None]
    y_BGRP = (C_BG1N @ state_BGRPN.flatten(2, 3).mT).view_as(x_BGRP)
    if D is not None:
        y_BGRP = torch.addcmul(y_BGRP, x_BGRP, D.to(dtype).unflatten(0, groups)[..., None])
    return y_BGRP.flatten(1, 2).to(x.dtype), state_BGRPN.flatten(1, 2)


def _check(
    x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, state: Any, state_shape: str,
    skip: str = "", state_name: str = "initial_state",
) -> tuple[int, int]:  # fmt: skip
    """Check all but the documents; return the groups and the heads in each."""
    shapes = {name: letters.replace(skip, "").split() for name, letters in _SHAPES.items()}
    tensors = dict(zip(_SHAPES, (x, dt, A, B, C, D)))
    expected = {name: (tensor, " ".join(shapes[name])) for name, tensor in tensors.items()}
    expected[state_name] = (state, state_shape)
    sizes = checks.check_tensors(expected, wide=f"dt A D {state_name}")
    checks.check_groups(sizes["h"], sizes["g"])
    return sizes["g"], sizes["h"] // sizes["g"]


# The computation, without derivatives


def _forward(x, dt, A, B, C, D, initial_state, seq_idx, chunk_size, keep):
    arguments = Arguments(x, dt, A, B, C, D, seq_idx)
    with as_given(x):
        return backend.forward(arguments, initial_state, chunk_size, keep)


def _backward(grad_y, grad_final, decayed, states, x, dt, A, B, C, D, seq_idx, chunk_size):
    """The gradients of x, dt, A, B, C, D and the initial state, the latter in their sums' dtype."""
    arguments = Arguments(x, dt, A, B, C, D, seq_idx)
    with as_given(x):
        g = backend.backward(arguments, decayed, states, grad_y, grad_final, chunk_size)
    return g.x_BLHP, g.dt_BLH, g.A_H.to(A.dtype), g.B_BLGN, g.C_BLGN, g.D_H, g.state_BHPN


# Rules shared by both registrations


def _setup_context(ctx, inputs, output):
    x, dt, A, B, C, D, initial_state, seq_idx, chunk_size = inputs[:9]
    _, _, decayed, states = output
    ctx.chunk_size = chunk_size
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, dt, A, B, C, D, initial_state, seq_idx, decayed, states)


def _gradients(ctx, op, grad_y, grad_final):
    """The gradients of all nine inputs."""
    x, dt, A, B, C, D, initial_state, seq_idx, decayed, states = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(x)
    if grad_final is None:
        grad_final = torch.zeros(states.shape[1:], dtype=states.dtype, device=x.device)
    *grads, grad_D, grad_state = op(
        grad_y, grad_final, decayed, states, x, dt, A, B, C, D, seq_idx, ctx.chunk_size
    )
    grad_D = None if D is None else grad_D.to(D.dtype)
    grad_state = None if initial_state is None else grad_state.to(initial_state.dtype)
    return *grads, grad_D, grad_state, None, None


def _twice_differentiable(ctx, grad_y, grad_final):
    """The same gradients through the reference, which remembers how they came about."""
    *inputs, seq_idx, _, _ = ctx.saved_tensors
    dtype = checks.sum_dtype(inputs[0].dtype)
    chunk = backend.chunk_length(inputs[0], ctx.chunk_size)

    def call(*tensors):
        wide: Any = [None if t is None else t.to(dtype) for t in tensors]
        return reference.ssd_chunked(*wide, seq_idx_BL=seq_idx, chunk_size=chunk)

    with as_given(inputs[0]):
        return *reference.gradients(call, inputs, (grad_y, grad_final)), None, None


# The autograd.Function: eager mode and torch.func


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any):
        return _forward(*inputs, keep=True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output[2:])
        _setup_context(ctx, inputs, output)

    @staticmethod
    def backward(ctx, grad_y, grad_final, *_):
        if torch.is_grad_enabled():
            return _twice_differentiable(ctx, grad_y, grad_final)
        return _gradients(ctx, _backward, grad_y, grad_final)


# The custom ops: torch.compile

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D"

_forward_op = torch.library.custom_op(
    "sparsetorch::ssd_scan",
    _forward,
    mutates_args=(),
    schema=f"({_INPUTS}, Tensor? initial_state, Tensor? seq_idx, SymInt chunk_size, bool keep)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
)
_backward_op = torch.library.custom_op(
    "sparsetorch::ssd_scan_backward",
    _backward,
    mutates_args=(),
    schema="(Tensor grad_y, Tensor grad_final, Tensor decayed, Tensor states, "
    f"{_INPUTS}, Tensor? seq_idx, SymInt chunk_size)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


@_forward_op.register_fake
def _(x, dt, A, B, C, D, initial_state, seq_idx, chunk_size, keep):
    batch, _, heads, head_dim = x.shape
    dtype, state = checks.sum_dtype(x.dtype), (batch, heads, head_dim, B.shape[-1])
    decayed, states = backend.kept(x, B, chunk_size) if keep else (False, 0)
    return (
        x.new_empty(x.shape),
        x.new_empty(state, dtype=dtype),
        x.new_empty(x.shape if decayed else (0,), dtype=dtype),
        x.new_empty((states, *state), dtype=dtype),
    )


@_backward_op.register_fake
def _(grad_y, grad_final, decayed, states, x, dt, A, B, C, D, seq_idx, chunk_size):
    grads = [t.new_empty(t.shape) for t in (x, dt, A, B, C)]
    return *grads, states.new_empty(A.shape), states.new_empty(states.shape[1:])


def _op_setup_context(ctx, inputs, output):
    _setup_context(ctx, inputs, output)


def _op_backward(ctx, grad_y, grad_final, *_):
    return *_gradients(ctx, _backward_op, grad_y, grad_final), None


_forward_op.register_autograd(_op_backward, setup_context=_op_setup_context)
