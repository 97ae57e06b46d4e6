"""From pairs to users by correlation clustering: the clusters that agree most with the log-odds.

Every pair of one cluster adds its weight; the clusters of the largest sum are wanted. With log-odds
as weights, and if pairs were independent, these are the most likely clusters. N. Bansal, A. Blum,
S. Chawla, Machine Learning 56 (2004); the number of clusters is found, not given. The problem is
NP-hard; here two heuristics take turns until neither finds more: greedy additive edge contraction
(M. Keuper, E. Levinkov, N. Bonneel, G. Lavoué, T. Brox, B. Andres, *Efficient decomposition of
image and mesh graphs by lifted multicuts*, ICCV 2015, algorithm 1), and moves of single devices.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from itertools import pairwise

import torch
from torch import Tensor

from graphnets.matching.clustering import (
    check_pair_values,
    connected_components,
    numbered_by_first,
)
from graphnets.matching.pairs import canonical_pairs, checked_pairs, keys

Graph = list[dict[int, float]]  # weight of each neighbour, both ways


def correlation_clustering(
    n_devices: int, pairs: Tensor, weights: Tensor, missing: float = 0.0
) -> Tensor:
    """The user of each device: clusters (n_devices,) int64, from 0, of large total weight inside.

    No join of two clusters and no move of a device, to another cluster or to one of its own, adds
    to `correlation_objective` of the result. Users are numbered by their first devices. The same
    pairs in any order give the same users. Runs on the host: a million pairs among 100 k devices
    take about half a minute where all of them are positive, and less than that as a rule.

    Args:
        n_devices: how many devices there are.
        pairs: (k, 2) int64.
        weights: (k,) float32 or float64, positive where both devices seem to be one user's:
            `probabilities.logit()`, less that of a threshold to be as strict as it is.
        missing: weight of each pair that is not in `pairs`, at most 0. With 0 chains of devices
            with nothing against them become one user; where the pairs are candidates, those that
            are none are most likely not one user's, and a negative number says so.

    Raises:
        TypeError: weights are not floating point.
        ValueError: an argument is not as described, or a weight is not finite.
    """
    check(n_devices, pairs, weights, missing)
    order = keys(pairs, n_devices).argsort()
    device, pairs, weights = pairs.device, pairs[order].cpu(), weights[order].cpu().double()
    excess = weights - missing
    # Clusters join where one of the pairs between them is positive, so only in these components.
    part = connected_components(n_devices, pairs[weights > 0])
    inside = part[pairs[:, 0]] == part[pairs[:, 1]]
    pairs, excess = pairs[inside], excess[inside]
    least = 1e-12 * float(weights.abs().max()) if len(weights) else 0.0  # above rounding
    devices = adjacency(n_devices, pairs, excess)
    clusters = torch.arange(n_devices)
    while True:
        clusters = joined(clusters, pairs, excess, missing, least)
        labels: list[int] = clusters.tolist()
        if not move_devices(devices, labels, missing, least):
            return clusters.to(device)
        clusters = numbered_by_first(torch.tensor(labels))


def correlation_objective(
    clusters: Tensor, pairs: Tensor, weights: Tensor, missing: float = 0.0
) -> float:
    """The total weight of the pairs of devices that share a cluster, which is to be large.

    Minus the cost of the multicut that separates the clusters, but for a constant.

    Args:
        clusters: (n,) int64.
        pairs, weights, missing: as for `correlation_clustering`.

    Raises:
        TypeError, ValueError: as `correlation_clustering`.
    """
    if clusters.ndim != 1 or clusters.dtype != torch.int64:
        raise ValueError(
            f"clusters: expected int64 of shape (n,), got {clusters.dtype} of shape "
            f"{tuple(clusters.shape)}"
        )
    check(len(clusters), pairs, weights, missing)
    inside = clusters[pairs[:, 0]] == clusters[pairs[:, 1]]
    size = clusters.unique(return_counts=True)[1].double()
    given = (weights[inside].double() - missing).sum()
    return float(given + missing * (size * (size - 1) / 2).sum())


def joined(clusters: Tensor, pairs: Tensor, excess: Tensor, missing: float, least: float) -> Tensor:
    """The clusters (n,), numbered by first devices, after joins that add the most weight."""
    count = int(clusters.max()) + 1 if len(clusters) else 0
    between = clusters[pairs]
    apart = between[:, 0] != between[:, 1]
    linked, owner = keys(between[apart].sort(1).values, count).unique(return_inverse=True)
    total = torch.bincount(owner, excess[apart], minlength=len(linked))
    ends = torch.stack([linked // max(count, 1), linked % max(count, 1)], 1)
    graph = adjacency(count, ends, total)
    sizes: list[int] = torch.bincount(clusters, minlength=count).tolist()
    joins = contract(graph, sizes, missing, least)
    if not joins:
        return clusters
    return connected_components(count, canonical_pairs(torch.tensor(joins), count))[clusters]


def contract(graph: Graph, sizes: list[int], missing: float, least: float) -> list[tuple[int, int]]:
    """Join the two nodes whose join adds the most, until none adds more than `least`.

    Keuper et al. (2015), algorithm 1. Both arguments are used up. A heap entry may be out of date,
    but is never too low: a gain grows only where a positive weight is added, which is pushed anew;
    one that has fallen is found when it comes up.
    """
    heap = [
        (-gain, i, j)
        for i, row in enumerate(graph)
        for j, weight in row.items()
        if i < j and (gain := weight + missing * sizes[i] * sizes[j]) > least
    ]
    heapify(heap)
    joins: list[tuple[int, int]] = []
    while heap:
        lost, i, j = heappop(heap)
        if j not in graph[i]:
            continue
        gain = graph[i][j] + missing * sizes[i] * sizes[j]
        if gain < -lost:
            if gain > least:
                heappush(heap, (-gain, i, j))
            continue
        if len(graph[i]) < len(graph[j]):
            i, j = j, i
        joins.append((i, j))
        sizes[i] += sizes[j]
        kept, gone = graph[i], graph[j]
        del kept[j], gone[i]
        for k, weight in gone.items():
            row = graph[k]
            del row[j]
            kept[k] = row[i] = total = kept.get(k, 0.0) + weight
            gain = total + missing * sizes[i] * sizes[k]
            if weight > 0 and gain > least:
                heappush(heap, (-gain, i, k))
        graph[j] = {}
    return joins


def move_devices(graph: Graph, labels: list[int], missing: float, least: float) -> bool:
    """Move devices between clusters, in `labels`, until no move adds more than `least`.

    A device whose neighbour moved is looked at again at once, and in the end all are: with a weight
    for missing pairs, moves change what all others of a cluster gain. Returns whether any moved.
    """
    sizes = [0] * len(graph)
    for label in labels:
        sizes[label] += 1
    moved = False
    while True:
        settled = True
        queue = deque(i for i, row in enumerate(graph) if row)
        queued = bytearray(b"\1") * len(graph)
        while queue:
            i = queue.popleft()
            queued[i] = 0
            own = labels[i]
            gain, to = best_move(graph[i], own, labels, sizes, missing)
            if gain <= least:
                continue
            settled = False
            if to == len(sizes):
                sizes.append(0)
            labels[i] = to
            sizes[own] -= 1
            sizes[to] += 1
            for j in graph[i]:
                if not queued[j]:
                    queued[j] = 1
                    queue.append(j)
        if settled:
            return moved
        moved = True


def best_move(
    row: dict[int, float], own: int, labels: list[int], sizes: list[int], missing: float
) -> tuple[float, int]:
    """What a device in cluster `own`, with neighbours `row`, gains by its best move, and where to.

    A new cluster, for the device alone, has the number `len(sizes)`.
    """
    links: dict[int, float] = {}
    for j, weight in row.items():
        label = labels[j]
        links[label] = links.get(label, 0.0) + weight
    stay = links.pop(own, 0.0) + missing * (sizes[own] - 1)
    best, to = 0.0, len(sizes)
    for label, weight in links.items():
        total = weight + missing * sizes[label]
        if total > best:
            best, to = total, label
    return best - stay, to


def adjacency(n: int, pairs: Tensor, weights: Tensor) -> Graph:
    """The neighbours of each of n nodes with their weights, from pairs (k, 2) that come once."""
    row, col = torch.cat([pairs, pairs.flip(1)]).unbind(1)
    order = row.argsort(stable=True)
    ends: list[int] = torch.bincount(row, minlength=n).cumsum(0).tolist()
    cols: list[int] = col[order].tolist()
    values: list[float] = weights.repeat(2)[order].tolist()
    return [dict(zip(cols[a:b], values[a:b])) for a, b in pairwise([0, *ends])]


def check(n_devices: int, pairs: Tensor, weights: Tensor, missing: float) -> None:
    """Raise TypeError or ValueError unless these make a problem of correlation clustering."""
    checked_pairs(pairs, n_devices)
    check_pair_values("weights", weights, pairs)
    if not bool(weights.isfinite().all()):
        raise ValueError(
            "weights: expected finite numbers, got infinite ones; the log-odds of probabilities 0 "
            "and 1 are: probabilities.clamp(1e-6, 1 - 1e-6).logit()"
        )
    if not -float("inf") < missing <= 0:
        raise ValueError(f"missing: expected a number of at most 0, got {missing}")
