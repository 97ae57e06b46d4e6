"""What the published networks see, and the patterns of what they learn.

Features: at a node 1 if it is in any subdomain's ring; at an edge a_ij and whether both ends are in
one ring; subdomains have the partition of unity's sums of the nodes', and their edges the entries
of its coarse matrix. Learned are

    L    one value for each directed edge between nodes of one ring, diagonal included, shared by
         all subdomains whose ring holds both ends
    P    one value for each node and each subdomain that holds it or neighbours one that does

or, not published, one value for each entry of the partition of unity after one Jacobi step, which
it multiplies: a third as many, and a coarse matrix as sparse as that of classical methods.

The edges between the levels, the entries of P, have two features that the published networks do not
use: what the partition of unity has there, and what it has after one Jacobi step.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, Self, get_args

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.coarse import partition_of_unity, smooth
from ddm.partition import Decomposition
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor, Pattern

Interpolation = Literal["neighbours", "smoothed"]


@dataclass(frozen=True, eq=False)
class PublishedGraph:
    """A network's input, and where its outputs go.

    Attributes:
        graph: nodes are unknowns and subdomains; its edges between levels are the pattern of P.
        row, col: (R,) ends of the directed ring edges.
        edge: (len(decomposition.interface),) ring edge of each interface value.
    """

    graph: TwoLevelGraph
    row: Tensor
    col: Tensor
    edge: Tensor

    def to(self, device: torch.device | str) -> Self:
        """This input on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def published_graph(
    A: CSRTensor,
    decomposition: Decomposition,
    seen: Tensor | None = None,
    pattern: Interpolation = "neighbours",
    dtype: torch.dtype = torch.float32,
) -> PublishedGraph:
    """Build a network's input from a matrix and its subdomains.

    Args:
        A: (n, n) with a symmetric pattern.
        decomposition: of the same matrix, one layer of overlap as published.
        seen: (nnz,) what the network sees in place of the entries of A: as published, those before
            boundary conditions; None is the entries.
        pattern: of P: "neighbours" as published, or "smoothed", see above.
        dtype: of the features.

    Raises:
        ValueError: A does not fit the decomposition, its pattern is not symmetric, `seen` has
            another shape, or another `pattern`.
    """
    d, A = decomposition, A.detach().to("cpu")
    d.check_pattern(A.pattern)
    if not A.pattern.is_symmetric:
        raise ValueError("A: its pattern is not symmetric; symmetrise it with explicit zeros")
    if seen is not None and seen.shape != A.values.shape:
        raise ValueError(f"seen: expected shape {tuple(A.values.shape)}, got {tuple(seen.shape)}")
    if pattern not in get_args(Interpolation):
        expected = " or ".join(map(repr, get_args(Interpolation)))
        raise ValueError(f"pattern: expected {expected}, got {pattern!r}")
    ends = d.node[d.block_row[d.interface]] * np.int64(d.n) + d.node[d.block_col[d.interface]]
    ring_edges, edge = np.unique(ends, return_inverse=True)
    keys = A.pattern.row.numpy().astype(np.int64) * d.n + A.pattern.col.numpy()
    in_ring = torch.from_numpy(np.isin(keys, ring_edges))
    values = A.values if seen is None else seen.detach().to("cpu")
    nodes = torch.zeros(d.n, 1, dtype=A.dtype)
    nodes[torch.from_numpy(d.node[~d.own])] = 1.0
    unity = partition_of_unity(d, A.dtype)
    coarse = unity.T @ (A @ unity)
    smoothed = smooth(unity, A)
    cross = smoothed.pattern if pattern == "smoothed" else coarse_neighbours(d)
    row, col = cross.row.long(), cross.col.long()
    there = [P.lookup(row, col) for P in (unity, smoothed)]
    graph = TwoLevelGraph(
        fine=A.pattern,
        coarse=coarse.pattern,
        cross=cross,
        fine_nodes=nodes.to(dtype),
        coarse_nodes=(unity.T @ nodes).to(dtype),
        fine_edges=torch.stack([values.to(dtype), in_ring.to(dtype)], dim=1),
        coarse_edges=coarse.values[:, None].to(dtype),
        cross_edges=torch.stack(there, dim=1).to(dtype),
    )
    row, col = (torch.from_numpy(x) for x in np.divmod(ring_edges, d.n))
    return PublishedGraph(graph, row, col, torch.from_numpy(edge))


def coarse_neighbours(decomposition: Decomposition) -> Pattern:
    """Pattern (n, S) of the learned P: subdomains that hold a node, and their neighbours.

    Two subdomains are neighbours if A couples unknowns that they own.
    """
    d = decomposition
    holds = sp.csr_array((np.ones(len(d.node)), (d.node, d.subdomain)), shape=(d.n, d.n_subdomains))
    owns = sp.csr_array((np.ones(d.n), (np.arange(d.n), d.owner)), shape=(d.n, d.n_subdomains))
    couples = sp.csr_array((np.ones(len(d.indices)), d.indices, d.indptr), shape=(d.n, d.n))
    return CSRTensor.from_scipy(sp.csr_array(holds @ (owns.T @ couples @ owns))).pattern
