"""Which implementation of the scan runs: Triton on CUDA, else products of matrices in PyTorch."""

import functools
import importlib.util
from types import ModuleType

import torch
from torch import Tensor

from sparsetorch_kernels.ssd import gemm, gemm_backward
from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.gemm_backward import Gradients

# On a CPU's core, longer chunks cost more than the passing on of states that they save; on a GPU
# they do not fit into the memory of a multiprocessor.
LONGEST_CHUNK = 64
LONGEST_CHUNK_ON_CUDA = 128
# Of the kernels: a program has all of a state's rows, and of a head's channels
WIDEST_STATE, WIDEST_HEAD = 256, 128


def forward(
    arguments: Arguments, initial_state: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `gemm.forward`; in chunks of at most the length that `chunk_length` tells."""
    chunk = chunk_length(arguments.x_BLHP, chunk_size)
    if (kernels := _kernels(arguments.x_BLHP, arguments.B_BLGN)) is not None:
        return kernels[0].forward(arguments, initial_state, chunk, keep)
    return gemm.forward(arguments, initial_state, chunk, keep)


def backward(
    arguments: Arguments,
    decayed: Tensor,
    states: Tensor,
    grad_y: Tensor,
    grad_final_state: Tensor,
    chunk_size: int,
) -> Gradients:
    """See `gemm_backward.backward`."""
    chunk = chunk_length(arguments.x_BLHP, chunk_size)
    kernels = _kernels(arguments.x_BLHP, arguments.B_BLGN)
    module = gemm_backward if kernels is None else kernels[1]
    return module.backward(arguments, decayed, states, grad_y, grad_final_state, chunk)


def chunk_length(x: Tensor, chunk_size: int) -> int:
    """The longest chunks that are used where the caller asks for chunk_size."""
    return min(chunk_size, LONGEST_CHUNK_ON_CUDA if x.is_cuda else LONGEST_CHUNK)


def kept(x: Tensor, B: Tensor, chunk_size: int) -> tuple[bool, int]:
    """Whether the forward keeps `decayed` for the backward, and how many states."""
    if _kernels(x, B) is not None:
        return False, 1
    return True, -(-x.shape[1] // chunk_length(x, chunk_size))


def _kernels(x: Tensor, B: Tensor) -> tuple[ModuleType, ModuleType] | None:
    """The Triton kernels, forward and backward, where they serve."""
    serve = x.numel() > 0 and 0 < B.shape[-1] <= WIDEST_STATE and x.shape[-1] <= WIDEST_HEAD
    return _triton() if serve and _wants_kernels(x) else None


def _wants_kernels(x: Tensor) -> bool:
    """The kernels know no float64."""
    return x.is_cuda and x.dtype != torch.float64


@functools.cache
def _triton() -> tuple[ModuleType, ModuleType] | None:
    if importlib.util.find_spec("triton") is None:
        return None  # normal for PyTorch's CPU builds
    from sparsetorch_kernels.ssd import triton, triton_backward

    return triton, triton_backward
