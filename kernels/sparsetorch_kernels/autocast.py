"""What `torch.autocast` must not round: what is given, or made, in float32 to be added up in it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocasts(x: Tensor) -> bool:
    """Whether autocast is on for the device of a tensor."""
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)


def as_given(x: Tensor) -> AbstractContextManager:
    """Where operators compute in the dtype of their operands, also under autocast."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()
