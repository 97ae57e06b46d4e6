"""A matrix made ready for two-level methods: all that Robin weights and networks leave alone."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ddm.coarse import coarse_vectors
from ddm.coarse.nicolaides import local_modes, partition_of_unity, prolongation_of
from ddm.coarse.smoothing import jacobi_step
from ddm.enrichment import enriched
from ddm.exterior import exterior
from ddm.features import SchwarzGraph, schwarz_graph
from ddm.given import check_not_beside, check_sum
from ddm.interface import check_theta
from ddm.learned import InterfaceNet
from ddm.local import DenseBlocks, SparseBlocks, local_solver
from ddm.matrix_properties import is_z_matrix
from ddm.partition import Decomposition, decompose, find_local
from ddm.problems.problem import Elements, Problem
from ddm.schwarz import Schwarz, check_factor_dtype
from sparsetorch import CSRTensor, hstack
from sparsetorch.checks import check_count


@dataclass(frozen=True, eq=False)
class Setup:
    """A matrix with subdomains, a coarse space before smoothing, and a layout of local matrices.

    Attributes:
        A: (n, n) matrix.
        decomposition: its overlapping subdomains.
        unity: (n, columns) prolongation with the plain partition of unity.
        unity_node: (nnz of unity,) local node of each of its entries.
        smoother: `I - omega D^-1 A`, a step of smoothing.
        smoothing: number of such steps.
        exterior: (len(decomposition.interface),) see `ddm.exterior`.
        local: layout of the local matrices.
        symmetric: whether methods are symmetric ones, for CG: SORAS with both levels balanced
            instead of ORAS with the coarse level after the fine one.
        factor_dtype: of the local factors, see `Schwarz`.
        pieces: further columns of the coarse space of every method, see `enriched`.
        key: of the matrix; set-ups of one matrix with several decompositions may share it.
    """

    A: CSRTensor
    decomposition: Decomposition
    unity: CSRTensor
    unity_node: Tensor
    smoother: CSRTensor
    smoothing: int
    exterior: Tensor
    local: DenseBlocks | SparseBlocks
    symmetric: bool = False
    factor_dtype: torch.dtype | None = None
    pieces: CSRTensor | None = None
    key: Hashable = field(default_factory=object)

    @cached_property
    def P(self) -> CSRTensor:
        """The classical prolongation."""
        return self._smoothed(self.unity)

    def _smoothed(self, P: CSRTensor) -> CSRTensor:
        for _ in range(self.smoothing):
            P = self.smoother @ P
        return P

    @cached_property
    def inputs(self) -> SchwarzGraph:
        """What a network sees, in float32 whatever the matrix has."""
        columns = self.unity.shape[1] / self.decomposition.n_subdomains
        graph = schwarz_graph(
            self.A,
            self.decomposition,
            self.exterior,
            smoothing=self.smoothing,
            columns=columns,
        )
        return graph.to(self.A.device)

    @cached_property
    def _interface(self) -> tuple[Tensor, Tensor, Tensor]:
        """Local nodes of the rows and columns of interface values; (M,) multiplicities."""
        d = self.decomposition
        size = d.block_size
        rows, cols = d.block_row[d.interface] // size, d.block_col[d.interface] // size
        multiplicity = d.multiplicity[d.node[::size]].astype(np.float64)
        row, col, m = (torch.from_numpy(x).to(self.A.device) for x in (rows, cols, multiplicity))
        return row, col, m.to(self.A.dtype)

    def to(self, device: torch.device | str) -> Self:
        """This setup on a device; the decomposition stays on the host."""
        if self.A.device == torch.device(device):
            return self
        names = ("A", "unity", "unity_node", "smoother", "exterior", "local", "pieces")
        # The features are worked out on the host, once.
        return self._with(self.inputs.to(device), **self._moved(names, device))

    def in_precision(self, dtype: torch.dtype) -> Self:
        """This setup in another precision."""
        if self.A.dtype == dtype:
            return self
        names = ("A", "unity", "smoother", "exterior", "pieces")
        return self._with(self.inputs, **self._moved(names, dtype))

    def enriched(self, method: Schwarz, vectors: int) -> Self:
        """This setup with pieces of a method's slow errors in the coarse spaces of all methods.

        `ddm.enriched` does it for the one method. Done again, it adds to the pieces.

        Args:
            method: one of this setup's.
            vectors: number of errors.

        Raises:
            TypeError, ValueError: see `ddm.enriched`.
        """
        P = enriched(method, vectors).P
        assert P is not None
        pieces = P.detach()[:, self.unity.shape[1] :]
        assert isinstance(pieces, CSRTensor)
        return self._with(self.inputs, pieces=pieces)

    def _moved(self, names: Sequence[str], to: torch.device | str | torch.dtype) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in names}
        return {name: part.to(to) for name, part in parts.items() if part is not None}

    def _with(self, inputs: SchwarzGraph, **parts: Any) -> Self:
        """This setup with other parts, and features that are known."""
        other = replace(self, **parts)
        other.__dict__["inputs"] = inputs
        return other

    def classical(self, theta: float = 1.0) -> Schwarz:
        """Two-level ORAS with one Robin weight; RAS with the default.

        Local matrices are `theta A_i + (1 - theta) N_i`.

        Raises:
            ValueError: theta is negative or not finite; a singular local or coarse matrix.
        """
        check_theta(theta)
        interface = None if theta == 1.0 else (theta - 1.0) * self.exterior
        return self._method(interface, self.P)

    def learned(self, net: InterfaceNet) -> Schwarz:
        """Two-level ORAS with a network's Robin weights and partition of unity.

        Differentiable in the network's parameters.
        """
        return self.with_values(*net(self.inputs))

    def with_values(self, theta: Tensor, shift: Tensor) -> Schwarz:
        """Two-level ORAS with given Robin weights and partition of unity.

        Args:
            theta: (M,) positive weight of each local node; those off the ring have no effect.
            shift: (M,) what is added to its partition of unity, 1 / multiplicity.
        """
        row, col, multiplicity = self._interface
        root = theta.to(self.A.dtype).sqrt()
        weight = root.index_select(0, row) * root.index_select(0, col)
        factor = 1 + shift.to(self.A.dtype) * multiplicity
        values = self.unity.values * factor.index_select(0, self.unity_node)
        P = self._smoothed(self.unity.with_values(values))
        return self._method((weight - 1) * self.exterior, P)

    def _method(self, interface: Tensor | None, P: CSRTensor) -> Schwarz:
        if self.pieces is not None:
            P = hstack([P, self.pieces])
        options: dict[str, Any] = {"local": self.local, "factor_dtype": self.factor_dtype}
        if self.symmetric:
            options |= {"form": "symmetric", "levels": "balanced"}
        return Schwarz(self.A, self.decomposition, interface=interface, P=P, **options)


@torch.inference_mode(False)  # its tensors can take part in derivatives later
def set_up(
    A: sp.csr_array | Problem,
    owner: np.ndarray,
    *,
    smoothing: int = 1,
    overlap: int = 1,
    block_size: int | None = None,
    near_nullspace: np.ndarray | None = None,
    elements: Elements | None = None,
    coordinates: np.ndarray | None = None,
    linear: bool = True,
    symmetric: bool = False,
    local: str = "auto",
    dtype: torch.dtype = torch.float64,
    factor_dtype: torch.dtype | None = None,
) -> Setup:
    """Make a SciPy matrix, or a problem, ready.

    Args:
        A: (n, n) SciPy CSR array; or a problem, which then gives `block_size`, `near_nullspace`,
            `elements` and `coordinates`.
        owner: (n,) subdomain that owns each unknown, from `ddm.partition.partition`.
        smoothing: Jacobi steps on the partition of unity; 0 leaves it plain.
        overlap: graph layers.
        block_size: unknowns a node; None is one.
        near_nullspace: (n, k) vectors that the coarse space is to hold; None is constants, one for
            each component of a block.
        elements: element matrices, for the Neumann matrices of anything but M-matrices.
        coordinates: (n, d) positions of the unknowns: the coarse space then holds linear functions,
            too, see `ddm.coarse.with_linear`; None leaves them out, and so does `linear=False`.
        linear: whether coordinates are made use of.
        symmetric: whether methods are to be symmetric, for CG, see `Setup`. They need about twice
            the iterations of those for FGMRES, the default.
        local: "auto", "dense" or "sparse", see `ddm.local`.
        dtype: of the matrix, the local and the coarse solves, float64 or float32.
        factor_dtype: of the local solves alone, float32 or float64; None is `dtype`.

    Raises:
        TypeError, ValueError: see `decompose` and `local_solver`.
        ValueError: what a problem gives comes beside it; arrays that do not fit.
    """
    if isinstance(A, Problem):
        check_not_beside(
            block_size=block_size,
            near_nullspace=near_nullspace,
            elements=elements,
            coordinates=coordinates,
        )
        A = A.with_all_couplings()
        block_size, near_nullspace, elements = A.block_size, A.near_nullspace, A.elements
        A, coordinates = A.A, A.positions
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype: expected torch.float64 or torch.float32, got {dtype}")
    block_size = 1 if block_size is None else block_size
    smoothing = check_count("smoothing", smoothing, "Jacobi steps", least=0)
    if sp.issparse(A) and A.dtype.kind == "c":
        raise TypeError(f"A: expected real entries, got {A.dtype}; ddm.Schwarz takes complex ones")
    d = decompose(A, owner, overlap, block_size=block_size)
    matrix = CSRTensor.from_scipy(A, dtype=torch.float64)
    B = coarse_vectors(d, near_nullspace, coordinates if linear else None)
    unity, column_subdomain = _unity(d, B)
    # Matrices with zeros on the diagonal have no Jacobi step: with smoothing=0 nothing asks for it.
    smoother = jacobi_step(matrix, d.block_size) if smoothing else matrix
    rows, cols = unity.pattern.row.numpy(), unity.pattern.col.numpy()
    places = find_local(d.first, d.node, column_subdomain[cols], rows) // d.block_size
    if elements is not None and is_z_matrix(matrix):
        check_sum(elements, matrix.to_scipy())
        elements = None  # its own entries say as much
    outside = exterior(matrix, d, elements)
    return Setup(
        matrix.to(dtype),
        d,
        unity.to(dtype),
        torch.from_numpy(places),
        smoother.to(dtype),
        smoothing,
        outside.to(dtype),
        local_solver(d, local),
        symmetric,
        None if factor_dtype is None else check_factor_dtype(dtype, factor_dtype),
    )


def _unity(d: Decomposition, B: np.ndarray) -> tuple[CSRTensor, np.ndarray]:
    """Prolongation with the plain partition of unity, and the subdomain of each column."""
    if B.shape == (d.n, 1) and (B[0] == B).all():
        return partition_of_unity(d), np.arange(d.n_subdomains)
    local, keep, rows = local_modes(d, B)
    return prolongation_of(d, local, keep, rows), np.nonzero(keep.numpy())[0]
