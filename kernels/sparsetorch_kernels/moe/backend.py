"""Which implementation runs: loops over experts on CPU, grouped products elsewhere."""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from sparsetorch_kernels.moe import cpu, grouped
from sparsetorch_kernels.moe.routes import Needs, Routes


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None
) -> tuple[Tensor, Tensor]:
    """The results, and what the backward keeps: relu(up x)^2 of every row, (R, M).

    x: (R, D), or (T, D) with routes, which then choose rows, weight and add them.
    """
    with as_given(x):
        return _module(x).forward(x, ptr, up, down, routes)


def backward(
    g: Tensor, x: Tensor, act: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of x, up, down and the gates from that of the results, where they are needed.

    The pre-activation is not kept: where act = relu(h)^2 is positive, h is its root, and elsewhere
    the derivative is zero. Nor are rows of x and results: the gradient of a gate, <g, down act>, is
    <down^T g, act> (Guo et al., SonicMoE, arXiv:2512.14080).
    """
    with as_given(x):
        return _module(x).backward(g, x, act, ptr, up, down, routes, needs)


def as_given(x: Tensor) -> AbstractContextManager:
    """Where products are computed in the dtype of their operands, also under autocast."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _module(x: Tensor) -> ModuleType:
    return cpu if x.is_cpu else grouped
