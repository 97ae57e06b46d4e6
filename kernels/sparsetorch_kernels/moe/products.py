"""Products of groups of rows with a matrix each, by torch's own kernel where it has one.

Also what comes between them in one pass over memory each.

Torch multiplies groups in one kernel for bfloat16 on GPUs of compute capability 9.0 and 10.0; for
anything else on a GPU its `grouped_mm` copies the bounds of the groups to the CPU and loops over
them, so the Triton kernels stand in. On CPU that loop, in C++, is the one to have.
"""

import functools
import importlib.util
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from sparsetorch_kernels.moe.squared_relu import root


def rows(x: Tensor, w: Tensor, ptr: Tensor) -> Tensor:
    """Rows ptr[e] to ptr[e + 1] of x times w[e]: x (R, I), w (E, I, O) -> (R, O)."""
    if _in_one_call(x, w):
        return _grouped_mm()(x, w, offs=ptr[1:].int())
    if (kernels := _triton(x)) is not None:
        return kernels.rows(x, w, ptr)
    return rows_in_turn(x, w, ptr)


def outer(g: Tensor, x: Tensor, ptr: Tensor) -> Tensor:
    """Sum of outer products of rows, by group: g (R, O), x (R, I) -> (E, O, I)."""
    if _in_one_call(g, x):
        out = _grouped_mm()(g.T, x, offs=ptr[1:].int())
        # On a GPU a group without rows may leave its matrix as it was.
        return clear_(out, ptr) if out.is_cuda else out
    if (kernels := _triton(g)) is not None:
        return kernels.outer(g, x, ptr)
    return outer_in_turn(g, x, ptr)


def clear_(out: Tensor, ptr: Tensor) -> Tensor:
    """Zeros in the matrices of out (E, O, I) whose groups have no rows."""
    # Where I is no multiple of 16 bytes, torch's function leaves room between the rows.
    if out.is_contiguous() and (kernels := _triton(out)) is not None:
        return kernels.clear_(out, ptr)
    return out.masked_fill_((ptr.diff() == 0)[:, None, None], 0)


def activate_(h: Tensor) -> Tensor:
    """relu(h)^2 in place."""
    if (kernels := _triton(h)) is not None:
        return kernels.activate_(h)
    return h.relu_().square_()


def gradient_(g_act: Tensor, act: Tensor, gate: Tensor | None) -> Tensor | None:
    """The gradient of h in place of that of act = relu(h)^2 times the gates; and that of the gates.

    g_act, act (R, M), gate (R,) or None -> (R,), <g_act, act> for each row, or None.
    """
    if (kernels := _triton(act)) is not None:
        return kernels.gradient_(g_act, act, gate)
    g_gate = None if gate is None else (g_act.to(gate.dtype) * act).sum(1)
    g_act.mul_(root(act)).mul_(2)
    if gate is not None:
        g_act.mul_(gate.to(act.dtype)[:, None])
    return g_gate


def rows_in_turn(x: Tensor, w: Tensor, ptr: Tensor) -> Tensor:
    """`rows` by a loop over the groups."""
    out = x.new_empty(x.shape[0], w.shape[2])
    sizes = ptr.diff().tolist()
    for group, matrix, to in zip(x.split(sizes), w, out.split(sizes)):
        torch.mm(group, matrix, out=to)
    return out


def outer_in_turn(g: Tensor, x: Tensor, ptr: Tensor) -> Tensor:
    """`outer` by a loop over the groups."""
    out = g.new_empty(ptr.shape[0] - 1, g.shape[1], x.shape[1])
    sizes = ptr.diff().tolist()
    for left, right, to in zip(g.split(sizes), x.split(sizes), out):
        torch.mm(left.T, right, out=to)
    return out


def _in_one_call(a: Tensor, b: Tensor) -> bool:
    """Whether torch's function serves these: it wants each row to begin at 16 bytes."""
    if a.is_cpu:
        served = a.dtype != torch.float64
    else:
        served = a.is_cuda and a.dtype == torch.bfloat16 and _has_kernel(a.device)
    return served and a.shape[0] > 0 and _aligned(a) and _aligned(b)


def _has_kernel(device: torch.device) -> bool:
    return torch.version.hip is None and torch.cuda.get_device_capability(device)[0] in (9, 10)


def _aligned(t: Tensor) -> bool:
    steps = [stride * t.element_size() for stride in t.stride() if stride != 1]
    return bool(steps) and all(step % 16 == 0 for step in (t.data_ptr(), *steps))


@functools.cache
def _grouped_mm() -> Callable[..., Tensor]:
    """The public function of torch 2.13, or what it was before."""
    return getattr(torch.nn.functional, "grouped_mm", None) or torch._grouped_mm


def _triton(t: Tensor) -> ModuleType | None:
    """The Triton kernels, where they serve a tensor."""
    return _kernels() if t.is_cuda else None


@functools.cache
def _kernels() -> ModuleType | None:
    if importlib.util.find_spec("triton") is None:
        return None  # normal for PyTorch's CPU builds
    from sparsetorch_kernels.moe import triton

    return triton
