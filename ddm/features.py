"""What MG-GNN sees of a matrix and its decomposition: a two-level graph, free of units.

Every feature is invariant to scaling A, to the size of the mesh and to renumbering, so that what is
learned on small meshes means the same on large ones. The boundary shows in the row sums.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from ddm.partition import Decomposition
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor

N_FEATURES = {
    "fine_nodes": 5,
    "coarse_nodes": 4,
    "fine_edges": 3,
    "coarse_edges": 2,
    "cross_edges": 7,
}


@dataclass(frozen=True)
class SchwarzGraph:
    """The network's input for one matrix, and where its outputs go.

    Attributes:
        graph: nodes are unknowns and subdomains; cross edges are the entries of the prolongation.
        local: (N,) cross edge of each local unknown of the decomposition.
        ring: (R,) local unknowns on a ring that have neighbours outside their subdomain.
        room: (R,) how much of their diagonals interface values may take, see `interface_room`.
        pair_row, pair_col: (Q,) indices into `ring` of coupled pairs, each pair once, row < col.
        degree: (R,) number of pairs of each ring unknown, at least 1.
        ring_entry: (R,) position of each ring unknown's diagonal in `decomposition.interface`.
        pair_entry: (2, Q) positions of each pair's two entries there.
        n_interface: length of `decomposition.interface`.
    """

    graph: TwoLevelGraph
    local: Tensor
    ring: Tensor
    room: Tensor
    degree: Tensor
    pair_row: Tensor
    pair_col: Tensor
    ring_entry: Tensor
    pair_entry: Tensor
    n_interface: int

    def to(self, device: torch.device | str) -> Self:
        """This input on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {k: v.to(device) for k, v in values.items() if not isinstance(v, int)}
        return replace(self, **moved)


def schwarz_graph(
    A: CSRTensor, decomposition: Decomposition, P: CSRTensor, dtype: torch.dtype = torch.float32
) -> SchwarzGraph:
    """Build the network's input from a matrix, its subdomains and a starting prolongation.

    Args:
        A: (n, n), symmetric, with positive diagonal.
        decomposition: of the same matrix.
        P: (n, S), one column a subdomain, whose pattern holds all local unknowns.
        dtype: of the features.

    Raises:
        ValueError: P does not fit the decomposition, a diagonal entry of A is not positive, or the
            pattern of A is not symmetric.
    """
    # Worked out on the host: the result moves as a whole, by its `to`.
    d, A, P = decomposition, A.detach().to("cpu"), P.detach().to("cpu")
    n, n_coarse = d.n, d.n_subdomains
    if tuple(P.shape) != (n, n_coarse):
        raise ValueError(f"P: expected shape {(n, n_coarse)}, got {tuple(P.shape)}")
    diagonal = A.diagonal().double().numpy()
    if not (diagonal > 0).all():
        raise ValueError(
            f"A: diagonal entry {int(np.argmin(diagonal))} is {diagonal.min():g}; MG-GNN needs a "
            "positive diagonal"
        )
    if not A.pattern.is_symmetric:
        raise ValueError("A: its pattern is not symmetric; symmetrise it with explicit zeros")
    a, row, col = A.values.double().numpy(), A.pattern.row.numpy(), A.pattern.col.numpy()
    multiplicity = d.multiplicity

    off = row != col
    row_sum = np.bincount(row, weights=a, minlength=n)
    fine_nodes = np.stack(
        [
            row_sum / diagonal,  # positive next to a Dirichlet boundary, else 0
            np.bincount(row[off], weights=np.maximum(a[off], 0), minlength=n) / diagonal,
            np.bincount(row[off], minlength=n) / 6.0 - 1.0,  # degree, against a regular mesh's
            multiplicity - 1.0,
            _hops_to_interface(A, d) / 4.0,
        ],
        axis=1,
    )
    same = d.owner[row] == d.owner[col]
    fine_edges = np.stack([a / np.sqrt(diagonal[row] * diagonal[col]), same, ~off], axis=1)

    coarse = (P.T @ (A @ P)).detach()
    c, c_row, c_col = coarse.values.double().numpy(), coarse.pattern.row, coarse.pattern.col
    c_row, c_col = c_row.numpy(), c_col.numpy()
    c_diagonal = coarse.diagonal().double().numpy()
    own_size = np.bincount(d.owner)
    coarse_nodes = np.stack(
        [
            np.log(own_size / 64.0),
            np.log(d.sizes / own_size),
            np.bincount(c_row, weights=c, minlength=n_coarse) / c_diagonal,
            np.bincount(c_row, minlength=n_coarse) / 6.0 - 1.0,
        ],
        axis=1,
    )
    coarse_edges = np.stack(
        [c / np.sqrt(c_diagonal[c_row] * c_diagonal[c_col]), c_row == c_col], axis=1
    )

    p_row, p_col = P.pattern.row.numpy(), P.pattern.col.numpy()
    keys, wanted = p_row.astype(np.int64) * n_coarse + p_col, d.node * n_coarse + d.subdomain
    local = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    if not (keys[local] == wanted).all():
        raise ValueError("P: its pattern lacks some unknowns of the overlapping subdomains")
    cross_edges = np.zeros((P.nnz, N_FEATURES["cross_edges"]))
    cross_edges[:, 0] = P.values.detach().double().numpy()
    cross_edges[local, 1] = 1.0 / multiplicity[d.node]
    cross_edges[local, 2] = d.own
    cross_edges[local, 3] = ~d.own
    cross_edges[local, 4] = d.outside / diagonal[d.node]
    cross_edges[local, 5] = d.layer / d.overlap
    room = interface_room(A, d)
    cross_edges[local, 6] = room / diagonal[d.node]

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(dtype)

    graph = TwoLevelGraph(
        fine=A.pattern,
        coarse=coarse.pattern,
        cross=P.pattern,
        fine_nodes=tensor(fine_nodes),
        coarse_nodes=tensor(coarse_nodes),
        fine_edges=tensor(fine_edges),
        coarse_edges=tensor(coarse_edges),
        cross_edges=tensor(cross_edges),
    )
    return SchwarzGraph(
        graph=graph,
        local=torch.from_numpy(local),
        n_interface=len(d.interface),
        **_interface(d, room),
    )


def interface_room(A: CSRTensor, d: Decomposition) -> np.ndarray:
    """How much of each local diagonal entry interface values may take, (N,).

    The smaller of `d.outside`, what the Neumann condition takes, and the amount by which the row of
    the local matrix is diagonally dominant, at least 0. For an M-matrix with nonnegative row sums
    the two agree. Where couplings are positive (obtuse triangles) the second is smaller, and taking
    `d.outside`, or half of it, can make local matrices indefinite.
    """
    values = A.values.detach().double().cpu().numpy()[d.block_source]
    on_diagonal = d.block_row == d.block_col
    signed = np.where(on_diagonal, values, -np.abs(values))
    excess = np.bincount(d.block_row, weights=signed, minlength=len(d.node))
    return np.clip(excess, 0.0, d.outside)


def _hops_to_interface(A: CSRTensor, d: Decomposition, most: int = 4) -> np.ndarray:
    """Graph distance to the nearest unknown held by several subdomains, cut off at `most`."""
    pattern = A.to_scipy()
    reached = d.multiplicity > 1
    hops = np.where(reached, 0, most).astype(np.float64)
    for hop in range(1, most):
        grown = reached | (abs(pattern) @ reached.astype(np.float64) > 0)
        hops[grown & ~reached] = hop
        reached = grown
    return hops


def _interface(d: Decomposition, room: np.ndarray) -> dict[str, Tensor]:
    """Ring unknowns and their couplings, by position in `d.interface`."""
    entry_row, entry_col = d.block_row[d.interface], d.block_col[d.interface]
    active = d.outside > 0
    position = np.full(len(d.node), -1)
    diagonal = np.flatnonzero((entry_row == entry_col) & active[entry_row])
    ring = entry_row[diagonal]
    position[ring] = np.arange(len(ring))
    pairs = np.flatnonzero((entry_row < entry_col) & active[entry_row] & active[entry_col])
    size = np.int64(len(d.node))
    mirror = np.searchsorted(
        entry_row * size + entry_col, entry_col[pairs] * size + entry_row[pairs]
    )
    first, second = position[entry_row[pairs]], position[entry_col[pairs]]
    degree = np.bincount(np.concatenate([first, second]), minlength=len(ring))
    arrays = {
        "ring": ring,
        "room": room[ring],
        "degree": np.maximum(degree, 1),
        "pair_row": first,
        "pair_col": second,
        "ring_entry": diagonal,
        "pair_entry": np.stack([pairs, mirror]),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
