"""What devices' neighbours say of a pair: cosines of expanded vectors, and how crowded it is there.

Devices are nodes of a graph whose edges are their cosines. Only products of devices' vectors are
needed, never the vectors: adding to each vector those of its neighbours is a product of the matrix
of all cosines with a sparse one from both sides. All of it is differentiable, but for which
neighbours are nearest.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SMALL = 0.02  # added to cosines before logarithms
ENTRIES = 1 << 22  # of rows that are sorted at once
CROWD = 20  # neighbours whose mean cosine says how crowded a place is


def expanded(cosines: Tensor, kinds: Tensor, strength: Tensor, k: int = 3) -> Tensor:
    """Cosines of vectors to each of which its k nearest of the same kind are added, by cosine.

    With M = I + s S, S the cosines of each device's k nearest of its kind, M C M^T scaled to a unit
    diagonal. Query expansion: O. Chum et al., ICCV 2007.

    Args:
        cosines: (n, n) symmetric, of unit vectors.
        kinds: (n,) int64.
        strength: scalar s.
        k: neighbours, if there are so many.
    """
    n = len(cosines)
    alone = torch.eye(n, dtype=torch.bool, device=cosines.device)
    of_kind = (kinds[:, None] == kinds[None]) & ~alone
    near, index = cosines.masked_fill(~of_kind, -1.0).topk(min(k, n), 1)
    M = torch.eye(n, dtype=cosines.dtype, device=cosines.device)
    M = M.scatter_add(1, index, near.clamp(min=0) * strength)
    product = M @ cosines @ M.T
    scale = product.diagonal().clamp(min=1e-9).rsqrt()
    return product * scale[:, None] * scale


def crowding(cosines: Tensor, kinds: Tensor, k: int = CROWD) -> Tensor:
    """Mean cosine of each device with its k nearest of each kind, (n, number of kinds).

    Columns are those of `kinds.unique()`; absent neighbours count as zero. In a crowded place all
    cosines are high: CSLS, A. Conneau et al., ICLR 2018.
    """
    number = torch.arange(len(cosines), device=cosines.device)
    found = []
    for kind in kinds.unique():
        of_kind = (kinds == kind).nonzero()[:, 0]
        others = cosines[:, of_kind].masked_fill(number[:, None] == of_kind, 0.0)
        found.append(others.topk(min(k, len(of_kind)), 1).values.sum(1) / k)
    return torch.stack(found, 1)


@torch.no_grad()
def places(cosines: Tensor, kinds: Tensor) -> Tensor:
    """How many devices of the kind of j are nearer to i than j is, (n, n) int32.

    Of equally near ones that with the smaller number counts as nearer.
    """
    n = len(cosines)
    found = torch.zeros(n, n, dtype=torch.int32, device=cosines.device)
    number = torch.arange(n, device=cosines.device)
    of_kinds = [(kinds == kind).nonzero()[:, 0] for kind in kinds.unique()]
    for rows in number.split(max(1, ENTRIES // max(n, 1))):
        for of_kind in of_kinds:
            others = cosines[rows[:, None], of_kind].masked_fill(rows[:, None] == of_kind, -1.0)
            order = others.argsort(dim=1, descending=True, stable=True)
            rank = torch.arange(len(of_kind), device=order.device).expand_as(order)
            rank = torch.zeros_like(order).scatter_(1, order, rank)
            found[rows[:, None], of_kind] = rank.int()
    return found


class Place(NamedTuple):
    """Where n devices are among each other: all that `surroundings` looks at.

    Attributes:
        cosines: (n, n), of unit vectors.
        crowd: (n, number of kinds), see `crowding`.
        rank: (n, n) int32, see `places`.
    """

    cosines: Tensor
    crowd: Tensor
    rank: Tensor


def place(cosines: Tensor, kinds: Tensor) -> Place:
    """From all cosines (n, n) and kinds (n,) int64."""
    return Place(cosines, crowding(cosines, kinds), places(cosines, kinds))


def surroundings(among: Place, kinds: Tensor, pairs: Tensor) -> Tensor:
    """Six numbers for each pair (k, 2), (k, 6), the same for either order.

    The cosine and its logarithm; the cosine less the mean crowding of both, also of logarithms; the
    logarithms of the better and the worse place among each other's neighbours.
    """
    i, j = pairs.unbind(1)
    kind = kinds.unique(return_inverse=True)[1]
    cosine = among.cosines[i, j]
    crowd = torch.stack([among.crowd[i, kind[j]], among.crowd[j, kind[i]]])
    log_cosine, log_crowd = (cosine + SMALL).log(), (crowd + SMALL).log()
    rank = torch.stack([among.rank[i, j], among.rank[j, i]]).to(cosine.dtype).log1p() / 4
    columns = [
        cosine,
        log_cosine / 3,
        cosine - crowd.sum(0) / 2,
        (log_cosine - log_crowd.sum(0) / 2) / 2,
        rank.amin(0),
        rank.amax(0),
    ]
    return torch.stack(columns, 1)
