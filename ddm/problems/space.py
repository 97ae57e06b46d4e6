"""P1 and P2 elements on triangles and tetrahedra, scalar or with one unknown a component."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from skfem import (
    Basis,
    BilinearForm,
    ElementTetP1,
    ElementTetP2,
    ElementTriP1,
    ElementTriP2,
    ElementVector,
    FacetBasis,
    LinearForm,
)

from ddm.mesh.build import check_mesh

ELEMENTS: dict[tuple[int, int], Any] = {
    (2, 1): ElementTriP1,
    (2, 2): ElementTriP2,
    (3, 1): ElementTetP1,
    (3, 2): ElementTetP2,
}


@dataclass(frozen=True)
class Space:
    """Finite elements on a mesh.

    Attributes:
        mesh: triangles or tetrahedra.
        block_size: components of a value.
        basis: scikit-fem's for one component, with quadrature points: that of all components
            would hold d^2 times the numbers, most of them zero.
        points: (d, nodes): the vertices, then the midpoints of edges for P2.
    """

    mesh: Any
    block_size: int
    basis: Any
    points: np.ndarray

    @property
    def x(self) -> np.ndarray:
        """Quadrature points, (d, m, q)."""
        return np.asarray(self.basis.global_coordinates())

    @property
    def size(self) -> int:
        """Number of degrees of freedom, boundary included."""
        return self.basis.N * self.block_size

    @property
    def dofs(self) -> np.ndarray:
        """Degrees of freedom of each element, boundary included, (m, k), node by node."""
        nodes = self.basis.element_dofs.T.astype(np.int64)
        blocks = nodes[:, :, None] * self.block_size + np.arange(self.block_size)
        return blocks.reshape(len(nodes), -1)

    def matrices(self, form: Callable[..., Any], dtype: type = np.float64) -> np.ndarray:
        """Element matrices of a scalar form of (u, v, w), (m, k, k): rows test, columns trial."""
        return BilinearForm(form, dtype=dtype).elemental(self.basis).tolocal().swapaxes(1, 2)

    def load(self, form: Callable[..., Any], dtype: type = np.float64) -> np.ndarray:
        """Load vector of a scalar form of (v, w), (nodes,)."""
        return LinearForm(form, dtype=dtype).assemble(self.basis)

    def on_facets(self, facets: np.ndarray) -> Any:
        """scikit-fem's basis of all components on facets."""
        element = self.basis.elem
        if self.block_size > 1:
            element = ElementVector(element, self.block_size)
        return FacetBasis(self.mesh, element, facets=facets)

    def nodes_of(self, facets: np.ndarray) -> np.ndarray:
        """Nodes on facets."""
        return np.unique(self.basis.get_dofs(facets).flatten())


def discretize(mesh: Any, degree: int = 1, block_size: int = 1) -> Space:
    """Elements of a degree on a mesh, which may be in pieces.

    Raises:
        TypeError: neither triangles nor tetrahedra.
        ValueError: a degree other than 1 and 2; a mesh with inverted or flat elements, coordinates
            that are not finite, or nodes without elements: see `ddm.mesh.check_mesh`.
    """
    check_mesh(mesh, pieces=True)
    if degree not in (1, 2):
        raise ValueError(f"degree: expected 1 or 2, got {degree}")
    basis = Basis(mesh, ELEMENTS[mesh.dim(), degree]())
    points = np.asarray(basis.doflocs).copy()
    points[:, : mesh.nvertices] = mesh.p
    return Space(mesh, block_size, basis, points)
