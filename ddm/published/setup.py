"""A grid made ready for the published method, and the operators of a network's outputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from ddm.coarse import partition_of_unity, smooth
from ddm.exterior import interface_room
from ddm.interface import robin
from ddm.local import DenseBlocks, SingularError, SparseBlocks, local_solver
from ddm.partition import Decomposition, decompose
from ddm.published.grids import Grid
from ddm.published.inputs import Interpolation, PublishedGraph, published_graph
from ddm.schwarz import Schwarz
from graphnets.published import TwoLevelNet
from sparsetorch import CSRTensor


@dataclass(frozen=True, eq=False)
class PublishedSetup:
    """A matrix with overlapping subdomains, and what the network sees of it.

    Attributes:
        A: (n, n) matrix.
        decomposition: its subdomains.
        P0: (n, S) the partition of unity: the coarse space of RAS, and the loss's unit of energy.
        local: layout of the local matrices.
        seen, pattern: see `published_graph`.
        bounded: whether rows of L are scaled so that local matrices stay diagonally dominant; not
            published.
    """

    A: CSRTensor
    decomposition: Decomposition
    P0: CSRTensor
    local: DenseBlocks | SparseBlocks
    seen: Tensor | None = None
    pattern: Interpolation = "neighbours"
    bounded: bool = False

    @classmethod
    def of(
        cls,
        grid: Grid,
        *,
        overlap: int = 1,
        pattern: Interpolation = "neighbours",
        bounded: bool = False,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """Make a grid ready.

        Raises:
            TypeError, ValueError: see `decompose`.
        """
        decomposition = decompose(grid.A, grid.owner, overlap)
        A = CSRTensor.from_scipy(grid.A, dtype=dtype)
        seen = None if grid.seen is None else torch.from_numpy(grid.seen)
        P0 = partition_of_unity(decomposition, dtype)
        return cls(A, decomposition, P0, local_solver(decomposition), seen, pattern, bounded)

    @cached_property
    def inputs(self) -> PublishedGraph:
        """What a network sees, in float32 whatever the matrix has."""
        inputs = published_graph(self.A, self.decomposition, self.seen, self.pattern)
        return inputs.to(self.A.device)

    def to(self, device: torch.device | str) -> Self:
        """This setup on a device; the decomposition stays on the host."""
        if self.A.device == torch.device(device):
            return self
        A, P0, local = self.A.to(device), self.P0.to(device), self.local.to(device)
        moved = replace(self, A=A, P0=P0, local=local)
        # What the network sees is worked out on the host, once.
        moved.__dict__["inputs"] = self.inputs.to(device)
        return moved

    def classical(self, theta: float = 1.0, smoothing: int = 0) -> Schwarz:
        """Two-level ORAS with one Robin weight and a number of Jacobi steps on P0.

        The defaults are RAS, the published baseline.
        """
        interface = None
        if theta != 1.0:
            interface = robin(self.decomposition, theta, self.A.dtype).to(self.A.device)
        P = smooth(self.P0, self.A, smoothing)
        return Schwarz(self.A, self.decomposition, interface=interface, P=P, local=self.local)

    def learned(self, net: TwoLevelNet) -> Schwarz:
        """Two-level ORAS with a network's values; differentiable in its parameters.

        Raises:
            SingularError: a local matrix or the coarse one is singular, or has NaN or infinity:
                nothing in the published method forbids it, unless it is `bounded`.
        """
        inputs = self.inputs
        return self.with_values(*net(inputs.graph, inputs.row, inputs.col))

    def with_values(self, ring: Tensor, cross: Tensor) -> Schwarz:
        """Two-level ORAS with L from values at ring edges and P from values at its entries.

        Args:
            ring: (R,) a value of L for each directed ring edge of `inputs`.
            cross: (nnz,) entries of P, whose rows are then divided by their sums; or factors of the
                smoothed partition of unity's entries, whose rows then get back their sums.

        Raises:
            SingularError: a local matrix or the coarse one is singular, or has NaN or infinity.
        """
        interface = ring.index_select(0, self.inputs.edge).to(self.A.dtype)
        if self.bounded:
            interface = self._bounded(interface)
        P = CSRTensor(self.inputs.graph.cross, cross.to(self.A.dtype))
        sums: Tensor | float = 1.0
        if self.pattern == "smoothed":
            smoothed = P.with_values(self.inputs.graph.cross_edges[:, 1].to(self.A.dtype))
            P, sums = P.with_values(P.values * smoothed.values), smoothed.sum(-1)
        P = P.scale_rows(sums / P.sum(-1))
        for name, found in (("ring", interface), ("cross", P.values)):
            if not bool(found.isfinite().all()):
                raise SingularError(f"{name}: L or P of these values has NaN or infinity")
        return Schwarz(self.A, self.decomposition, interface=interface, P=P, local=self.local)

    def _bounded(self, interface: Tensor) -> Tensor:
        """Each row of L times r / (r + s), r its room and s its absolute sum: below r, all told."""
        row, room = self._room
        sums = torch.zeros_like(room).index_add(0, row, interface.abs())
        share = room / (room + sums).clamp(min=torch.finfo(room.dtype).tiny)
        return interface * share.index_select(0, row)

    @cached_property
    def _room(self) -> tuple[Tensor, Tensor]:
        """The local row of each interface value, and `interface_room`, (N,)."""
        d = self.decomposition
        row = torch.from_numpy(d.block_row[d.interface])
        room = torch.from_numpy(interface_room(self.A, d)).to(self.A.dtype)
        return row.to(self.A.device), room.to(self.A.device)
