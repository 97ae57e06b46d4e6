"""Which implementation runs: a loop over long groups on CPU, products of all groups elsewhere."""

from types import ModuleType

from torch import Tensor

from sparsetorch_kernels.autocast import as_given
from sparsetorch_kernels.moe import cpu, grouped
from sparsetorch_kernels.moe.routes import Needs, Routes

LONG = 96
"""Rows of a group, on average, from which on a loop over the groups is worth its steps on CPU."""


def forward(
    x: Tensor, ptr: Tensor, up: Tensor, down: Tensor, routes: Routes | None, keep: bool
) -> tuple[Tensor, Tensor]:
    """The results, and one tensor (R, M) for the backward: relu(up x) of every row, or its square.

    That one means nothing unless `keep`. x: (R, D), or (T, D) with routes, which then choose rows,
    weight and add them.
    """
    with as_given(x):
        return _module(x, ptr, routes).forward(x, ptr, up, down, routes, keep)


def backward(
    g: Tensor, x: Tensor, kept: Tensor, ptr: Tensor, up: Tensor, down: Tensor,
    routes: Routes | None, needs: Needs,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """The gradients of x, up, down and the gates from that of the results, where they are needed.

    The pre-activation h is not kept: where relu(h)^2 is positive, h is its root, and elsewhere the
    derivative is zero. Nor are rows of x and results: the gradient of a gate, <g, down relu(h)^2>,
    is <down^T g, relu(h)^2> (Guo et al., SonicMoE, arXiv:2512.14080).
    """
    with as_given(x):
        return _module(x, ptr, routes).backward(g, x, kept, ptr, up, down, routes, needs)


def _module(x: Tensor, ptr: Tensor, routes: Routes | None) -> ModuleType:
    """By sizes alone, so that forward and backward choose alike."""
    n_rows = x.shape[0] if routes is None else routes.token.shape[0]
    long = n_rows >= LONG * (ptr.shape[0] - 1)
    return cpu if x.is_cpu and long else grouped
