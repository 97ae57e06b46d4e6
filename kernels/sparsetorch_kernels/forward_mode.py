"""Forward mode inside of forward mode, which PyTorch's custom functions lose without a word.

PyTorch calls a function's `jvp` rule with forward mode switched off, so that the tangents it saved
get no tangents of their own level; with it goes that of every level outside, and what the rule
computes by PyTorch's own operations is constant to them: `jvp` of `jvp` is then zero or wrong
(checked on 2.13). Here the rule reads its saved tensors without their tangents of its own level,
and runs with forward mode on.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.autograd import forward_ad


class _Primals:
    """A function's context, whose saved tensors have no tangents of the innermost level."""

    def __init__(self, ctx: Any):
        self._ctx = ctx

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(t if t is None else _primal(t) for t in self._ctx.saved_tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ctx, name)


def _primal(t: Tensor) -> Tensor:
    return forward_ad.unpack_dual(t).primal


def nestable(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """The `jvp` rule of an `autograd.Function`, right under any number of forward modes.

    The rule may do with its context what it likes but set attributes, and has to be differentiable.
    """

    @functools.wraps(jvp)
    def rule(ctx: Any, *tangents: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(_Primals(ctx), *tangents)

    return rule
