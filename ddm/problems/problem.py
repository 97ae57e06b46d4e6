"""A linear system, and what is known about where it comes from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp

Kind = Literal["spd", "symmetric", "general"]


@dataclass(frozen=True, eq=False)
class Elements:
    """Element matrices: their sum is A, and sums over some elements are its Neumann matrices.

    Attributes:
        dofs: (m, k) int64 unknowns of each element, -1 where a boundary condition eliminated one.
        matrices: (m, k, k), rows and columns numbered like `dofs`; those of -1 are to be skipped.
    """

    dofs: np.ndarray
    matrices: np.ndarray

    @cached_property
    def couplings(self) -> int:
        """Entries that the sum of all matrices stores; `assemble` notes them."""
        return self.assemble(int(self.dofs.max(initial=-1)) + 1).nnz

    def assemble(self, n: int, chosen: np.ndarray | None = None) -> sp.csr_array:
        """Sum of all matrices, or of the chosen elements', as an (n, n) CSR array.

        Args:
            n: number of unknowns.
            chosen: element numbers, or a mask (m,).
        """
        dofs, matrices = self.dofs, self.matrices
        if chosen is not None:
            dofs, matrices = dofs[chosen], matrices[chosen]
        k = dofs.shape[1]
        small = dofs.astype(np.int32 if n < 2**31 else np.int64)
        row, col, data = np.repeat(small, k), np.tile(small, k).ravel(), matrices.ravel()
        if (small < 0).any():
            kept = (row >= 0) & (col >= 0)
            row, col, data = row[kept], col[kept], data[kept]
        found = sp.csr_array(sp.coo_array((data, (row, col)), shape=(n, n)))
        if chosen is None:
            self.__dict__["couplings"] = found.nnz
        return found


@dataclass(frozen=True, eq=False)
class Problem:
    """A linear system `A u = b`, from a mesh, a graph or a matrix.

    Unknowns are numbered node by node: unknown = block_size * (place in `interior`) + component.

    Attributes:
        A: (n, n) SciPy CSR array, float64 or complex128.
        b: (n,) right-hand side.
        mesh: scikit-fem's MeshTri or MeshTet; None for a graph or a matrix.
        interior: (n / block_size,) nodes that carry unknowns. Nodes of P1 elements are the mesh's;
            those of P2 elements are its vertices, then the midpoints of its edges.
        positions: (n, d) coordinates of the unknowns; None where they are unknown.
        boundary_values: (nodes * block_size,) prescribed values, 0 at unknowns; None: all 0.
        block_size: unknowns a node.
        near_nullspace: (n, k) vectors of small energy: constants, or rigid-body modes.
        kind: "spd": Hermitian positive definite; "symmetric": A = A^T (not conjugated);
            "general": neither, or not known.
        elements: the element matrices that sum to A; None where there are none.
        nullspace: (n, k) orthonormal null vectors of a singular A, whose range b is in; None for a
            regular one.
        fixed: (n,) whether an unknown is zero in the place of a null vector, and b there; None
            where none is.
    """

    A: sp.csr_array
    b: np.ndarray
    mesh: Any
    interior: np.ndarray
    positions: np.ndarray | None = None
    boundary_values: np.ndarray | None = None
    block_size: int = 1
    near_nullspace: np.ndarray | None = None
    kind: Kind = "general"
    elements: Elements | None = None
    nullspace: np.ndarray | None = None
    fixed: np.ndarray | None = None

    def __repr__(self) -> str:
        n, size = len(self.b), self.block_size
        said = f"{n} unknowns, {self.A.nnz} entries, {self.A.dtype}, {self.kind}"
        if size > 1:
            said += f", {size} unknowns a node"
        if self.nullspace is not None:
            said += f", {self.nullspace.shape[1]} null vectors"
        if self.fixed is not None:
            said += f", {int(self.fixed.sum())} fixed"
        return f"Problem({said})"

    @property
    def coordinates(self) -> np.ndarray:
        """Positions of the unknowns, (n, d).

        Raises:
            ValueError: nobody said where they are.
        """
        if self.positions is None:
            raise ValueError(
                "problem: its unknowns have no coordinates; give them when it is made "
                "(coordinates=)"
            )
        return self.positions

    def with_all_couplings(self) -> Self:
        """This problem with a stored zero in A where couplings of elements cancel.

        Neumann matrices of some of the elements have entries there.
        """
        A = self.A
        if self.elements is None or self.elements.couplings == A.nnz:
            return self
        summed = self.elements.assemble(A.shape[0]).tocoo()
        own = A.tocoo()
        data = np.concatenate([own.data, np.zeros(summed.nnz, A.dtype)])
        places = (np.concatenate([own.row, summed.row]), np.concatenate([own.col, summed.col]))
        return replace(self, A=sp.csr_array(sp.coo_array((data, places), shape=A.shape)))

    def extend(self, u: np.ndarray) -> np.ndarray:
        """Values at all nodes, with the prescribed ones, from the (n,) unknowns.

        Returns:
            (nodes,), or (nodes, block_size) for blocks; a mesh's vertices come first.

        Raises:
            ValueError: u has another shape.
        """
        u, size = np.asarray(u), self.block_size
        if u.shape != self.b.shape:
            raise ValueError(f"u: expected shape {self.b.shape}, got {u.shape}")
        if self.boundary_values is None:
            values = np.zeros((1 + self.interior.max()) * size, u.dtype)
        else:
            values = self.boundary_values.astype(np.result_type(u, self.boundary_values))
        full = values.reshape(-1, size)
        full[self.interior] = u.reshape(-1, size)
        return full[:, 0] if size == 1 else full
