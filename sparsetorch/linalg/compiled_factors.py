"""`Factorization.solve` inside compiled code: an operator that knows the factors by a number."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.linalg.described import numbered, object_of


def compiled_factored_solve(factors: object, b: Tensor, transpose: bool) -> Tensor:
    """`factors.solve(b, transpose)`, for factors made outside of compiled code; no gradients."""
    return torch.ops.sparsetorch.factored_solve(numbered(factors), b.detach(), transpose)


@torch.library.custom_op("sparsetorch::factored_solve", mutates_args=())
def _factored_solve(number: int, b: Tensor, transpose: bool) -> Tensor:
    return object_of(number).solve(b, transpose).contiguous()


@_factored_solve.register_fake
def _(number: int, b: Tensor, transpose: bool) -> Tensor:
    return b.new_empty(b.shape)
