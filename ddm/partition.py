"""Split the unknowns into subdomains: Lloyd aggregation or METIS, connected, then with overlap."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ddm.extras import extra
from sparsetorch import Pattern


def check_entries(A: sp.csr_array) -> None:
    """Refuse a matrix that has no subdomains or whose local matrices cannot be solved with.

    Raises:
        TypeError: `A` is not a SciPy CSR array or matrix, or complex.
        ValueError: `A` is not square, holds NaN or infinity, or has an empty row.
    """
    if not (sp.issparse(A) and A.format == "csr"):
        what = f"format {A.format}" if sp.issparse(A) else type(A).__name__
        raise TypeError(
            f"A: expected a SciPy CSR array, got {what}; scipy.sparse.csr_array makes one"
        )
    if A.dtype.kind == "c":
        raise TypeError(f"A: expected real entries, got {A.dtype}")
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A: expected a square matrix, got shape {A.shape}")
    if A.shape[0] == 0:
        raise ValueError("A: it has no rows")
    if not np.isfinite(A.data).all():
        raise ValueError("A: some entries are NaN or infinite")
    empty = np.flatnonzero(np.diff(A.indptr) == 0)
    if len(empty):
        raise ValueError(
            f"A: {len(empty)} empty rows, the first is row {empty[0]}; remove these unknowns "
            "or put a one on their diagonal"
        )


def check_matrix(A: sp.csr_array) -> None:
    """Refuse a matrix that no Schwarz method can take.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`, or its graph is disconnected.
    """
    check_entries(A)
    n_parts, _ = connected_components(A, directed=False)
    if n_parts > 1:
        raise ValueError(
            f"A: its graph has {n_parts} connected components; solve them one at a time "
            "(scipy.sparse.csgraph.connected_components finds them)"
        )


def _adjacency(A: sp.csr_array) -> sp.csr_array:
    """The symmetrised pattern of A without its diagonal, with unit weights."""
    graph = sp.csr_array((np.ones(A.nnz), A.indices, A.indptr), shape=A.shape)
    graph = sp.csr_array(graph + graph.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.data[:] = 1.0
    graph.sort_indices()
    return graph


def lloyd(A: sp.csr_array, n_parts: int, seed: int = 0) -> np.ndarray:
    """Owner of each unknown, (n,), by PyAMG's Lloyd aggregation with unit distances.

    As in Taghibakhshi et al. (2023), section 4. Sizes vary by a factor of 3 and more.
    """
    graph = sp.csr_matrix(_adjacency(A))
    centers = np.random.default_rng(seed).choice(A.shape[0], n_parts, replace=False)
    clusters, _ = extra("pyamg.graph").lloyd_cluster(graph, centers.astype(np.int32))
    return np.asarray(clusters, dtype=np.int64)


def metis(A: sp.csr_array, n_parts: int, seed: int = 0) -> np.ndarray:
    """Owner of each unknown, (n,), by METIS's k-way partition: sizes within a few per cent.

    With less than some 30 unknowns a part, k-way partitions can be in many pieces; then the owner
    is that of METIS's recursive bisection, if it is in fewer.
    """
    pymetis = extra("pymetis")
    graph = _adjacency(A)
    if n_parts == 1:
        return np.zeros(A.shape[0], dtype=np.int64)
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
        pieces = _pieces(A, owner).max() + 1
        if abs(pieces - n_parts) < fewest:
            best, fewest = owner, abs(pieces - n_parts)
        if fewest == 0:
            break
    return best


PARTITIONERS: dict[str, Callable[[sp.csr_array, int, int], np.ndarray]] = {
    "metis": metis,
    "lloyd": lloyd,
}


def _pieces(A: sp.csr_array, owner: np.ndarray) -> np.ndarray:
    """Connected piece of a part that holds each unknown, (n,)."""
    graph = sp.coo_array(A)
    inside = owner[graph.row] == owner[graph.col]
    ones = np.ones(int(inside.sum()))
    within = sp.coo_array((ones, (graph.row[inside], graph.col[inside])), shape=A.shape)
    return connected_components(within, directed=False)[1]


def partition(A: sp.csr_array, n_parts: int, *, method: str = "metis", seed: int = 0) -> np.ndarray:
    """Owner of each unknown, (n,) integers 0 .. S-1; each part is connected and not empty.

    A part that the partitioner left in several pieces becomes several parts, and an empty one
    disappears, so that S can differ a little from `n_parts`.

    Raises:
        ValueError: `A` fails `check_matrix`, an unknown `method`, or `n_parts` not in 1 .. n.
    """
    check_matrix(A)
    n = A.shape[0]
    if n_parts != int(n_parts) or not 1 <= n_parts <= n:
        raise ValueError(
            f"n_parts: expected an integer from 1 to {n}, the number of unknowns, got {n_parts}"
        )
    if method not in PARTITIONERS:
        raise ValueError(f"method: expected one of {sorted(PARTITIONERS)}, got {method!r}")
    owner = PARTITIONERS[method](A, n_parts, seed)
    # Pieces in the order of (owner, piece), so that parts keep the partitioner's numbering.
    _, owner = np.unique(owner * np.int64(n) + _pieces(A, owner), return_inverse=True)
    return owner.astype(np.int64)


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


def decompose(A: sp.csr_array, owner: np.ndarray, overlap: int = 1) -> Decomposition:
    """Grow each part of `owner` by `overlap` graph layers and lay out the local matrices.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`.
        ValueError: `owner` is not (n,) integers with parts 0 .. S-1 all present, or `overlap` is
            below 1.
    """
    check_entries(A)
    A = sp.csr_array(A, copy=True)
    A.sum_duplicates()
    n = A.shape[0]
    owner = np.asarray(owner)
    if owner.shape != (n,) or owner.dtype.kind not in "iu":
        raise ValueError(f"owner: expected ({n},) integers, got {owner.shape} {owner.dtype}")
    if owner.min() < 0 or (np.bincount(owner) == 0).any():
        raise ValueError("owner: expected parts 0 .. S-1, each with at least one unknown")
    if overlap < 1:
        raise ValueError(f"overlap: expected at least 1 layer, got {overlap}")
    n_parts = int(owner.max()) + 1
    graph = _adjacency(A)
    members = sp.csr_array((np.ones(n), (owner, np.arange(n))), shape=(n_parts, n))
    reach = members.copy()  # counts from which the layer of each (subdomain, node) follows
    for _ in range(overlap):
        members = sp.csr_array(members + members @ graph)
        members.data[:] = 1.0
        reach = sp.csr_array(reach + members)
    reach.sort_indices()
    subdomain = np.repeat(np.arange(n_parts), np.diff(reach.indptr))
    node = reach.indices.astype(np.int64)
    layer = (overlap + 1 - reach.data).astype(np.int64)

    # Expand each local unknown's row of A and look its columns up among the local unknowns.
    counts = np.diff(A.indptr)[node]
    starts = np.cumsum(counts) - counts
    row = np.repeat(np.arange(len(node)), counts)
    source = A.indptr[node][row] + (np.arange(len(row)) - starts[row])
    keys = subdomain * np.int64(n) + node
    wanted = subdomain[row] * np.int64(n) + A.indices[source]
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    inside = keys[found] == wanted
    outside = np.bincount(row[~inside], weights=abs(A.data[source[~inside]]), minlength=len(node))
    crow = np.concatenate([[0], np.cumsum(np.bincount(row[inside], minlength=len(node)))])
    return Decomposition(
        owner=owner,
        overlap=overlap,
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
    )
