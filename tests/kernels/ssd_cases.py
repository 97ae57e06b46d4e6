"""Random arguments of the scan, the reference in float64, and errors without a scale."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsetorch_kernels.ssd import reference

NAMES = ("x", "dt", "A", "B", "C", "D", "initial_state")
# Of one result, in the dtype of the arguments; sums are made in float32 at least.
TOLERANCE = {
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
    torch.float32: 2e-6,
    torch.float64: 1e-12,
}
# batch, length, heads, head dim, groups, state, chunk
SIZES = {
    "a rest": (2, 21, 4, 5, 2, 3, 8),
    "whole chunks": (1, 24, 6, 4, 3, 8, 8),
    "one position": (2, 1, 2, 3, 1, 4, 4),
    "nothing": (2, 0, 2, 3, 1, 4, 4),
    "one head": (1, 7, 1, 8, 1, 2, 16),
    "as many groups as heads": (1, 9, 3, 2, 3, 5, 4),
    "chunks of one": (1, 5, 2, 3, 1, 2, 1),
    "no state": (1, 5, 2, 3, 1, 0, 2),
    "no batch": (0, 5, 2, 3, 1, 2, 2),
    "long": (1, 300, 2, 16, 1, 16, 128),
}


def draw(size: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """x, dt, A, B, C, D and a first state; dt, A and the state as wide as they may be."""
    batch, length, heads, head_dim, groups, state, _ = size
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    wide = torch.float64 if dtype == torch.float64 else torch.float32
    drawn = [
        normal(batch, length, heads, head_dim).to(dtype),
        F.softplus(normal(batch, length, heads) - 2).to(wide),
        -normal(heads).exp().mul(2).to(wide),
        normal(batch, length, groups, state).to(dtype),
        normal(batch, length, groups, state).to(dtype),
        normal(heads).to(dtype),
        normal(batch, heads, head_dim, state).to(wide),
    ]
    return [t.requires_grad_() for t in drawn]


def documents(batch: int, length: int, seed: int = 0) -> Tensor:
    """Three documents or so in each row; their numbers have gaps."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(batch, length, generator=generator) < 3 / max(length, 1)
    return 3 * starts.long().cumsum(1)


def expected(arguments: list[Tensor], seq_idx: Tensor | None, grad_y, grad_final):
    """y, the last state and all gradients, from the definition in float64."""
    wide = [t.detach().double().requires_grad_() for t in arguments]
    y, final = reference.ssd_scan(*wide, seq_idx_BL=seq_idx)
    pairs = [(r, g.double()) for r, g in ((y, grad_y), (final, grad_final)) if r.requires_grad]
    results, grads = zip(*pairs)
    return y, final, torch.autograd.grad(results, wide, grads, allow_unused=True)


def error(got: Tensor, want: Tensor) -> float:
    """rms(want - got) / rms(want)."""
    assert got.shape == want.shape
    if want.numel() == 0:
        return 0.0
    got, want = got.detach().double(), want.detach()
    return float((got - want).square().mean().sqrt() / (want.square().mean().sqrt() + 1e-30))
