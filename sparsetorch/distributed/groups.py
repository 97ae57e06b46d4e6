"""Process groups, and what processes tell each other before any number flows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Group = dist.ProcessGroup | None
Result = TypeVar("Result")


def check_group(group: Group) -> None:
    """Raise ValueError unless there is a group that this process belongs to."""
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            "group: torch.distributed is not initialised; start the program with torchrun and call "
            "torch.distributed.init_process_group('gloo'), or 'nccl' on CUDA, first"
        )
    if dist.get_rank(group) < 0:
        raise ValueError("group: this process does not belong to it")


def check_device(group: Group, device: torch.device) -> None:
    """Raise ValueError if the group's backend cannot send tensors of this device."""
    backend = dist.get_backend(group)
    if backend == "nccl" and device.type != "cuda":
        raise ValueError(
            f"A: expected on cuda for a group of backend nccl, got {device}; move it with "
            ".to('cuda'), or make the group with backend 'gloo'"
        )


def told(group: Group, message: Any) -> list[Any]:
    """What each process said, in the order of ranks."""
    messages: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(messages, message, group=group)
    return messages


def together(group: Group, function: Callable[[], Result]) -> Result:
    """What the function returns, which looks only at what is here, if it raises in no process.

    Otherwise the process where it does raises that error, and the others a ValueError that names
    the process, so that none waits for another.
    """
    try:
        result = function()
    except (TypeError, ValueError) as error:
        told(group, str(error))
        raise
    for rank, error in enumerate(told(group, None)):
        if error is not None:
            raise ValueError(f"process {rank} of the group: {error}")
    return result


def send_to_all(group: Group, rows: Tensor, sent: list[int], received: list[int]) -> Tensor:
    """Rows (sum(sent), k) to the processes in turn; the rows (sum(received), k) from them.

    They travel as bytes, which every backend sends whatever the dtype.
    """
    k = rows.shape[1]
    arrived = rows.new_empty(sum(received), k)
    if k:
        dist.all_to_all_single(
            arrived.view(torch.uint8),
            rows.contiguous().view(torch.uint8),
            received,
            sent,
            group=group,
        )
    return arrived
