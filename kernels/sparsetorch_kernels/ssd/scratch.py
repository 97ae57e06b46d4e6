"""Memory that the pieces of a computation use one after another.

A fresh allocation of megabytes costs more than what is computed into it: the system hands out its
pages one by one, at the first write to each. A buffer that is used again has been paid for, and
may still be in the cache.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch:
    """Buffers by name, of one dtype and device: a result is lost when its name is used again."""

    def __init__(self, like: Tensor, dtype: torch.dtype):
        self.dtype = dtype
        self._none = like.new_empty(0, dtype=dtype)
        self._buffers: dict[str, Tensor] = {}

    def empty(self, name: str, shape: Sequence[int]) -> Tensor:
        """A buffer of that shape, contiguous, whatever it holds."""
        size = math.prod(shape)
        buffer = self._buffers.get(name, self._none)
        if buffer.numel() < size:
            buffer = self._buffers[name] = self._none.new_empty(size)
        return buffer[:size].view(tuple(shape))

    def copy(self, name: str, t: Tensor) -> Tensor:
        """A contiguous copy of t in the scratch's dtype."""
        return self.empty(name, t.shape).copy_(t)

    def scaled(self, name: str, t: Tensor, factor: Tensor) -> Tensor:
        """t (..., P) times factor (...), contiguous whatever the strides of t."""
        return torch.mul(t, factor[..., None], out=self.empty(name, t.shape))

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        """a @ b, (..., I, J) times (..., J, K) of the same leading dimensions."""
        out = self.empty(name, (*a.shape[:-1], b.shape[-1]))
        torch.bmm(a.flatten(0, -3), b.flatten(0, -3), out=out.flatten(0, -3))
        return out

    def dot(self, a: Tensor, b: Tensor) -> Tensor:
        """The sums of a b over the last dimension."""
        shape = torch.broadcast_shapes(a.shape, b.shape)
        return torch.mul(a, b, out=self.empty("dot", shape)).sum(-1)
