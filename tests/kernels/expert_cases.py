"""Experts and routes of awkward sizes for the tests of their kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparsetorch_kernels import Layout, transpose_structure


class Case(NamedTuple):
    """Sizes of one test."""

    tokens: int
    experts: int
    k: int
    width: int
    inner: int
    idle: int = 0  # experts that no token goes to


CASES = {
    "usual": Case(tokens=37, experts=8, k=3, width=16, inner=24),
    "idle experts": Case(tokens=9, experts=16, k=2, width=8, inner=16, idle=9),
    "no token": Case(tokens=0, experts=4, k=2, width=6, inner=8),
    "odd widths": Case(tokens=9, experts=4, k=2, width=5, inner=3, idle=1),
    "one of each": Case(tokens=1, experts=1, k=1, width=1, inner=1),
    "all experts": Case(tokens=6, experts=5, k=5, width=33, inner=17),
    "wide": Case(tokens=5, experts=2, k=1, width=140, inner=131),
    "long groups": Case(tokens=150, experts=2, k=1, width=7, inner=9),
}


class Experts(NamedTuple):
    """Arguments of `routed_mlp`."""

    layout: Layout
    gate: Tensor
    x: Tensor
    up: Tensor
    down: Tensor

    def to(self, dtype: torch.dtype) -> "Experts":
        """Those values in a dtype, exactly: they are those of bfloat16; leaves of autograd."""
        wide = torch.promote_types(dtype, torch.float32)
        dtypes = (wide, dtype, dtype, dtype)
        leaves = (t.detach().to(d).requires_grad_() for t, d in zip(self[1:], dtypes))
        return Experts(self.layout, *leaves)

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        return self[1:]


NAMES = ("gate", "x", "up", "down")  # of the leaves


def experts(case: Case, index: torch.dtype = torch.int32) -> Experts:
    """Float64 values that bfloat16 and float16 hold exactly."""
    generator = torch.Generator().manual_seed(0)
    n, e, k = case.tokens, case.experts, case.k
    scores = torch.rand(n, e, generator=generator)
    scores[:, e - case.idle :] = -1
    expert = scores.topk(k).indices.sort(1).values.flatten().to(index)
    crow = torch.arange(n + 1, dtype=index) * k
    t_crow, t_col, t_perm = transpose_structure(crow, expert, e)
    place = torch.empty_like(t_perm)
    place[t_perm.long()] = torch.arange(n * k, dtype=index)
    layout = Layout(t_crow, t_col, None, crow, expert, place, e, n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).bfloat16().double()

    values = (normal(n * k).abs(), normal(n, case.width))
    weights = (normal(e, case.inner, case.width), normal(e, case.width, case.inner))
    return Experts(layout, *values, *weights)
