"""Any number of leading dimensions as the single one that the kernels take."""

import torch
from torch import Tensor


def flatten(
    p: Tensor, p_core: int, q: Tensor, q_core: int
) -> tuple[Tensor, Tensor, torch.Size | None]:
    """Merge the leading dimensions; an operand that broadcasts over all of them has size 1."""
    p_batch, q_batch = p.shape[: p.dim() - p_core], q.shape[: q.dim() - q_core]
    if not p_batch and not q_batch:
        return p.unsqueeze(0), q.unsqueeze(0), None
    try:
        batch = torch.broadcast_shapes(p_batch, q_batch)
    except RuntimeError:
        raise ValueError(
            f"the leading dimensions {tuple(p_batch)} and {tuple(q_batch)} do not broadcast"
        ) from None

    def merge(t: Tensor, own: torch.Size, core: int) -> Tensor:
        tail = t.shape[t.dim() - core :]
        if own.numel() == 1:
            return t.reshape(1, *tail)
        return t.expand(*batch, *tail).reshape(batch.numel(), *tail)

    return merge(p, p_batch, p_core), merge(q, q_batch, q_core), batch


def unflatten(out: Tensor, batch: torch.Size | None) -> Tensor:
    """The result with its leading dimensions: the inverse of `flatten`."""
    return out.squeeze(0) if batch is None else out.reshape(*batch, *out.shape[1:])
