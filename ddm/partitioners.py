"""What splits a graph of nodes into parts: METIS, Lloyd aggregation, bisection of coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from ddm.extras import extra
from ddm.pieces import pieces

FEW_WRONG = 0.01
"""Of the parts: so many empty ones and pieces are repaired without a second partition."""


def lloyd(graph: sp.csr_array, n_parts: int, seed: int = 0) -> np.ndarray:
    """Owner of each node, (n,), by PyAMG's Lloyd aggregation with unit distances.

    As in Taghibakhshi et al. (2023), section 4. Sizes vary by a factor of 3 and more. Nodes that no
    centre reaches are one more part.
    """
    n = graph.shape[0]
    centers = np.random.default_rng(seed).choice(n, n_parts, replace=False)
    clusters, _ = extra("pyamg.graph").lloyd_cluster(sp.csr_matrix(graph), centers.astype(np.int32))
    owner = np.asarray(clusters, dtype=np.int64)
    return np.where((owner < 0) | (owner >= n_parts), n_parts, owner)


def metis(graph: sp.csr_array, n_parts: int, seed: int = 0) -> np.ndarray:
    """Owner of each node, (n,), by METIS's k-way partition: sizes within a few per cent.

    With less than some 30 nodes a part, k-way partitions can be in many pieces; then the owner is
    that of METIS's recursive bisection, which takes as long again, if it is in fewer. A few parts
    in pieces are left to be repaired.
    """
    pymetis = extra("pymetis")
    if n_parts == 1:
        return np.zeros(graph.shape[0], dtype=np.int64)
    pointers: Any = graph.indptr
    neighbours: Any = graph.indices
    best, fewest = np.empty(0), np.inf
    for recursive in (False, True):
        _, owner = pymetis.part_graph(
            n_parts,
            pymetis.CSRAdjacency(pointers, neighbours),
            options=pymetis.Options(seed=seed),
            recursive=recursive,
        )
        owner = np.asarray(owner, dtype=np.int64)
        wrong = n_wrong(owner, pieces(graph, owner), n_parts)
        if wrong < fewest:
            best, fewest = owner, wrong
        if fewest <= FEW_WRONG * n_parts:
            break
    return best


def n_wrong(owner: np.ndarray, piece: np.ndarray, n_parts: int) -> int:
    """How many parts are empty, and how many pieces there are beyond one for each other part."""
    filled = int(np.count_nonzero(np.bincount(owner)))
    return int(piece.max()) + 1 - filled + n_parts - filled


def rcb(points: np.ndarray, n_parts: int) -> np.ndarray:
    """Owner of each node, (n,), by recursive coordinate bisection: sizes that differ by one.

    Each set of points (n, d) is cut across its longest side, in proportion to the parts wanted on
    either side. It knows nothing of the graph: a part that reaches around a hole or a slit is in
    pieces. M. J. Berger, S. H. Bokhari, "A Partitioning Strategy for Nonuniform Problems on
    Multiprocessors", IEEE Transactions on Computers C-36 (1987).
    """
    n = len(points)
    owner = np.empty(n, dtype=np.int64)
    # The coordinates are carried along, as gathering them anew would cost most of the time.
    left_to_cut = [(np.arange(n), np.ascontiguousarray(points.T), n_parts, 0)]
    while left_to_cut:
        nodes, x, count, first = left_to_cut.pop()
        if count == 1:
            owner[nodes] = first
            continue
        longest = np.argmax(x.max(axis=1) - x.min(axis=1))
        half = count // 2
        cut = len(nodes) * half // count
        order = np.argpartition(x[longest], cut)
        low, high = order[:cut], order[cut:]
        left_to_cut.append((nodes[low], x.take(low, axis=1), half, first))
        left_to_cut.append((nodes[high], x.take(high, axis=1), count - half, first + half))
    return owner


PARTITIONERS: dict[str, Callable[[sp.csr_array, int, int], np.ndarray]] = {
    "metis": metis,
    "lloyd": lloyd,
}
"""Those that go by the graph."""
