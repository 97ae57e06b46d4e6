"""What a device's neighbours tell: its vector with theirs added, and how crowded its place is."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.counts import unit_rows
from graphnets.matching.neighbours import Neighbours
from graphnets.matching.products import pair_cosines


def expanded(vectors: sp.csr_array, found: Neighbours) -> sp.csr_array:
    """Vectors with those of their neighbours added, each by its score, (n, d) of unit rows.

    A short log borrows what its neighbours visit; no label is needed. Query expansion (O. Chum et
    al., ICCV 2007) of all rows, weighted by scores (F. Radenović, G. Tolias, O. Chum, TPAMI 41
    (2019), with alpha = 1). It holds up to 1 + k times as many entries.

    Raises:
        ValueError: `found` is not of these vectors.
    """
    n = vectors.shape[0]
    _check(n, found)
    row, place = (found.index >= 0).nonzero().unbind(1)
    column, weight = found.index[row, place].numpy(), found.score[row, place].numpy()
    neighbours = sp.coo_array((weight, (row.numpy(), column)), shape=(n, n))
    result = sp.csr_array(vectors + sp.csr_array(neighbours) @ vectors)
    result.sort_indices()
    return unit_rows(result)


def rescored(found: Neighbours, vectors: sp.csr_array) -> Neighbours:
    """The same neighbours by the scalar products of other vectors (n, d), the nearest first.

    Raises:
        ValueError: `found` is not of these vectors.
    """
    _check(vectors.shape[0], found)
    row, place = (found.index >= 0).nonzero().unbind(1)
    score = torch.full_like(found.score, -torch.inf)
    pairs = torch.stack([row, found.index[row, place]], 1)
    score[row, place] = pair_cosines(vectors, pairs)
    score, order = score.sort(dim=1, descending=True, stable=True)
    return Neighbours(found.index.gather(1, order), score.masked_fill(score == -torch.inf, np.nan))


def crowding(found: Neighbours, k: int) -> Tensor:
    """Mean score of the k nearest neighbours, (n,) float32; those that are absent count as zero.

    Scores of a device in a crowded place are high with everyone's: `2 s_ij - c_i - c_j` makes
    devices comparable (CSLS of A. Conneau et al., ICLR 2018), as does `s_ij / sqrt(c_i c_j)` (after
    L. Zelnik-Manor, P. Perona, NeurIPS 2004).
    """
    return found.score[:, :k].nan_to_num(0).sum(1) / k


def ranks(found: Neighbours, pairs: Tensor) -> Tensor:
    """The places of the devices of pairs (p, 2) int64 among each other's neighbours, (p, 2) int64.

    Column 0 is the second device's place among the neighbours of the first, column 1 the other way
    round; 0 for the nearest, k where it is not among them.
    """
    n, k = found.index.shape
    row, place = (found.index >= 0).nonzero().unbind(1)
    known, order = (row * n + found.index[row, place]).sort()
    place = torch.cat([place[order], torch.tensor([k])])
    result = []
    for a, b in ((0, 1), (1, 0)):
        wanted = pairs[:, a] * n + pairs[:, b]
        at = torch.searchsorted(known, wanted)
        hit = at < len(known)
        hit[hit.clone()] = known[at[hit]] == wanted[hit]
        result.append(place[torch.where(hit, at, len(known))])
    return torch.stack(result, 1)


def _check(n: int, found: Neighbours) -> None:
    if len(found.index) != n:
        raise ValueError(f"found: expected neighbours of {n} devices, got {len(found.index)}")
