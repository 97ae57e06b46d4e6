"""From one definition, both registrations of a differentiable op of two arguments.

PyTorch has two ways to teach autograd a new function, and neither covers everything (checked on
2.11 to 2.15):

- a custom op (`torch.library`) compiles, but its forward-mode tangent is silently zero and
  `torch.func.grad` refuses it;
- an `autograd.Function` with `setup_context`, `jvp` and `vmap` serves forward mode and
  `torch.func`, but does not compile.

So each op is made both ways and the call picks by `torch.compiler.is_compiling()`. Every formula
here is written in terms of a family of ops (`Ops`), and each family differentiates into itself
only: a Function whose backward used custom ops would give a silently zero Hessian.

All ops have one form, `f(layouts, p, q, reduce)`: p (B or 1, ...) and q (B or 1, ...) have one
leading batch dimension that broadcasts from 1. With `reduce` the result is summed over the batch
(and has batch size 1), which is what the gradient of a broadcast argument needs. An op is bilinear
(`Bilinear`), or linear in q and the inverse of a linear function of p (`Inverse`); none takes
conjugates.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from sparsetorch_kernels.forward_mode import nestable
from sparsetorch_kernels.layout import Layout

Layouts = tuple[Layout, ...]


class Call(Protocol):
    """A product: (layouts, p, q, reduce) -> Tensor."""

    def __call__(
        self, layouts: Layouts, p: Tensor, q: Tensor, reduce: bool = False, /
    ) -> Tensor: ...


Ops = Mapping[str, Call]
Pullback = Callable[[Ops, Layouts, Tensor, Tensor, bool], Tensor]
Gradients = tuple[Tensor | None, Tensor | None]  # of p and q, each None where nobody asked for it
Needs = tuple[bool, bool]


class Definition(Protocol):
    """What has to be said about one op; everything else is derived.

    name: the op's name, also within its family.
    layouts: how many layouts it takes.
    forward: the computation, without derivatives: (layouts, p, q, reduce) -> Tensor.
    shape: the result's shape without batch, (layouts, p, q) -> tuple.
    """

    @property
    def name(self) -> str: ...
    @property
    def layouts(self) -> int: ...
    @property
    def forward(self) -> Callable[[Layouts, Tensor, Tensor, bool], Tensor]: ...
    @property
    def shape(self) -> Callable[[Layouts, Tensor, Tensor], Sequence[int]]: ...

    def read_by_pull(self, needs: Needs, p: Tensor, q: Tensor, out: Tensor) -> Gradients:
        """What to keep for `pull`."""
        ...

    def pull(
        self, ops: Ops, layouts: Layouts, grad: Tensor, kept: Any, needs: Needs, batches: Any
    ) -> Gradients:
        """The gradients of p and q, whose batch sizes are `batches`, from that of the result."""
        ...

    def read_by_push(self, p: Tensor, q: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """What to keep for `push`."""
        ...

    def push(
        self, ops: Ops, layouts: Layouts, kept: Any, dp: Any, dq: Any, reduce: bool
    ) -> Tensor | None:
        """The tangent of the result, from those of p and q, each of which may be None."""
        ...


@dataclass(frozen=True)
class Bilinear:
    """A product of p and q.

    pull_p: gradient of p, from (ops, layouts, gradient of the result, q, reduce).
    pull_q: gradient of q, from (ops, layouts, gradient of the result, p, reduce).
    """

    name: str
    layouts: int
    forward: Callable[[Layouts, Tensor, Tensor, bool], Tensor]
    shape: Callable[[Layouts, Tensor, Tensor], Sequence[int]]
    pull_p: Pullback
    pull_q: Pullback

    def read_by_pull(self, needs: Needs, p: Tensor, q: Tensor, out: Tensor) -> Gradients:
        """The gradient of each argument needs the other one."""
        return p if needs[1] else None, q if needs[0] else None

    def pull(
        self, ops: Ops, layouts: Layouts, grad: Tensor, kept: Any, needs: Needs, batches: Any
    ) -> Gradients:
        """See `Definition`."""
        p, q = kept
        return (
            _pull(self.pull_p, ops, layouts, grad, q, batches[0]) if needs[0] else None,
            _pull(self.pull_q, ops, layouts, grad, p, batches[1]) if needs[1] else None,
        )

    def read_by_push(self, p: Tensor, q: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """See `Definition`."""
        return p, q

    def push(
        self, ops: Ops, layouts: Layouts, kept: Any, dp: Any, dq: Any, reduce: bool
    ) -> Tensor | None:
        """f(dp, q) + f(p, dq)."""
        p, q = kept
        terms = []
        if dp is not None:
            terms.append(ops[self.name](layouts, dp, q, reduce))
        if dq is not None:
            terms.append(ops[self.name](layouts, p, dq, reduce))
        return sum(terms[1:], terms[0]) if terms else None


@dataclass(frozen=True)
class Inverse:
    """x = P^-1 q for a matrix P that is linear in p; never called with `reduce`.

    The gradient of q is P^-H g, that of p the outer product of it and -conj(x) where P depends on
    p; the tangent of x is P^-1 (dq - dP x).

    adjoint: P^-T g, from (ops, layouts, p, g).
    outer: the outer product of u and x where P depends on p, from (ops, layouts, u, x, reduce).
    product: P x, from (ops, layouts, p, x).
    """

    name: str
    layouts: int
    forward: Callable[[Layouts, Tensor, Tensor, bool], Tensor]
    shape: Callable[[Layouts, Tensor, Tensor], Sequence[int]]
    adjoint: Callable[[Ops, Layouts, Tensor, Tensor], Tensor]
    outer: Pullback
    product: Callable[[Ops, Layouts, Tensor, Tensor], Tensor]

    def read_by_pull(self, needs: Needs, p: Tensor, q: Tensor, out: Tensor) -> Gradients:
        """Both gradients need the matrix, and that of p the solution."""
        return p, out if needs[0] else None

    def pull(
        self, ops: Ops, layouts: Layouts, grad: Tensor, kept: Any, needs: Needs, batches: Any
    ) -> Gradients:
        """See `Definition`."""
        p, x = kept
        if p.is_complex():  # P^-H g = conj(P^-T conj(g))
            back = self.adjoint(ops, layouts, p, grad.conj()).conj()
        else:
            back = self.adjoint(ops, layouts, p, grad)
        grad_p = _pull(self.outer, ops, layouts, -back, x, batches[0]) if needs[0] else None
        summed = batches[1] == 1 and back.shape[0] > 1
        return grad_p, back.sum(0, keepdim=True) if summed else back

    def read_by_push(self, p: Tensor, q: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """See `Definition`."""
        return p, out

    def push(
        self, ops: Ops, layouts: Layouts, kept: Any, dp: Any, dq: Any, reduce: bool
    ) -> Tensor | None:
        """P^-1 (dq - dP x)."""
        p, x = kept
        right = dq
        if dp is not None:
            change = self.product(ops, layouts, dp, x)
            right = -change if dq is None else dq - change
        return None if right is None else ops[self.name](layouts, p, right, False)


# Both families of all ops: a definition may use those that are registered before it.
_EAGER: dict[str, Call] = {}
_TRACED: dict[str, Call] = {}


def register(namespace: str, definitions: Sequence[Definition]) -> dict[str, Call]:
    """Register definitions, closed under differentiation with earlier ones; return the calls."""
    for op in definitions:
        _EAGER[op.name] = _function(op, _EAGER)
        _TRACED[op.name] = _custom_op(namespace, op, _TRACED)
    return {op.name: _pick(op, _EAGER[op.name], _TRACED[op.name]) for op in definitions}


def _pick(op: Definition, eager: Call, traced: Call) -> Call:
    def call(layouts: Layouts, p: Tensor, q: Tensor, reduce: bool = False) -> Tensor:
        if torch.compiler.is_compiling():
            if forward_ad._current_level >= 0:  # the custom op's tangent would be zero
                raise NotImplementedError(
                    f"{op.name}: forward-mode derivatives do not compile; take them outside "
                    "torch.compile, or reverse mode inside"
                )
            return traced(layouts, p, q, reduce)
        if watched(p, q):
            return eager(layouts, p, q, reduce)
        # Nobody differentiates or maps this call: the Function's bookkeeping, half of the time of a
        # small product, would be for nothing.
        return op.forward(layouts, p, q, reduce)

    return call


def watched(*tensors: Tensor) -> bool:
    """Whether a derivative, a function transform or a compiler may be watching a product."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return torch.compiler.is_compiling() or transformed()


def transformed() -> bool:
    """Whether a function transform or forward mode may be watching."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


# Rules shared by both registrations


def _save(op: Definition, ctx: Any, args: tuple, out: Tensor, first: int) -> None:
    """Keep what the backward will read. `first` is the position of p among the inputs, before q."""
    layouts, p, q, _ = args
    ctx.layouts, ctx.batches = layouts, (p.shape[0], q.shape[0])
    needs = ctx.needs_input_grad[first : first + 2]
    ctx.save_for_backward(*op.read_by_pull(needs, p, q, out))


def _backward(op: Definition, ops: Ops, ctx: Any, grad: Tensor, first: int) -> Gradients:
    needs = ctx.needs_input_grad[first : first + 2]
    return op.pull(ops, ctx.layouts, grad, ctx.saved_tensors, needs, ctx.batches)


def _pull(rule: Pullback, ops: Ops, layouts: Layouts, grad: Tensor, other: Tensor, batch: int):
    """The gradient of an argument of that batch size, given the other argument.

    PyTorch's gradient of a complex function is the conjugate of its derivative.
    """
    if other.is_complex():
        other = other.conj()
    result = rule(ops, layouts, grad, other, batch == 1 and _batch(grad, other) != 1)
    # The batch was summed away in the forward: each of its members has the same gradient.
    return result if result.shape[0] == batch else result.expand(batch, *result.shape[1:])


def _vmap(call: Call, size: int, args: tuple[Layouts, Tensor, Tensor, bool], in_dims: tuple):
    """Merge the mapped dimension into the batch dimension; the result's is in front."""
    layouts, p, q, reduce = args
    layout_dims, p_dim, q_dim, _ = in_dims
    if any(dim is not None for layout in layout_dims for dim in layout):
        raise ValueError("a sparsity pattern cannot be mapped over; vmap values or operands")
    p_batch, q_batch = (
        t.shape[0] if dim is None else t.movedim(dim, 0).shape[1]
        for t, dim in ((p, p_dim), (q, q_dim))
    )
    inner = q_batch if p_batch == 1 else p_batch

    def merge(t: Tensor, dim: int | None) -> Tensor:
        if dim is None and t.shape[0] == 1:
            return t  # broadcast over the mapped dimension and the batch alike
        t = t.unsqueeze(0) if dim is None else t.movedim(dim, 0)
        return t.expand(size, inner, *t.shape[2:]).reshape(size * inner, *t.shape[2:])

    out = call(layouts, merge(p, p_dim), merge(q, q_dim), False).unflatten(0, (size, inner))
    return (out.sum(1, keepdim=True) if reduce else out), 0


def _batch(p: Tensor, q: Tensor) -> int:
    return q.shape[0] if p.shape[0] == 1 else p.shape[0]


# The autograd.Function: eager mode, forward mode, torch.func


def _function(op: Definition, ops: Ops) -> Call:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(*args):
            return op.forward(*args)

        @staticmethod
        def setup_context(ctx, inputs, output):
            _, p, q, ctx.reduce = inputs
            ctx.save_for_forward(*op.read_by_push(p, q, output))
            _save(op, ctx, inputs, output, first=1)

        @staticmethod
        def backward(ctx, grad):
            return None, *_backward(op, ops, ctx, grad, first=1), None

        @staticmethod
        @nestable
        def jvp(ctx, _layouts, dp, dq, _reduce):
            return op.push(ops, ctx.layouts, ctx.saved_tensors, dp, dq, ctx.reduce)

        @staticmethod
        def vmap(info, in_dims, layouts, p, q, reduce):
            return _vmap(ops[op.name], info.batch_size, (layouts, p, q, reduce), in_dims)

    # `apply` asks for the signature on every call; computing it costs as much as a small product.
    Function.forward.__signature__ = inspect.signature(Function.forward)  # pyright: ignore
    Function.__name__ = Function.__qualname__ = op.name
    return Function.apply


# The custom op: torch.compile

LAYOUT_SCHEMA = (
    "Tensor {0}_crow, Tensor {0}_col, Tensor? {0}_perm, "
    "Tensor {0}_t_crow, Tensor {0}_t_col, Tensor? {0}_t_perm, "
    "SymInt {0}_n_rows, SymInt {0}_n_cols"
)


def _custom_op(namespace: str, op: Definition, ops: Ops) -> Call:
    width = len(Layout._fields)
    first = op.layouts * width  # the layouts' fields come before p and q

    def parse(args: Sequence[Any]) -> tuple[Layouts, Tensor, Tensor, bool]:
        starts = range(0, first, width)
        return tuple(Layout(*args[start : start + width]) for start in starts), *args[first:]

    def setup_context(ctx, inputs, output):
        _save(op, ctx, parse(inputs), output, first)

    def backward(ctx, grad):
        return *(None,) * first, *_backward(op, ops, ctx, grad, first), None

    def fake(*args):
        layouts, p, q, reduce = parse(args)
        return p.new_empty((1 if reduce else _batch(p, q), *op.shape(layouts, p, q)))

    def vmap(info, in_dims, *args):
        return _vmap(ops[op.name], info.batch_size, parse(args), parse(in_dims))

    def call(layouts: Layouts, p: Tensor, q: Tensor, reduce: bool = False) -> Tensor:
        return custom(*(x for layout in layouts for x in layout), p, q, reduce)

    arguments = [LAYOUT_SCHEMA.format("abc"[i]) for i in range(op.layouts)]
    custom = torch.library.custom_op(
        f"{namespace}::{op.name}",
        lambda *args: op.forward(*parse(args)),
        mutates_args=(),
        schema=f"({', '.join(arguments)}, Tensor p, Tensor q, bool reduce) -> Tensor",
    )
    custom.register_fake(fake)
    custom.register_autograd(backward, setup_context=setup_context)
    custom.register_vmap(vmap)
    return call
