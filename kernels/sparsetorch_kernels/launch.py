"""Where Triton's kernels run."""

import contextlib

import torch
from torch import Tensor


def on_device_of(t: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(t.device) if t.is_cuda else contextlib.nullcontext()
