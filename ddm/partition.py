"""Split the unknowns into subdomains: Lloyd aggregation or METIS, repaired, then with overlap."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.extras import extra
from ddm.pieces import (
    SMALLEST,
    check_block_size,
    check_entries,
    check_owner,
    node_graph,
    pieces,
    repaired_parts,
)
from sparsetorch import Pattern

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
        filled = np.count_nonzero(np.bincount(owner))
        wrong = pieces(graph, owner).max() + 1 - filled + n_parts - filled
        if wrong < fewest:
            best, fewest = owner, wrong
        if fewest <= FEW_WRONG * n_parts:
            break
    return best


PARTITIONERS: dict[str, Callable[[sp.csr_array, int, int], np.ndarray]] = {
    "metis": metis,
    "lloyd": lloyd,
}


def partition(
    A: sp.csr_array, n_parts: int, *, method: str = "metis", seed: int = 0, block_size: int = 1
) -> np.ndarray:
    """Owner of each unknown, (n,) integers 0 .. S-1; each part is connected and not empty.

    A part that the partitioner left in several pieces becomes several parts, those pieces of less
    than a quarter of the mean size join a neighbour, and empty parts disappear, so that S can
    differ a little from `n_parts`. Where the graph of A is not connected, see
    `ddm.pieces.repair`, which does the same for a partition of your own.

    Args:
        A: (n, n) SciPy CSR array, real or complex.
        n_parts: number of parts wanted.
        method: "metis" or "lloyd".
        seed: of the partitioner.
        block_size: unknowns at a node, numbered node by node; nodes are not split.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`, an unknown `method`, a `block_size` that
            does not divide n, or `n_parts` not in 1 .. n / block_size.
    """
    check_entries(A)
    n_nodes = check_block_size(block_size, A.shape[0])
    if n_parts != int(n_parts) or not 1 <= n_parts <= n_nodes:
        what = "unknowns" if block_size == 1 else "nodes"
        raise ValueError(
            f"n_parts: expected an integer from 1 to {n_nodes}, the number of {what}, got {n_parts}"
        )
    if method not in PARTITIONERS:
        raise ValueError(f"method: expected one of {sorted(PARTITIONERS)}, got {method!r}")
    graph = node_graph(A, block_size)
    owner = PARTITIONERS[method](graph, n_parts, seed)
    mean = n_nodes / n_parts
    repaired = repaired_parts(graph, owner, SMALLEST * mean, mean, keep=True)
    return np.repeat(repaired, block_size)


@dataclass(frozen=True)
class Decomposition:
    """Overlapping subdomains of a matrix graph, as flat arrays: no lists of subdomains.

    A *local unknown* is a (subdomain, node) pair; they are numbered by subdomain, then by node,
    and there are N of them. S is the number of subdomains, n the number of unknowns.

    Attributes:
        owner: (n,) subdomain that owns each unknown.
        overlap: number of graph layers added around the owned unknowns.
        subdomain: (N,) subdomain of each local unknown.
        node: (N,) its node.
        own: (N,) whether its subdomain owns it; the *ring* is the rest.
        layer: (N,) graph layer in which the subdomain reached it, 0 for owned ones.
        block_crow, block_col: the local matrices as one block-diagonal CSR pattern, (N, N).
        block_source: (block nnz,) the entry of A that each block entry copies, where A has sorted
            rows without duplicates, as `CSRTensor.from_scipy` leaves it.
        outside: (N,) sum of |a_ij| over the neighbours j that lie outside the subdomain.
        indptr, indices: the pattern of A, with sorted rows.
        block_size: unknowns at a node of the mesh; overlap has been grown by nodes.
    """

    owner: np.ndarray
    overlap: int
    subdomain: np.ndarray
    node: np.ndarray
    own: np.ndarray
    layer: np.ndarray
    block_crow: np.ndarray
    block_col: np.ndarray
    block_source: np.ndarray
    outside: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray
    block_size: int = 1

    @property
    def n(self) -> int:
        """Number of unknowns."""
        return len(self.owner)

    @cached_property
    def _checked(self) -> weakref.WeakSet[Pattern]:
        return weakref.WeakSet()

    def check_pattern(self, pattern: Pattern) -> None:
        """Refuse a matrix that these subdomains were not made from; once for each pattern.

        Raises:
            ValueError: its shape or pattern is not that of the matrix given to `decompose`.
        """
        if pattern in self._checked:
            return
        if pattern.shape != (self.n, self.n):
            raise ValueError(f"A: expected shape {(self.n, self.n)}, got {pattern.shape}")
        if not (
            np.array_equal(pattern.crow.cpu().numpy(), self.indptr)
            and np.array_equal(pattern.col.cpu().numpy(), self.indices)
        ):
            raise ValueError(
                "A: its pattern is not that of the matrix that the decomposition was made from; "
                "decompose this matrix, or give both the same explicit zeros"
            )
        self._checked.add(pattern)

    @property
    def n_subdomains(self) -> int:
        """Number of subdomains, S."""
        return len(self.sizes)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Unknowns in each overlapping subdomain, (S,)."""
        return np.bincount(self.subdomain)

    @cached_property
    def first(self) -> np.ndarray:
        """First local unknown of each subdomain, and N: (S + 1,)."""
        return _first(self.subdomain)

    @cached_property
    def multiplicity(self) -> np.ndarray:
        """Number of overlapping subdomains that hold each unknown, (n,)."""
        return np.bincount(self.node, minlength=self.n)

    @cached_property
    def block_row(self) -> np.ndarray:
        """Row of each block entry, (block nnz,)."""
        return np.repeat(np.arange(len(self.node)), np.diff(self.block_crow))

    @cached_property
    def interface(self) -> np.ndarray:
        """Block entries that couple two ring unknowns, diagonal included: the pattern of L.

        With one layer of overlap this is the paper's `mask_edges` (hops = 1): adding values here
        gives no fill, so an application costs what it costs without them.
        """
        ring = ~self.own
        return np.flatnonzero(ring[self.block_row] & ring[self.block_col])


def decompose(
    A: sp.csr_array, owner: np.ndarray, overlap: int = 1, *, block_size: int = 1
) -> Decomposition:
    """Grow each part of `owner` by `overlap` graph layers and lay out the local matrices.

    Args:
        A: (n, n) SciPy CSR array, real or complex.
        owner: (n,) part of each unknown, by `partition` or your own.
        overlap: layers of the graph of nodes.
        block_size: unknowns at a node, numbered node by node.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`.
        ValueError: `owner` is not (n,) integers with parts 0 .. S-1 all present, or splits a node;
            `overlap` is not an integer of at least 1.
    """
    check_entries(A)
    A = sp.csr_array(A, copy=True)
    A.sum_duplicates()
    n = A.shape[0]
    check_block_size(block_size, n)
    node_owner = check_owner(owner, n, block_size)
    empty = np.flatnonzero(np.bincount(node_owner) == 0)
    if len(empty):
        raise ValueError(
            "owner: expected parts 0 .. S-1, each with at least one unknown; part "
            f"{empty[0]} is empty, np.unique(owner, return_inverse=True)[1] numbers them anew"
        )
    if overlap != int(overlap) or overlap < 1:
        raise ValueError(f"overlap: expected at least 1 layer, got {overlap}")
    subdomain, node, layer = _grown(node_graph(A, block_size), node_owner, int(overlap))
    if block_size > 1:
        subdomain, layer = np.repeat(subdomain, block_size), np.repeat(layer, block_size)
        node = (node[:, None] * block_size + np.arange(block_size)).ravel()

    # Expand each local unknown's row of A and look its columns up among the local unknowns.
    counts = np.diff(A.indptr)[node]
    starts = np.cumsum(counts) - counts
    row = np.repeat(np.arange(len(node)), counts)
    source = A.indptr[node][row] + (np.arange(len(row)) - starts[row])
    found = find_local(_first(subdomain), node, subdomain[row], A.indices[source])
    inside = found >= 0
    outside = np.bincount(row[~inside], weights=abs(A.data[source[~inside]]), minlength=len(node))
    crow = np.concatenate([[0], np.cumsum(np.bincount(row[inside], minlength=len(node)))])
    return Decomposition(
        owner=np.asarray(owner),
        overlap=int(overlap),
        subdomain=subdomain,
        node=node,
        own=layer == 0,
        layer=layer,
        block_crow=crow,
        block_col=found[inside],
        block_source=source[inside],
        outside=outside,
        indptr=A.indptr,
        indices=A.indices,
        block_size=int(block_size),
    )


def _grown(
    graph: sp.csr_array, owner: np.ndarray, overlap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Subdomain, node and layer of each local node, by subdomain and then by node."""
    n, n_parts = len(owner), int(owner.max()) + 1
    members = sp.csr_array((np.ones(n), (owner, np.arange(n))), shape=(n_parts, n))
    reach = members.copy()  # counts from which the layer of each (subdomain, node) follows
    for _ in range(overlap):
        members = sp.csr_array(members + members @ graph)
        members.data[:] = 1.0
        reach = sp.csr_array(reach + members)
    reach.sort_indices()
    subdomain = np.repeat(np.arange(n_parts), np.diff(reach.indptr))
    return subdomain, reach.indices.astype(np.int64), (overlap + 1 - reach.data).astype(np.int64)


def _first(subdomain: np.ndarray) -> np.ndarray:
    """Where each subdomain begins, and the number of all, of sorted ones."""
    return np.concatenate([[0], np.cumsum(np.bincount(subdomain))])


def find_local(
    first: np.ndarray, node: np.ndarray, in_subdomain: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Local unknown of each wanted (subdomain, node) pair, -1 where the subdomain lacks it.

    Args:
        first: (S + 1,) the first local unknown of each subdomain, see `Decomposition.first`.
        node: (N,) the node of each.
        in_subdomain, wanted: subdomains and nodes, of shapes that broadcast.
    """
    in_subdomain, wanted = np.broadcast_arrays(in_subdomain, wanted)
    crow, col, rows, cols = (
        torch.from_numpy(x.astype(np.int64, copy=False))
        for x in (first, node, in_subdomain.ravel(), wanted.ravel())
    )
    pattern = Pattern.trusted(crow, col, (len(first) - 1, int(node.max()) + 1))
    return pattern.find(rows, cols).numpy().reshape(wanted.shape)
