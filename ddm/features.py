"""What MG-GNN sees of a matrix and its decomposition: a two-level graph, free of units.

The fine graph's nodes are those of the mesh (`block_size` unknowns each), the coarse graph's are
subdomains, and the edges between the levels are the *local nodes*, (subdomain, node) pairs, which
the network's outputs belong to. Every feature is invariant to scaling A, to the size of the mesh
and to renumbering, so that what is learned on small meshes means the same on large ones. The
boundary shows in the row sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.coarse import smooth
from ddm.condensed import Condensed
from ddm.partition import Decomposition
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor, Pattern

N_FEATURES = {
    "fine_nodes": 6,
    "coarse_nodes": 6,
    "fine_edges": 5,
    "coarse_edges": 2,
    "cross_edges": 8,
}
TOUCHING = 0.02
"""Of the diagonal: smaller row sums, as of weak Robin conditions, are as good as zero."""


@dataclass(frozen=True, eq=False)
class SchwarzGraph:
    """The network's input for one matrix, and how its outputs are ordered.

    Attributes:
        graph: nodes are nodes of the mesh and subdomains; cross edges are local nodes.
        local: (M,) cross edge of each local node in the order of the decomposition.
        held: (n_nodes, 1) one where the coarse space is to hold the near-null vectors, zero at
            nodes of subdomains that touch a Dirichlet boundary.
    """

    graph: TwoLevelGraph
    local: Tensor
    held: Tensor

    def to(self, device: torch.device | str) -> Self:
        """This input on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def schwarz_graph(
    A: CSRTensor,
    decomposition: Decomposition,
    exterior: Tensor,
    *,
    smoothing: int = 1,
    columns: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> SchwarzGraph:
    """Build the network's input from a matrix, its subdomains and what lies outside them.

    Args:
        A: (n, n), with a symmetric pattern and a positive diagonal.
        decomposition: of the same matrix.
        exterior: values at `decomposition.interface`, from `ddm.exterior.exterior`.
        smoothing: Jacobi steps that the coarse space will have.
        columns: of the coarse space, a subdomain on average.
        dtype: of the features.

    Raises:
        ValueError: a diagonal entry of A, or of its coarse matrix, is not positive; its pattern is
            not symmetric.
    """
    # Worked out on the host: the result moves as a whole, by its `to`.
    d, A = decomposition, A.detach().to("cpu")
    _check(A)
    c = Condensed.of(A, d)
    fine_nodes, fine_edges = _fine(c, torch.empty(0, dtype=dtype, device="cpu").numpy().dtype)
    touches = _touches_boundary(c)
    order = np.argsort(c.node, kind="stable")
    unity = _unity(c, order)
    P = smooth(unity, c.matrix, smoothing)
    AP = c.matrix @ P
    coarse_nodes, coarse_edges, coarse = _coarse(c, P.T @ AP, touches, columns)
    local = torch.from_numpy(c.node), torch.from_numpy(c.subdomain)
    cross = np.stack(
        [
            1.0 / c.multiplicity[c.node],
            c.own,
            c.layer / 2.0,
            c.summed(_diagonal(d, exterior)) / c.local_diagonal,
            c.summed(d.outside) / c.local_diagonal,
            P.lookup(*local).numpy(),
            AP.lookup(*local).numpy() / c.diagonal[c.node],
            touches[c.subdomain],
        ],
        axis=1,
    )
    # Cross edges are ordered by node, local nodes by subdomain.
    position = np.empty_like(order)
    position[order] = np.arange(len(order))

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(dtype)

    graph = TwoLevelGraph(
        fine=c.matrix.pattern,
        coarse=coarse,
        cross=unity.pattern,
        fine_nodes=tensor(fine_nodes),
        coarse_nodes=tensor(coarse_nodes),
        fine_edges=tensor(fine_edges),
        coarse_edges=tensor(coarse_edges),
        cross_edges=tensor(cross[order]),
    )
    near = np.bincount(c.node, weights=touches[c.subdomain], minlength=c.n) > 0
    return SchwarzGraph(graph, torch.from_numpy(position), tensor(~near[:, None]))


def _check(A: CSRTensor) -> None:
    diagonal = A.diagonal()
    if not bool((diagonal > 0).all()):
        raise ValueError(
            f"A: diagonal entry {int(diagonal.argmin())} is {float(diagonal.min()):g}; MG-GNN "
            "needs a positive diagonal"
        )
    if not A.pattern.is_symmetric:
        raise ValueError("A: its pattern is not symmetric; symmetrise it with explicit zeros")


def _unity(c: Condensed, order: np.ndarray) -> CSRTensor:
    """The plain partition of unity, (n, S), whose entries are the local nodes in this order."""
    counts = torch.from_numpy(c.multiplicity)
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    col = torch.from_numpy(c.subdomain[order])
    pattern = Pattern.trusted(crow, col, (c.n, c.n_subdomains))
    return CSRTensor(pattern, torch.repeat_interleave(1.0 / counts.double(), counts))


def _diagonal(d: Decomposition, exterior: Tensor) -> np.ndarray:
    """The exterior's diagonal, (N,)."""
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    values = np.zeros(len(d.node))
    values[row[row == col]] = exterior.detach().double().cpu().numpy()[row == col]
    return values


def _touches_boundary(c: Condensed) -> np.ndarray:
    """Whether some row of a subdomain is far from summing to zero, (S,)."""
    rough = np.abs(c.row_sum) > TOUCHING * c.diagonal
    return np.bincount(c.subdomain, weights=rough[c.node], minlength=c.n_subdomains) > 0


def _fine(c: Condensed, precision: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Features of nodes and of couplings between them, the latter in some precision."""
    row, col, start = c.row, c.col, c.matrix.pattern.crow.numpy()
    counts = np.diff(start)  # at least 1: the diagonal is stored

    def over_rows(x: np.ndarray) -> np.ndarray:
        return np.add.reduceat(x, start[:-1])

    logarithm = np.log(c.diagonal)
    ratio = np.repeat(logarithm, counts) - logarithm[col]
    nodes = np.stack(
        [
            c.row_sum / c.diagonal,  # positive next to a Dirichlet boundary, else 0
            over_rows(np.maximum(c.values, 0)) / c.diagonal - 1.0,  # of those off the diagonal
            (counts - 1) / 6.0 - 1.0,  # neighbours, against a regular mesh's
            c.multiplicity - 1.0,
            _hops_to_interface(c) / 4.0,
            over_rows(np.abs(ratio)) / np.maximum(counts - 1, 1) / 4.0,
        ],
        axis=1,
    )
    edges = np.empty((len(col), N_FEATURES["fine_edges"]), precision)
    for feature, values, size in ((0, c.values, c.diagonal), (1, c.norms, c.diagonal_norms)):
        root = 1.0 / np.sqrt(size)
        edges[:, feature] = values * np.repeat(root, counts) * root[col]
    edges[:, 2] = ratio / 4.0
    edges[:, 3] = np.repeat(c.owner, counts) == c.owner[col]
    edges[:, 4] = row == col
    return nodes, edges


def _coarse(
    c: Condensed, coarse: CSRTensor, touches: np.ndarray, columns: float
) -> tuple[np.ndarray, np.ndarray, Pattern]:
    """Features of subdomains and of their couplings, and the pattern of their coarse matrix."""
    values, row, col = coarse.values.numpy(), coarse.pattern.row.numpy(), coarse.pattern.col.numpy()
    diagonal = coarse.diagonal().numpy()
    if not (diagonal > 0).all():
        raise ValueError(
            f"A: it is indefinite, as the energy {diagonal.min():g} of its coarse space shows; "
            "MG-GNN is for positive definite matrices"
        )
    own, size = np.bincount(c.owner), np.bincount(c.subdomain)
    nodes = np.stack(
        [
            np.log(own / 64.0),
            np.log(size / own),
            np.bincount(row, weights=values, minlength=len(own)) / diagonal,
            np.bincount(row, minlength=len(own)) / 12.0 - 1.0,
            touches,
            np.full(len(own), math.log(columns / c.block_size)),
        ],
        axis=1,
    )
    scale = np.sqrt(diagonal[row] * diagonal[col])
    return nodes, np.stack([values / scale, row == col], axis=1), coarse.pattern


def _hops_to_interface(c: Condensed, most: int = 4) -> np.ndarray:
    """Graph distance to the nearest node held by several subdomains, cut off at `most`."""
    graph = sp.csr_array((np.ones(len(c.col)), (c.row, c.col)), shape=(c.n, c.n))
    reached = c.multiplicity > 1
    hops = np.where(reached, 0, most).astype(np.float64)
    for hop in range(1, most):
        grown = reached | (graph @ reached.astype(np.float64) > 0)
        hops[grown & ~reached] = hop
        reached = grown
    return hops
