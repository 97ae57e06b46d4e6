"""The public products of experts: arguments checked, derivatives registered.

As every op of this package they are registered twice: as an `autograd.Function`, which has the
least overhead, and as a custom op, which compiles. Gradients are kernels too; where somebody
differentiates them in turn (`create_graph=True`), they are made of the reference instead, whose
derivatives of any order are exact.
"""

import inspect
from typing import Any

import torch
from torch import Tensor

from sparsetorch_kernels._register import watched
from sparsetorch_kernels.autocast import as_given
from sparsetorch_kernels.layout import Layout
from sparsetorch_kernels.moe import backend, cpu, reference
from sparsetorch_kernels.moe.checks import check_choice, check_experts, check_ptr, check_routes
from sparsetorch_kernels.moe.routes import Needs, Routes

Arrays = tuple[Tensor | None, Tensor | None, Tensor | None]  # token, t_crow, t_perm of routes


def grouped_mlp(x: Tensor, ptr: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Squared-ReLU experts on rows that are sorted by expert: y = down_e relu(up_e x)^2.

    x (R, d), ptr (E + 1,) int32 or int64: rows ptr[e] to ptr[e + 1] are expert e's, of which there
    may be none; up (E, m, d), down (E, d, m) -> (R, d). float16, bfloat16, float32 or float64.
    Between forward and backward one tensor of size (R, m) is kept, the squared ReLU or its root,
    which is the pre-activation wherever the derivative is not zero.

    Differentiable in x, up and down, any number of times, in reverse mode. Raises TypeError or
    ValueError naming the argument that does not fit; on a GPU the contents of ptr are trusted.
    Equivalent to a loop of linear layers, or to `torch.nn.functional.grouped_mm` twice.
    """
    check_experts(x, up, down)
    check_ptr(ptr, x.shape[0], up.shape[0], x.device)
    return _call(x, None, ptr, up, down, (None, None, None))


def routed_mlp(layout: Layout, gate: Tensor, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Each token through its experts, weighted and added up: y_t = sum_e gate[e, t] f_e(x_t).

    layout: the (E, T) sparse matrix of gates, with its transpose; gate (R,) its values, float32
    for half precision and else in the dtype of x; x (T, d), up (E, m, d), down (E, d, m) as in
    `grouped_mlp` -> (T, d). That is a sparse product with the experts' results, of which neither
    the R rows that go in nor those that come out are kept: one tensor of size (R, m) is.

    Differentiable in gate, x, up and down, any number of times, in reverse mode. Raises TypeError
    or ValueError naming the argument that does not fit.
    """
    check_experts(x, up, down)
    check_routes(layout, gate, x, up.shape[0])
    return _call(x, gate, layout.crow, up, down, (layout.col, layout.t_crow, layout.t_perm))


def few_tokens_mlp(expert: Tensor, gate: Tensor, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """`routed_mlp` for a few tokens on CPU, as generation has them: nothing is sorted.

    expert (T, K) integers below E, gate (T, K), the weights of a token's experts, in the dtypes
    of `routed_mlp`; x (T, d), up (E, m, d), down (E, d, m) -> (T, d). Nothing is differentiable:
    the result has no gradient. Raises TypeError or ValueError naming the argument that does not
    fit.
    """
    check_experts(x, up, down)
    check_choice(expert, gate, x, up.shape[0])
    with torch.no_grad(), as_given(x):
        return cpu.few_tokens(x, expert, gate, up, down)


def _call(
    x: Tensor, gate: Tensor | None, ptr: Tensor, up: Tensor, down: Tensor, arrays: Arrays
) -> Tensor:
    if torch.compiler.is_compiling():
        return _traced(x, gate, ptr, up, down, *arrays)[0]
    if watched(x, up, down) or (gate is not None and watched(gate)):
        return _Experts.apply(x, gate, ptr, up, down, *arrays)[0]
    return backend.forward(x, ptr, up, down, _routes(gate, arrays), keep=False)[0]


def _forward(
    x: Tensor, gate: Tensor | None, ptr: Tensor, up: Tensor, down: Tensor,
    token: Tensor | None, t_crow: Tensor | None, t_perm: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return backend.forward(x, ptr, up, down, _routes(gate, (token, t_crow, t_perm)), keep=True)


def _setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    x, gate, ptr, up, down, *arrays = inputs
    kept = output[1]
    ctx.mark_non_differentiable(kept)
    ctx.save_for_backward(x, gate, ptr, up, down, *arrays, kept)


class _Experts(torch.autograd.Function):
    forward = staticmethod(_forward)
    setup_context = staticmethod(_setup_context)

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor):
        x, gate, ptr, up, down, *arrays, kept = ctx.saved_tensors
        needs = [ctx.needs_input_grad[i] for i in (0, 3, 4, 1)]
        if torch.is_grad_enabled():
            found = _differentiable(g, (x, up, down, gate), ptr, arrays, needs)
        else:
            routes = _routes(gate, arrays)
            found = backend.backward(g, x, kept, ptr, up, down, routes, Needs(*needs))
        g_x, g_up, g_down, g_gate = found
        return g_x, g_gate, None, g_up, g_down, None, None, None


# `apply` asks for the signature on every call; computing it takes as long as a small expert.
_Experts.forward.__signature__ = inspect.signature(_forward)  # pyright: ignore


def _routes(gate: Tensor | None, arrays: Any) -> Routes | None:
    token, t_crow, t_perm = arrays
    return None if gate is None else Routes(token, gate, t_crow, t_perm)


def _differentiable(
    g: Tensor, inputs: tuple[Tensor | None, ...], ptr: Tensor, arrays: Any, needs: list[bool]
) -> list[Tensor | None]:
    """The gradients of x, up, down and gate as functions that can be differentiated again."""
    x, up, down, gate = inputs
    assert x is not None
    assert up is not None
    assert down is not None
    if gate is None:
        y = reference.grouped_mlp(x, ptr, up, down)
    else:
        layout = Layout(ptr, arrays[0], None, None, None, None, up.shape[0], x.shape[0])
        y = reference.routed_mlp(layout, gate, x, up, down)
    wanted = [t for t, need in zip(inputs, needs) if need and t is not None]
    found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needs]


# The custom ops: torch.compile

_ROUTES = "Tensor? token, Tensor? t_crow, Tensor? t_perm"

_traced = torch.library.custom_op(
    "sparsetorch::experts",
    _forward,
    mutates_args=(),
    schema=f"(Tensor x, Tensor? gate, Tensor ptr, Tensor up, Tensor down, {_ROUTES}) "
    "-> (Tensor, Tensor)",
)


@_traced.register_fake
def _(x, gate, ptr, up, down, token, t_crow, t_perm):
    n_rows = x.shape[0] if token is None else token.shape[0]
    return x.new_empty(x.shape[0], down.shape[1]), x.new_empty(n_rows, up.shape[1])


def _listed(g, x, kept, gate, ptr, up, down, token, t_crow, t_perm, needs) -> list[Tensor]:
    routes = _routes(gate, (token, t_crow, t_perm))
    found = backend.backward(g, x, kept, ptr, up, down, routes, Needs(*needs))
    return [t for t in found if t is not None]


_traced_backward = torch.library.custom_op(
    "sparsetorch::experts_backward",
    _listed,
    mutates_args=(),
    schema=f"(Tensor g, Tensor x, Tensor kept, Tensor? gate, Tensor ptr, Tensor up, Tensor down, "
    f"{_ROUTES}, bool[] needs) -> Tensor[]",
)


@_traced_backward.register_fake
def _(g, x, kept, gate, ptr, up, down, token, t_crow, t_perm, needs):
    return [torch.empty_like(t) for t, need in zip((x, up, down, gate), needs) if need]


def _traced_gradients(ctx: Any, g: Tensor, _: Tensor):
    x, gate, ptr, up, down, *arrays, kept = ctx.saved_tensors
    needs = [ctx.needs_input_grad[i] for i in (0, 3, 4, 1)]
    found = iter(_traced_backward(g, x, kept, gate, ptr, up, down, *arrays, needs))
    g_x, g_up, g_down, g_gate = [next(found) if need else None for need in needs]
    return g_x, g_gate, None, g_up, g_down, None, None, None


_traced.register_autograd(_traced_gradients, setup_context=_setup_context)
