"""Cross-entropy of the next token, without all logits in memory at once.

T: tokens, D: d_model, V: vocabulary
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy

from sparsetorch_kernels import autocasts

IGNORED = -100
"""The target of a token that does not count, as in `torch.nn.functional.cross_entropy`."""
LOGITS = 1 << 24  # held at once
FLOAT16_ROWS = 2048  # whose products leave room in its range


def next_token_loss(hidden_TD: Tensor, output_VD: Tensor, targets_T: Tensor) -> Tensor:
    """The mean cross-entropy of `hidden @ output.T` over the targets that count, float32.

    Equivalent to `cross_entropy(logits.float(), targets)`; the logits of a few tokens are in memory
    at a time, forward and backward, and their gradients are found with them. First derivatives
    only. With no target that counts the loss is 0.

    Args:
        hidden_TD: (T, D).
        output_VD: (V, D) of the same dtype.
        targets_T: (T,) int64; `IGNORED` does not count.

    Raises:
        ValueError: there are not as many targets as tokens.
    """
    if targets_T.shape != hidden_TD.shape[:1]:
        raise ValueError(
            f"targets: expected one for each of {len(hidden_TD)} tokens, got shape "
            f"{tuple(targets_T.shape)}"
        )
    kind = hidden_TD.device.type
    if autocasts(hidden_TD):  # as any linear layer there
        dtype = torch.get_autocast_dtype(kind)
        hidden_TD, output_VD = hidden_TD.to(dtype), output_VD.to(dtype)
    with torch.autocast(kind, enabled=False):
        return _NextToken.apply(hidden_TD, output_VD, targets_T)


class _NextToken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, output: Tensor, targets: Tensor) -> Tensor:
        count = (targets != IGNORED).sum().clamp(min=1)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        needs_hidden, needs_output = ctx.needs_input_grad[:2]
        # Gradients of a mean over many tokens leave the range of float16: there they are divided by
        # the count, and multiplied by a scale of the loss, in the backward.
        late = hidden.dtype == torch.float16
        to_hidden = torch.empty_like(hidden, dtype=wide if late else None) if needs_hidden else None
        # Summed over chunks in float32: bfloat16 would lose small parts.
        to_output = torch.zeros_like(output, dtype=wide) if needs_output else None
        step = max(1, min(LOGITS // len(output), FLOAT16_ROWS if late else LOGITS))
        for start in range(0, len(hidden), step):
            some, wanted = hidden[start : start + step], targets[start : start + step]
            logits = (some @ output.T).to(wide)
            loss += cross_entropy(logits, wanted, ignore_index=IGNORED, reduction="sum") / count
            if to_hidden is None and to_output is None:
                continue
            change = logits.softmax(1)
            counted = wanted != IGNORED
            change[counted.nonzero()[:, 0], wanted[counted]] -= 1
            share = counted.to(wide) if late else counted.to(wide) / count
            change = (change * share[:, None]).to(hidden.dtype)
            if to_hidden is not None:
                to_hidden[start : start + step] = change @ output
            if to_output is not None:
                to_output += change.T @ some
        if to_output is not None and not late:
            to_output = to_output.to(output.dtype)
        ctx.late, ctx.dtype = late, output.dtype
        ctx.save_for_backward(to_hidden, to_output, count)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        *found, count = ctx.saved_tensors
        if ctx.late:
            factor = change / count
            found = [None if t is None else (t * factor.to(t.dtype)).to(ctx.dtype) for t in found]
        else:
            found = [None if t is None else t * change.to(t.dtype) for t in found]
        return (*found, None)
