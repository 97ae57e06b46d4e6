"""Attention between the rows of two members of a batch, for many pairs of members, without padding.

For a pair (v, w) with keys K and features X of m and n rows,

    S = K_v K_w^T,   Y_v = softmax(S, rows) X_w,   Y_w = softmax(S, columns)^T X_v

One matrix of scores serves both directions. The plain form is `cross_attend_reference`; the CPU
goes pair by pair, with small products that fit in cache and a derivative that keeps nothing but the
results; other devices take pairs of about the same size together, in bounded memory, and keep no
more.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from graphnets.ragged import Ragged
from sparsetorch_kernels import as_given

SMALLEST = 16  # rows of the smallest bucket
AT_ONCE = 1 << 24
"""Numbers of a bucket at once, scores or padded rows: enough to keep a GPU busy, and 64 MiB in
float32, some ten times that with what is made of them. A single pair may have more."""


class Attended(NamedTuple):
    """What the members of pairs see of each other; row p is of pair p."""

    first: Ragged  # values (sum of the first members' rows, d)
    second: Ragged


def cross_attend(ptr: Tensor, keys: Tensor, features: Tensor, pairs: Tensor) -> Attended:
    """For each pair what either member attends to in the other.

    Args:
        ptr: (members + 1,) int64; member v has rows ptr[v] to ptr[v + 1] of keys and features, at
            least one.
        keys: (n, h), of the dtype of features.
        features: (n, d).
        pairs: (k, 2) int64 members; a member may come in many pairs, and with itself.

    Returns:
        Features attended to, for the rows of each pair's first and second members. Derivatives with
        respect to keys and features by autograd, first ones only on the CPU; not by torch.func,
        which knows no checkpoints.

    Raises:
        ValueError: shapes do not fit, a member does not exist or has no row.
    """
    _check(ptr, keys, features, pairs)
    lengths = ptr.diff()[pairs]
    shape = [torch.cat([n.new_zeros(1), n.cumsum(0)]) for n in lengths.unbind(1)]
    if not len(pairs):
        empty = features.new_zeros(0, features.shape[1])
        return Attended(Ragged(shape[0], empty), Ragged(shape[1], empty))
    attend = _PairByPair.apply if keys.is_cpu else _by_buckets
    with as_given(keys):
        first, second = attend(ptr, keys, features, pairs)
    return Attended(Ragged(shape[0], first), Ragged(shape[1], second))


def cross_attend_reference(
    ptr: Tensor, keys: Tensor, features: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition, pair by pair; values of the results of `cross_attend`."""
    first, second = [], []
    for v, w in pairs.tolist():
        rows_v, rows_w = slice(int(ptr[v]), int(ptr[v + 1])), slice(int(ptr[w]), int(ptr[w + 1]))
        scores = keys[rows_v] @ keys[rows_w].T
        first.append(scores.softmax(1) @ features[rows_w])
        second.append(scores.softmax(0).T @ features[rows_v])
    return torch.cat(first), torch.cat(second)


class _PairByPair(torch.autograd.Function):
    """`cross_attend` on the CPU."""

    @staticmethod
    def forward(
        ctx: Any, ptr: Tensor, keys: Tensor, features: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        members = _slices(ptr)
        places = _places(ptr, pairs)
        width = features.shape[1]
        first = features.new_empty(places[-1][1], width)
        second = features.new_empty(places[-1][3], width)
        for (v, w), (a, b, c, d) in zip(pairs.tolist(), places):
            rows_v, rows_w = members[v], members[w]
            scores = keys[rows_v] @ keys[rows_w].T
            torch.mm(scores.softmax(1), features[rows_w], out=first[a:b])
            torch.mm(scores.softmax(0).T, features[rows_v], out=second[c:d])
        ctx.save_for_backward(ptr, keys, features, pairs, first, second)
        return first, second

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_first: Tensor, to_second: Tensor) -> tuple[Tensor | None, ...]:
        ptr, keys, features, pairs, *results = ctx.saved_tensors
        with as_given(keys):
            found = _gradients(ptr, keys, features, pairs, *zip(results, (to_first, to_second)))
        return None, *found, None


def _gradients(
    ptr: Tensor,
    keys: Tensor,
    features: Tensor,
    pairs: Tensor,
    of_first: tuple[Tensor, Tensor],
    of_second: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """The gradients of keys and features, from either result and its gradient."""
    (first, to_first), (second, to_second) = of_first, of_second
    members, places = _slices(ptr), _places(ptr, pairs)
    to_keys, to_features = torch.zeros_like(keys), torch.zeros_like(features)
    # The part of softmax's derivative that is one number a row: (G . Y), for all rows at once.
    along_rows = (to_first * first).sum(1, keepdim=True)
    along_columns = (to_second * second).sum(1)
    for (v, w), (a, b, c, d) in zip(pairs.tolist(), places):
        rows_v, rows_w = members[v], members[w]
        K_v, K_w, X_v, X_w = keys[rows_v], keys[rows_w], features[rows_v], features[rows_w]
        G_v, G_w = to_first[a:b], to_second[c:d]
        scores = K_v @ K_w.T
        by_row, by_column = scores.softmax(1), scores.softmax(0)
        to_features[rows_w].addmm_(by_row.T, G_v)
        to_features[rows_v].addmm_(by_column, G_w)
        to_scores = (G_v @ X_w.T).sub_(along_rows[a:b]).mul_(by_row)
        to_scores += (X_v @ G_w.T).sub_(along_columns[c:d]).mul_(by_column)
        to_keys[rows_v].addmm_(to_scores, K_w)
        to_keys[rows_w].addmm_(to_scores.T, K_v)
    return to_keys, to_features


def _slices(ptr: Tensor) -> list[slice]:
    bounds: list[int] = ptr.tolist()
    return [slice(a, b) for a, b in pairwise(bounds)]


def _places(ptr: Tensor, pairs: Tensor) -> list[list[int]]:
    """Where the rows of each pair begin and end in the two results: (a, b, c, d)."""
    ends = ptr.diff()[pairs].cumsum(0)
    begins = ends - ptr.diff()[pairs]
    return torch.stack([begins[:, 0], ends[:, 0], begins[:, 1], ends[:, 1]], 1).tolist()


def _by_buckets(
    ptr: Tensor, keys: Tensor, features: Tensor, pairs: Tensor
) -> tuple[Tensor, Tensor]:
    """`cross_attend` elsewhere."""
    lengths = ptr.diff()[pairs]
    begins = lengths.cumsum(0) - lengths
    totals: list[int] = lengths.sum(0).tolist()
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    places: tuple[list[Tensor], list[Tensor]] = ([], [])
    for size, some in _buckets(lengths, keys.shape[1] + features.shape[1]):
        rows, present = [], []
        for side in range(2):
            offset = torch.arange(size[side], device=ptr.device)
            present.append(offset < lengths[some, side, None])
            rows.append(torch.where(present[side], ptr[pairs[some, side], None] + offset, 0))
            places[side].append((begins[some, side, None] + offset)[present[side]])
        # The backward computes the scores again: if kept, those of all buckets would add up.
        found: Any = checkpoint(
            _padded, keys, features, rows, present, use_reentrant=False, preserve_rng_state=False
        )
        for side in range(2):
            parts[side].append(found[side])
    first, second = (
        features.new_zeros(total, features.shape[1]).index_copy(
            0, torch.cat(where), torch.cat(part)
        )
        for total, where, part in zip(totals, places, parts)
    )
    return first, second


def _buckets(lengths: Tensor, width: int) -> Iterator[tuple[list[int], Tensor]]:
    """Pairs whose members have about as many rows (k, 2): powers of two for both, and which pairs.

    A bucket whose scores, or whose padded rows of this width, are more than `AT_ONCE` is split.
    """
    sizes = SMALLEST * 2 ** (lengths.double() / SMALLEST).log2().ceil().clamp(min=0).long()
    for size in sizes.unique(dim=0):
        bucket = (sizes == size).all(1).nonzero()[:, 0]
        numbers = max(int(size.prod()), int(size.sum()) * width)
        for some in bucket.split(max(1, AT_ONCE // numbers)):
            yield size.tolist(), some


def _padded(
    keys: Tensor, features: Tensor, rows: list[Tensor], present: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Both results of pairs of a size, whose rows (p, size) are `present` or padding."""
    # Padding is zero, not some row: that of another member may be infinite or NaN.
    K_v, K_w, X_v, X_w = (
        x[row].masked_fill(~there[:, :, None], 0)
        for x in (keys, features)
        for row, there in zip(rows, present)
    )
    scores = K_v @ K_w.mT
    # Each softmax leaves out the padding that it adds over; that of rows of padding is not read.
    by_row = scores.masked_fill(~present[1][:, None], -torch.inf).softmax(2)
    by_column = scores.masked_fill(~present[0][:, :, None], -torch.inf).softmax(1)
    return (by_row @ X_w)[present[0]], (by_column.mT @ X_v)[present[1]]


def _check(ptr: Tensor, keys: Tensor, features: Tensor, pairs: Tensor) -> None:
    if keys.ndim != 2 or features.ndim != 2 or len(keys) != len(features):
        raise ValueError(
            "keys and features: expected (n, h) and (n, d), got "
            f"{tuple(keys.shape)} and {tuple(features.shape)}"
        )
    if keys.dtype != features.dtype:
        raise ValueError(
            f"keys and features: expected one dtype, got {keys.dtype} and {features.dtype}"
        )
    if ptr.ndim != 1 or len(ptr) < 1 or int(ptr[0]) != 0 or int(ptr[-1]) != len(features):
        raise ValueError(f"ptr: expected to rise from 0 to {len(features)}, the number of rows")
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise ValueError(
            f"pairs: expected int64 of shape (k, 2), got {pairs.dtype} of shape "
            f"{tuple(pairs.shape)}"
        )
    members = len(ptr) - 1
    if len(pairs) and not 0 <= int(pairs.min()) <= int(pairs.max()) < members:
        raise ValueError(
            f"pairs: expected members from 0 to {members - 1}, got {int(pairs.min())} to "
            f"{int(pairs.max())}"
        )
    empty = pairs[(ptr.diff()[pairs] < 1).any(1)]
    if len(empty):
        raise ValueError(
            f"pairs: a member of ({int(empty[0, 0])}, {int(empty[0, 1])}) has no row to attend to; "
            "leave such pairs out"
        )
