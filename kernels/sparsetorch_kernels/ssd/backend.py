"""Which implementation of the scan runs: Triton on CUDA, else products of matrices in PyTorch."""

from torch import Tensor

from sparsetorch_kernels.ssd import gemm, gemm_backward
from sparsetorch_kernels.ssd.gemm import Arguments
from sparsetorch_kernels.ssd.gemm_backward import Gradients

# Longer chunks cost more than the passing on of states that they save, on a CPU's core.
LONGEST_CHUNK = 64


def forward(
    arguments: Arguments, initial_state: Tensor | None, chunk_size: int, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `gemm.forward`; chunks of the length that `chunk_length` tells."""
    x = arguments.x_BLHP
    chunk = chunk_length(x, chunk_size)
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
    return gemm_backward.backward(arguments, decayed, states, grad_y, grad_final_state, chunk)


def chunk_length(x: Tensor, chunk_size: int) -> int:
    """The chunks that are used where the caller asks for chunk_size: the fastest up to it."""
    return min(chunk_size, LONGEST_CHUNK)
