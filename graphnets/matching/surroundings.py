"""What devices' neighbours say of a pair: cosines of expanded vectors, and how crowded it is there.

Devices are nodes of a graph whose edges are their cosines. Only products of devices' vectors are
needed, never the vectors: adding to each vector those of its neighbours is a product of the matrix
of all cosines with a sparse one from both sides. All of it is differentiable, but for which
neighbours are nearest.
"""

from __future__ import annotations

import torch
from torch import Tensor

SMALL = 0.02  # added to cosines before logarithms
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
    """Mean cosine of each device with its k nearest among devices of another's kind, (n, n).

    Entry (i, j) is that of i among devices of the kind of j; absent neighbours count as zero. In a
    crowded place all cosines are high: CSLS, A. Conneau et al., ICLR 2018.
    """
    n = len(cosines)
    others = cosines - torch.diag(cosines.diagonal())
    found = torch.zeros_like(cosines)
    for kind in kinds.unique():
        of_kind = kinds == kind
        near = (others * of_kind).topk(min(k, n), 1).values.sum(1) / k
        found = torch.where(of_kind, near[:, None], found)
    return found


@torch.no_grad()
def places(cosines: Tensor, kinds: Tensor) -> Tensor:
    """How many devices of the kind of j are nearer to i than j is, (n, n)."""
    n = len(cosines)
    alone = torch.eye(n, dtype=torch.bool, device=cosines.device)
    found = torch.zeros_like(cosines)
    for kind in kinds.unique():
        of_kind = kinds == kind
        ranked = cosines.masked_fill(alone | ~of_kind, -1.0).argsort(1, descending=True)
        found = torch.where(of_kind, ranked.argsort(1).to(cosines.dtype), found)
    return found


def surroundings(cosines: Tensor, kinds: Tensor) -> Tensor:
    """Six numbers for each pair from the matrix of all cosines, (n, n, 6), symmetric.

    The cosine and its logarithm; the cosine less the mean crowding of both, also of logarithms; the
    logarithms of the better and the worse place among each other's neighbours.
    """
    crowd = crowding(cosines, kinds)
    log_cosine, log_crowd = (cosines + SMALL).log(), (crowd + SMALL).log()
    place = places(cosines, kinds).log1p() / 4
    columns = [
        cosines,
        log_cosine / 3,
        cosines - (crowd + crowd.T) / 2,
        (log_cosine - (log_crowd + log_crowd.T) / 2) / 2,
        torch.minimum(place, place.T),
        torch.maximum(place, place.T),
    ]
    return torch.stack(columns, -1)
