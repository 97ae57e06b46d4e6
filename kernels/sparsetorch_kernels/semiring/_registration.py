"""Both registrations of differentiable operators of one pattern and any number of tensors.

As `_register`, which says why there are two, for operators that are not bilinear. Each tensor has
one leading batch dimension, of size B or 1. The first output may be differentiated, the others may
not, and are kept for the derivatives of the first.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparsetorch_kernels._register import LAYOUT_SCHEMA, watched
from sparsetorch_kernels.forward_mode import nestable
from sparsetorch_kernels.layout import Layout

Call = Callable[..., Any]  # (layout, options, *tensors) -> Tensor, or a tuple of several
Ops = Mapping[str, Call]
Options = tuple[Any, ...]
Gradients = Sequence[Tensor | None]


class Definition(Protocol):
    """What has to be said about one operator; everything else is derived.

    name: the operator's name, also within its family.
    options: the schema of the arguments that are not tensors, as ("bool add",).
    tensors: how many tensors it takes.
    outputs: how many it returns.
    """

    @property
    def name(self) -> str: ...
    @property
    def options(self) -> tuple[str, ...]: ...
    @property
    def tensors(self) -> int: ...
    @property
    def outputs(self) -> int: ...

    def forward(self, layout: Layout, options: Options, *tensors: Tensor) -> Any:
        """The computation, without derivatives."""
        ...

    def shape(self, layout: Layout, options: Options, *tensors: Tensor) -> tuple[int, ...]:
        """The shape of each output, without batch."""
        ...

    def keep(self, tensors: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> Sequence[Tensor]:
        """What the derivatives read: all tensors, and then what they need of the outputs."""
        ...

    def pull(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        grad: Tensor,
        kept: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> Gradients:
        """The gradients of the tensors, each of batch size B, None where nobody asked for it."""
        ...

    def push(
        self,
        ops: Ops,
        layout: Layout,
        options: Options,
        kept: Sequence[Tensor],
        tangents: Gradients,
    ) -> Tensor | None:
        """The tangent of the first output, from those of the tensors."""
        ...


_EAGER: dict[str, Call] = {}
_TRACED: dict[str, Call] = {}


def register(namespace: str, definitions: Sequence[Definition]) -> dict[str, Call]:
    """Register definitions that are closed under differentiation; return the calls."""
    for op in definitions:
        _EAGER[op.name] = _function(op, _EAGER)
        _TRACED[op.name] = _custom_op(namespace, op, _TRACED)
    return {op.name: _pick(op) for op in definitions}


def _pick(op: Definition) -> Call:
    def call(layout: Layout, options: Options, *tensors: Tensor) -> Any:
        if torch.compiler.is_compiling():
            if forward_ad._current_level >= 0:  # the custom op's tangent would be zero
                raise NotImplementedError(
                    f"{op.name}: forward-mode derivatives do not compile; take them outside "
                    "torch.compile, or reverse mode inside"
                )
            return _TRACED[op.name](layout, options, *tensors)
        if watched(*tensors):
            return _EAGER[op.name](layout, options, *tensors)
        return op.forward(layout, options, *tensors)

    return call


# Rules shared by both registrations


def _save(op: Definition, ctx: Any, layout: Layout, options: Options, tensors, output) -> Any:
    outputs = output if isinstance(output, tuple) else (output,)
    ctx.layout, ctx.options = layout, options
    ctx.mark_non_differentiable(*outputs[1:])
    kept = op.keep(tensors, outputs)
    ctx.save_for_backward(*kept)
    return kept


def _backward(op: Definition, ops: Ops, ctx: Any, grad: Tensor) -> Gradients:
    kept, needs = ctx.saved_tensors, ctx.needs_input_grad[-op.tensors :]
    grads = op.pull(ops, ctx.layout, ctx.options, grad, kept, needs)
    return [_fit(g, t) if need else None for g, t, need in zip(grads, kept, needs)]


def _fit(grad: Tensor | None, tensor: Tensor) -> Tensor | None:
    """Summed over the batch, where the tensor was broadcast over it."""
    if grad is None or grad.shape[0] == tensor.shape[0]:
        return grad
    return grad.sum(0, keepdim=True)


def _batch(tensors: Sequence[Tensor]) -> int:
    return next((t.shape[0] for t in tensors if t.shape[0] != 1), 1)


def _vmap(op: Definition, call: Call, size: int, layout, options, tensors, in_dims: tuple):
    """Merge the mapped dimension into the batch dimension; the results' is in front."""
    layout_dims, dims = in_dims
    if any(dim is not None for dim in layout_dims):
        raise ValueError("a sparsity pattern cannot be mapped over; vmap values or operands")
    moved = [t if dim is None else t.movedim(dim, 0) for t, dim in zip(tensors, dims)]
    inner = _batch([t if dim is None else t[0] for t, dim in zip(moved, dims)])

    def merge(t: Tensor, dim: int | None) -> Tensor:
        if dim is None and t.shape[0] == 1:
            return t  # broadcast over the mapped dimension and the batch alike
        t = t.unsqueeze(0) if dim is None else t
        return t.expand(size, inner, *t.shape[2:]).reshape(size * inner, *t.shape[2:])

    out = call(layout, options, *map(merge, moved, dims))
    if op.outputs == 1:
        return out.unflatten(0, (size, inner)), 0
    return tuple(o.unflatten(0, (size, inner)) for o in out), (0,) * op.outputs


# The autograd.Function: eager mode, forward mode, torch.func


def _function(op: Definition, ops: Ops) -> Call:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return op.forward(*args)

        @staticmethod
        def setup_context(ctx, inputs, output):
            layout, options, *tensors = inputs
            ctx.save_for_forward(*_save(op, ctx, layout, options, tuple(tensors), output))

        @staticmethod
        def backward(ctx, *grads):
            return None, None, *_backward(op, ops, ctx, grads[0])

        @staticmethod
        @nestable
        def jvp(ctx, _layout, _options, *tangents):
            tangent = op.push(ops, ctx.layout, ctx.options, ctx.saved_tensors, tangents)
            return tangent if op.outputs == 1 else (tangent, *(None,) * (op.outputs - 1))

        @staticmethod
        def vmap(info, in_dims, layout, options, *tensors):
            layout_dims, _, *dims = in_dims
            dims = (layout_dims, dims)
            return _vmap(op, ops[op.name], info.batch_size, layout, options, tensors, dims)

    Function.forward.__signature__ = inspect.signature(Function.forward)  # pyright: ignore
    Function.__name__ = Function.__qualname__ = op.name
    return Function.apply


# The custom op: torch.compile


def _custom_op(namespace: str, op: Definition, ops: Ops) -> Call:
    width = len(Layout._fields)
    first = width + len(op.options)  # what comes before the tensors

    def parse(args: Sequence[Any]) -> tuple[Any, Any, tuple]:
        return Layout(*args[:width]), tuple(args[width:first]), tuple(args[first:])

    def forward(*args):
        layout, options, tensors = parse(args)
        return op.forward(layout, options, *tensors)

    def setup_context(ctx, inputs, output):
        _save(op, ctx, *parse(inputs), output)

    def backward(ctx, *grads):
        return *(None,) * first, *_backward(op, ops, ctx, grads[0])

    def fake(*args):
        layout, options, tensors = parse(args)
        shape = (_batch(tensors), *op.shape(layout, options, *tensors))
        outputs = tuple(tensors[0].new_empty(shape) for _ in range(op.outputs))
        return outputs if op.outputs > 1 else outputs[0]

    def vmap(info, in_dims, *args):
        layout_dims, _, dims = parse(in_dims)
        layout, options, tensors = parse(args)
        dims = (layout_dims, dims)
        return _vmap(op, ops[op.name], info.batch_size, layout, options, tensors, dims)

    def call(layout: Layout, options: Options, *tensors: Tensor) -> Any:
        return custom(*layout, *options, *tensors)

    numbered = (f"Tensor t{i}" for i in range(op.tensors))
    arguments = ", ".join((LAYOUT_SCHEMA.format("a"), *op.options, *numbered))
    result = "Tensor" if op.outputs == 1 else f"({', '.join(['Tensor'] * op.outputs)})"
    custom = torch.library.custom_op(
        f"{namespace}::{op.name}",
        forward,
        mutates_args=(),
        schema=f"({arguments}) -> {result}",
    )
    custom.register_fake(fake)
    custom.register_autograd(backward, setup_context=setup_context)
    custom.register_vmap(vmap)
    return call
