"""The graph of a matrix, and parts of it that are in pieces: split, attach, gather."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ddm.entries import some_entries
from sparsetorch.checks import check_count

SMALLEST = 0.25
"""A piece below this fraction of the mean part is attached to a neighbour by default."""


def check_entries(A: sp.csr_array) -> None:
    """Refuse a matrix that has no subdomains or whose local matrices cannot be solved with.

    Raises:
        TypeError: `A` is not a SciPy CSR array or matrix.
        ValueError: `A` is not square, its arrays make no CSR matrix, it holds NaN or infinity, or
            it has an empty row.
    """
    if not (sp.issparse(A) and A.format == "csr"):
        what = f"format {A.format}" if sp.issparse(A) else type(A).__name__
        raise TypeError(
            f"A: expected a SciPy CSR array, got {what}; scipy.sparse.csr_array makes one"
        )
    if A.ndim != 2 or A.shape[0] != A.shape[1]:
        raise ValueError(f"A: expected a square matrix, got shape {A.shape}")
    if A.shape[0] == 0:
        raise ValueError("A: it has no rows")
    try:  # SciPy writes wherever indices point; its own check, which may move arrays, of a view
        sp.csr_array((A.data, A.indices, A.indptr), shape=A.shape).check_format()
    except ValueError as error:
        raise ValueError(
            f"A: its arrays make no CSR matrix ({error}); scipy.sparse.coo_array checks the rows "
            "and columns that it is made from"
        ) from error
    if not np.isfinite(A.data).all():
        raise ValueError("A: some entries are NaN or infinite")
    # Below empty, too: SciPy does not look at an indptr that ends with zero.
    empty = np.flatnonzero(A.indptr[1:] <= A.indptr[:-1])
    if len(empty):
        raise ValueError(
            f"A: {len(empty)} empty rows, the first is row {empty[0]}; remove these unknowns "
            "or put a one on their diagonal"
        )


def check_block_size(block_size: int, n: int) -> int:
    """The number of unknowns at each node, of n in all, as an int.

    Raises:
        TypeError: `block_size` is no number.
        ValueError: it is no whole number of at least 1, or does not divide n.
    """
    size = check_count("block_size", block_size, "unknown at a node")
    if n % size:
        raise ValueError(
            f"block_size: expected a divisor of {n}, the number of unknowns, got {size}"
        )
    return size


def node_graph(A: sp.csr_array, block_size: int = 1) -> sp.csr_array:
    """The symmetrised pattern of A between nodes, without the diagonal, with unit weights.

    Unknown i belongs to node i // block_size. An explicit zero is a coupling.
    """
    n = A.shape[0] // block_size
    if block_size > 1:
        blocks = sp.bsr_array(A, blocksize=(block_size, block_size))
        ones = np.ones(len(blocks.indices))
        graph = sp.csr_array((ones, blocks.indices, blocks.indptr), shape=(n, n))
    else:
        graph = sp.csr_array((np.ones(A.nnz), A.indices, A.indptr), shape=A.shape, copy=True)
    graph.sum_duplicates()
    mirrored = sp.csr_array(graph.T)
    if not _same_pattern(graph, mirrored):
        graph = sp.csr_array(graph + mirrored)
    row = np.repeat(np.arange(n, dtype=graph.indices.dtype), np.diff(graph.indptr))
    graph = some_entries(graph, graph.indices != row)
    graph.data[:] = 1.0
    graph.sort_indices()
    return graph


def _same_pattern(A: sp.csr_array, B: sp.csr_array) -> bool:
    return np.array_equal(A.indptr, B.indptr) and np.array_equal(A.indices, B.indices)


def pieces(graph: sp.csr_array, owner: np.ndarray) -> np.ndarray:
    """The connected piece of a part that holds each node, (n,), in the order of the parts."""
    inside = np.repeat(owner, np.diff(graph.indptr)) == owner[graph.indices]
    count, piece = connected_components(some_entries(graph, inside), directed=False)
    owner_of = np.empty(count, dtype=np.int64)
    owner_of[piece] = owner
    number = np.empty(count, dtype=np.int64)
    number[owner_of.argsort(stable=True)] = np.arange(count)
    return number[piece]


def repair(
    A: sp.csr_array, owner: np.ndarray, *, smallest: float | None = None, block_size: int = 1
) -> np.ndarray:
    """Parts without empty ones, each connected or made of whole components of the graph, (n,).

    Each piece of a part becomes a part. Pieces of fewer than `smallest` nodes are attached to the
    neighbour that they couple with most often. Where a piece has no neighbour, it is a component of
    the graph, such as an unknown whose equation is that of a boundary value: small ones are
    gathered in parts of the mean size. (A subdomain that holds a whole component solves for it
    exactly, so that such parts need not be connected.)

    Args:
        A: (n, n) SciPy CSR array.
        owner: (n,) integers of at least 0, the part of each unknown, which numbers may skip.
        smallest: number of nodes; None is a quarter of the mean part, 1 attaches nothing.
        block_size: unknowns at a node; a node belongs to one part.

    Raises:
        TypeError, ValueError: see `check_entries`; an argument does not fit.
    """
    check_entries(A)
    block_size = check_block_size(block_size, A.shape[0])
    node_owner = check_owner(owner, A.shape[0], block_size)
    mean = len(node_owner) / len(np.unique(node_owner))
    limit = SMALLEST * mean if smallest is None else smallest
    graph = node_graph(A, block_size)
    repaired = repaired_parts(graph, pieces(graph, node_owner), limit, mean)
    return np.repeat(repaired, block_size)


def check_owner(owner: np.ndarray, n: int, block_size: int) -> np.ndarray:
    """The part of each node, (n / block_size,) int64, of a partition of unknowns.

    Raises:
        ValueError: not (n,) integers of at least 0, or unknowns of one node in different parts.
    """
    owner = np.asarray(owner)
    if owner.shape != (n,) or owner.dtype.kind not in "iu":
        raise ValueError(f"owner: expected ({n},) integers, got {owner.shape} {owner.dtype}")
    parts = owner.astype(np.int64)
    if parts.min() < 0:  # what is too large for int64, too
        first = parts.argmin()
        raise ValueError(f"owner: expected parts 0 .. S-1, got {owner[first]} for unknown {first}")
    by_node = parts.reshape(-1, block_size)
    split = np.flatnonzero((by_node != by_node[:, :1]).any(axis=1))
    if len(split):
        raise ValueError(
            f"owner: the {block_size} unknowns of node {split[0]} belong to different parts "
            f"({len(split)} nodes in all); partition nodes, np.repeat(parts, {block_size})"
        )
    return by_node[:, 0]


def in_one_piece(owner: np.ndarray, piece: np.ndarray) -> np.ndarray:
    """Whether the part of each node is connected, (n,) bool, by `pieces`."""
    owner_of = np.empty(piece.max() + 1, dtype=np.int64)
    owner_of[piece] = owner
    return np.bincount(owner_of)[owner] == 1


def repaired_parts(
    graph: sp.csr_array,
    part: np.ndarray,
    smallest: float,
    mean: float,
    stays: np.ndarray | None = None,
) -> np.ndarray:
    """What `repair` makes of the pieces of parts of a graph of nodes, (n_nodes,).

    Args:
        graph: of nodes, see `node_graph`.
        part: the piece of each node, see `pieces`.
        smallest, mean: number of nodes.
        stays: (n_nodes,) bool, nodes whose piece stays one, however small it is.
    """
    if stays is None:
        stays = np.zeros(len(part), dtype=bool)
    coo = sp.coo_array(graph)
    while True:
        size = np.bincount(part)
        a, b = part[coo.row], part[coo.col]
        fixed = np.bincount(part, weights=stays) > 0
        leaving = (a != b) & (size[a] < smallest) & ~fixed[a]
        if not leaving.any():
            break
        part = _merged(_towards_most(a[leaving], b[leaving], len(size)), size)[part]
    alone = np.ones(len(size), dtype=bool)
    alone[a[a != b]] = False
    few = np.flatnonzero(alone & (size < smallest))
    if len(few):
        before = np.cumsum(size[few]) - size[few]
        _, first, same = np.unique(before // mean, return_index=True, return_inverse=True)
        group = np.arange(len(size))
        group[few] = few[first][same]
        part = np.unique(group[part], return_inverse=True)[1]
    return part.astype(np.int64)


def _towards_most(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """For each piece in `a` the piece in `b` that it meets most often, else itself, (count,)."""
    pairs, often = np.unique(a.astype(np.int64) * count + b, return_counts=True)
    order = np.lexsort((often, pairs // count))
    towards = np.arange(count)
    towards[pairs[order] // count] = pairs[order] % count  # the last assignment stays
    return towards


def _merged(towards: np.ndarray, size: np.ndarray) -> np.ndarray:
    """New number of each piece when each joins another one; the order is that of the largest."""
    count = len(towards)
    links = sp.coo_array((np.ones(count), (np.arange(count), towards)), shape=(count, count))
    n_groups, group = connected_components(links, directed=False)
    order = np.lexsort((-np.arange(count), size, group))
    largest = np.empty(n_groups, dtype=np.int64)
    largest[group[order]] = order
    rank = np.empty(n_groups, dtype=np.int64)
    rank[np.argsort(largest)] = np.arange(n_groups)
    return rank[group]
