"""A matrix made ready for two-level methods: all that Robin weights and networks leave alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.coarse import partition_of_unity, smooth
from ddm.features import SchwarzGraph, schwarz_graph
from ddm.interface import robin
from ddm.learned import InterfaceNet
from ddm.local import DenseBlocks, SparseBlocks, local_solver
from ddm.partition import Decomposition, decompose
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor


@dataclass(frozen=True)
class Setup:
    """A matrix with subdomains, a classical prolongation, and a layout of its local matrices.

    Attributes:
        A: (n, n) matrix.
        decomposition: its overlapping subdomains.
        P: (n, S) the classical prolongation, which a network corrects.
        local: layout of the local matrices.
    """

    A: CSRTensor
    decomposition: Decomposition
    P: CSRTensor
    local: DenseBlocks | SparseBlocks

    @cached_property
    def inputs(self) -> SchwarzGraph:
        """What a network sees, in float32 whatever the matrix has."""
        return schwarz_graph(self.A, self.decomposition, self.P).to(self.A.device)

    def to(self, device: torch.device | str) -> Self:
        """This setup on a device; the decomposition stays on the host."""
        if self.A.device == torch.device(device):
            return self
        moved = type(self)(
            self.A.to(device),
            self.decomposition,
            self.P.to(device),
            self.local.to(device),
        )
        # The features are worked out on the host, once.
        moved.__dict__["inputs"] = self.inputs.to(device)
        return moved

    def classical(self, theta: float = 1.0) -> Schwarz:
        """Two-level ORAS with one Robin weight; RAS with the default."""
        interface = None if theta == 1.0 else robin(self.decomposition, theta, self.A.dtype)
        return Schwarz(self.A, self.decomposition, interface=interface, P=self.P, local=self.local)

    def learned(self, net: InterfaceNet) -> Schwarz:
        """Two-level ORAS with a network's interface values and prolongation.

        Differentiable in the network's parameters.
        """
        return self.with_values(*net(self.inputs))

    def with_values(self, interface: Tensor, correction: Tensor) -> Schwarz:
        """Two-level ORAS with given interface values and correction of the prolongation."""
        P = self.P.with_values(self.P.values + correction.to(self.P.dtype))
        return Schwarz(
            self.A,
            self.decomposition,
            interface=interface.to(self.A.dtype),
            P=P,
            local=self.local,
        )


def set_up(
    A: sp.csr_array,
    owner: np.ndarray,
    *,
    smoothing: int = 1,
    overlap: int = 1,
    local: str = "auto",
    dtype: torch.dtype = torch.float64,
) -> Setup:
    """Make a SciPy matrix ready.

    Args:
        A: (n, n) SciPy CSR array.
        owner: (n,) subdomain that owns each unknown, from `ddm.partition.partition`.
        smoothing: Jacobi steps on the partition of unity; 0 leaves it plain.
        overlap: graph layers.
        local: "auto", "dense" or "sparse", see `ddm.local`.
        dtype: of the matrix, the local and the coarse solves.

    Raises:
        TypeError, ValueError: see `decompose` and `local_solver`.
    """
    if smoothing != int(smoothing) or smoothing < 0:
        raise ValueError(f"smoothing: expected a number of Jacobi steps, got {smoothing}")
    if sp.issparse(A) and A.dtype.kind == "c":
        raise TypeError(f"A: expected real entries, got {A.dtype}; ddm.Schwarz takes complex ones")
    decomposition = decompose(A, owner, overlap)
    matrix = CSRTensor.from_scipy(A, dtype=torch.float64)
    P = smooth(partition_of_unity(decomposition), matrix, smoothing)
    matrix, P = (t.with_values(t.values.to(dtype)) for t in (matrix, P))
    return Setup(matrix, decomposition, P, local_solver(decomposition, local))
