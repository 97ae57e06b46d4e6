"""Split the unknowns into subdomains, connected ones, then with overlap."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ddm.partitioners import PARTITIONERS, n_wrong, rcb
from ddm.pieces import (
    SMALLEST,
    check_block_size,
    check_entries,
    check_owner,
    in_one_piece,
    node_graph,
    pieces,
    repaired_parts,
)
from ddm.positions import check_positions
from sparsetorch import Pattern
from sparsetorch.checks import check_count

METHODS = ("auto", *PARTITIONERS, "rcb")

LARGE = 50_000
"""Nodes from which on METIS takes a fifth of a set-up and more: bisection of coordinates pays."""

MANY_WRONG = 0.05
"""Of the parts: with more empty ones and pieces than these METIS takes the place of bisection."""


def partition(
    A: sp.csr_array,
    n_parts: int,
    *,
    method: str = "auto",
    seed: int = 0,
    block_size: int = 1,
    coordinates: np.ndarray | None = None,
) -> np.ndarray:
    """Owner of each unknown, (n,) integers 0 .. S-1; each part is connected and not empty.

    A part that the partitioner left in several pieces becomes several parts, those pieces of less
    than a quarter of the mean size join a neighbour, and empty parts disappear, so that S can
    differ a little from `n_parts`. Where the graph of A is not connected, see
    `ddm.pieces.repair`, which does the same for a partition of your own.

    Args:
        A: (n, n) SciPy CSR array, real or complex.
        n_parts: number of parts wanted.
        method: "metis"; "lloyd"; "rcb", recursive bisection of the coordinates, which takes a sixth
            of METIS's time and, in a trial, left overlapping subdomains 2 % larger; or "auto",
            which is "rcb" for 50,000 nodes and more with coordinates, unless it leaves many parts
            in pieces, and else "metis".
        seed: of METIS and Lloyd.
        block_size: unknowns at a node, numbered node by node; nodes are not split.
        coordinates: (n, d) positions of the unknowns, of which the first of each node counts.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`, an unknown `method`, a `block_size` that
            does not divide n, `n_parts` not in 1 .. n / block_size, `coordinates` that are not
            finite positions (n, d), or none for "rcb".
    """
    check_entries(A)
    block_size = check_block_size(block_size, A.shape[0])
    n_nodes = A.shape[0] // block_size
    n_parts = check_count("n_parts", n_parts, "part")
    if n_parts > n_nodes:
        what = "unknowns" if block_size == 1 else "nodes"
        raise ValueError(
            f"n_parts: expected an integer from 1 to {n_nodes}, the number of {what}, got {n_parts}"
        )
    points = None
    if coordinates is not None:
        points = check_positions(coordinates, A.shape[0])[::block_size]
    graph = node_graph(A, block_size)
    owner, piece = _split(graph, n_parts, method, seed, points)
    mean = n_nodes / n_parts
    repaired = repaired_parts(graph, piece, SMALLEST * mean, mean, stays=in_one_piece(owner, piece))
    return np.repeat(repaired, block_size)


def _split(
    graph: sp.csr_array, n_parts: int, method: str, seed: int, points: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The part of each node, not repaired, and the connected piece of it."""
    if method not in METHODS:
        raise ValueError(f"method: expected one of {METHODS}, got {method!r}")
    if method == "rcb" and points is None:
        raise ValueError("coordinates: expected positions (n, d) for method='rcb', got None")
    if points is not None and (method == "rcb" or (method == "auto" and len(points) >= LARGE)):
        owner = rcb(points, n_parts)
        piece = pieces(graph, owner)
        if method == "rcb" or n_wrong(owner, piece, n_parts) <= MANY_WRONG * n_parts:
            return owner, piece
    owner = PARTITIONERS["metis" if method == "auto" else method](graph, n_parts, seed)
    return owner, pieces(graph, owner)


@dataclass(frozen=True, eq=False)
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

    def __getstate__(self) -> dict[str, Any]:
        """All but the patterns that were checked: weak references cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name != "_checked"}

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
        owner: (n,) part of each unknown, by `partition` or your own, in any integer dtype; it is
            copied.
        overlap: layers of the graph of nodes.
        block_size: unknowns at a node, numbered node by node.

    Raises:
        TypeError, ValueError: `A` fails `check_entries`; `overlap` or `block_size` is no whole
            number of at least 1.
        ValueError: `owner` is not (n,) integers with parts 0 .. S-1 all present, or splits a node;
            `block_size` does not divide n.
    """
    check_entries(A)
    A = sp.csr_array(A, copy=True)
    A.sum_duplicates()
    n = A.shape[0]
    block_size = check_block_size(block_size, n)
    overlap = check_count("overlap", overlap, "layer")
    node_owner = check_owner(owner, n, block_size)
    # Counted up to n: where a part has a larger number, one of those below is empty.
    empty = np.flatnonzero(np.bincount(np.minimum(node_owner, n)) == 0)
    if len(empty):
        raise ValueError(
            "owner: expected parts 0 .. S-1, each with at least one unknown; part "
            f"{empty[0]} is empty, np.unique(owner, return_inverse=True)[1] numbers them anew"
        )
    subdomain, node, layer = _grown(node_graph(A, block_size), node_owner, overlap)
    if block_size > 1:
        subdomain, layer = np.repeat(subdomain, block_size), np.repeat(layer, block_size)
        node = (node[:, None] * block_size + np.arange(block_size)).ravel()

    pattern = Pattern.trusted(torch.from_numpy(A.indptr), torch.from_numpy(A.indices), (n, n))
    first = _first(subdomain)
    blocks, source = pattern.principal_blocks(torch.from_numpy(first), torch.from_numpy(node))
    crow = blocks.crow.numpy()
    return Decomposition(
        owner=np.repeat(node_owner, block_size),
        overlap=overlap,
        subdomain=subdomain,
        node=node,
        own=layer == 0,
        layer=layer,
        block_crow=crow,
        block_col=blocks.col.numpy(),
        block_source=source.numpy(),
        outside=_outside(A, first, subdomain, node, np.diff(crow)),
        indptr=A.indptr,
        indices=A.indices,
        block_size=block_size,
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


def _outside(
    A: sp.csr_array, first: np.ndarray, subdomain: np.ndarray, node: np.ndarray, inside: np.ndarray
) -> np.ndarray:
    """`Decomposition.outside`; `inside` counts the entries of each local row within its subdomain.

    Most rows lie within: the others alone are looked through.
    """
    cut = np.flatnonzero(inside < np.diff(A.indptr)[node])
    rows = A[node[cut]]
    row = np.repeat(np.arange(len(cut)), np.diff(rows.indptr))
    beyond = find_local(first, node, subdomain[cut][row], rows.indices) < 0
    outside = np.zeros(len(node))
    outside[cut] = np.bincount(row[beyond], abs(rows.data[beyond]), minlength=len(cut))
    return outside


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
