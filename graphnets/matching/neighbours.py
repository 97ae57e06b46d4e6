"""The k nearest other devices of each device by the scalar product of their vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.extras import extra

EXACT = 50_000  # dense vectors; beyond that many, faiss is asked
SCORES = 1 << 25  # scores held at once
COMMON = 1 / 16  # columns of more devices are multiplied as dense ones, which is then faster
Among = Literal["other", "same"]


class Neighbours(NamedTuple):
    """Neighbours of n devices, the nearest first.

    Attributes:
        index: (n, k) int64, -1 where a device has fewer.
        score: (n, k) float32, NaN where index is -1.
    """

    index: Tensor
    score: Tensor


def nearest(
    vectors: Tensor | sp.csr_array,
    k: int,
    kinds: Tensor | None = None,
    among: Among = "other",
    exact: bool | None = None,
) -> Neighbours:
    """The k devices with the greatest scalar products, for unit rows the greatest cosines.

    Which of equally near ones come first, or at all, depends on their numbers: devices in another
    order may have other neighbours.

    Sparse vectors are searched exactly, and devices that share nothing are no neighbours; like
    scikit-learn's `NearestNeighbors(metric="cosine", algorithm="brute")`. Dense ones are searched
    exactly to 50,000, beyond that by faiss with an inverted file (J. Johnson, M. Douze, H. Jégou,
    IEEE Trans. Big Data 7 (2021)), which misses some.

    Args:
        vectors: (n, d) floating, of the devices; the search runs on the CPU.
        k: neighbours of each.
        kinds: (n,) int64; neighbours are then of another kind only, or of the same kind only.
        among: which of the two.
        exact: for dense vectors, whether to search exactly; by n when None.

    Raises:
        ValueError: k is below one, kinds are not n, vectors are not finite, or are sparse and
            `exact` is False.
        ImportError: faiss is needed and not installed.
    """
    n = vectors.shape[0]
    _check(vectors, k, kinds, exact)
    if isinstance(vectors, Tensor):
        vectors = vectors.detach().float().cpu().contiguous()
    index = torch.full((n, k), -1)
    score = torch.full((n, k), torch.nan)
    for queries, base in _groups(kinds, among, n):
        if not len(base):
            continue
        if not isinstance(vectors, Tensor):
            found, near = _sparse(vectors, queries, base, k)
        elif exact or (exact is None and n <= EXACT):
            found, near = _dense(vectors, queries, base, k)
        else:
            found, near = _faiss(vectors, queries, base, k)
        width = found.shape[1]
        index[queries, :width] = torch.where(near > -torch.inf, base[found], -1)
        score[queries, :width] = torch.where(near > -torch.inf, near, torch.nan)
    return Neighbours(index, score)


def _check(
    vectors: Tensor | sp.csr_array, k: int, kinds: Tensor | None, exact: bool | None
) -> None:
    if k < 1:
        raise ValueError(f"k: expected at least one neighbour, got {k}")
    if kinds is not None and kinds.shape != (vectors.shape[0],):
        raise ValueError(f"kinds: expected shape ({vectors.shape[0]},), got {tuple(kinds.shape)}")
    if isinstance(vectors, Tensor):
        finite = bool(vectors.isfinite().all())
    else:
        finite = bool(np.isfinite(vectors.data).all())
        if exact is False:
            raise ValueError("exact: sparse vectors are searched exactly only; leave it out")
    if not finite:
        raise ValueError("vectors: expected finite numbers, got NaN or infinity")


def _groups(kinds: Tensor | None, among: Among, n: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Devices that ask, and those they may find."""
    if kinds is None:
        yield torch.arange(n), torch.arange(n)
        return
    for kind in kinds.unique():
        own = kinds == kind
        base = own if among == "same" else ~own
        yield own.nonzero().squeeze(1), base.nonzero().squeeze(1)


def _sparse(vectors: sp.csr_array, queries: Tensor, base: Tensor, k: int) -> tuple[Tensor, Tensor]:
    common = np.bincount(vectors.indices, minlength=vectors.shape[1]) > COMMON * vectors.shape[0]
    head, tail = vectors[:, np.nonzero(common)[0]], vectors[:, np.nonzero(~common)[0]]
    heads = torch.from_numpy(head.toarray()).float()
    columns, rows = heads[base].T, sp.csr_array(tail[base.numpy()].T)

    def scores(block: Tensor) -> Tensor:
        dense = heads[block] @ columns
        dense += torch.from_numpy((tail[block.numpy()] @ rows).toarray())
        return dense.masked_fill_(dense <= 0, -torch.inf)

    return _top(scores, queries, base, k)


def _dense(vectors: Tensor, queries: Tensor, base: Tensor, k: int) -> tuple[Tensor, Tensor]:
    columns = vectors[base].T
    return _top(lambda block: vectors[block] @ columns, queries, base, k)


def _top(
    scores: Callable[[Tensor], Tensor], queries: Tensor, base: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Places in base (q, min(k, b)) and scores, -inf where there is none, block by block."""
    index, score = [], []
    for block in queries.split(max(1, SCORES // len(base))):
        near = scores(block)
        place = torch.searchsorted(base, block).clamp(max=len(base) - 1)
        own = (base[place] == block).nonzero().squeeze(1)
        near[own, place[own]] = -torch.inf
        top = near.topk(min(k, len(base)), dim=1)
        index.append(top.indices)
        score.append(top.values)
    return torch.cat(index), torch.cat(score)


def _faiss(vectors: Tensor, queries: Tensor, base: Tensor, k: int) -> tuple[Tensor, Tensor]:
    faiss = extra("faiss")
    stored = vectors[base].numpy()
    lists = max(1, min(int(4 * len(base) ** 0.5), len(base) // 39))  # faiss asks for 39 a list
    quantizer = faiss.IndexFlatIP(stored.shape[1])
    search = faiss.IndexIVFFlat(quantizer, stored.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    search.train(stored)
    search.add(stored)
    search.nprobe = max(8, lists // 32)
    score, index = search.search(vectors[queries].numpy(), min(k + 1, len(base)))
    near, found = torch.from_numpy(score), torch.from_numpy(index)
    near[(found < 0) | (base[found.clamp(min=0)] == queries[:, None])] = -torch.inf
    near, order = near.sort(dim=1, descending=True, stable=True)
    return found.gather(1, order).clamp(min=0)[:, :k], near[:, :k]
