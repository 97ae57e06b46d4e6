"""What `torch.autocast` must not round: iterations would stagnate, and derivatives lose digits."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def in_full_precision(device: torch.device) -> torch.autocast:
    """Where `torch.autocast` is off."""
    return torch.autocast(device.type, enabled=False)


def full_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with `torch.autocast` off on the device of the first tensor that it gets."""

    @wraps(function)
    def exact(*args: Any) -> Any:
        device = next((arg.device for arg in args if isinstance(arg, Tensor)), torch.device("cpu"))
        with in_full_precision(device):
            return function(*args)

    return exact
