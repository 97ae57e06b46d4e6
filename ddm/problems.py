"""P1 finite-element problems: the matrix, the right-hand side, and where the unknowns lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from skfem import Basis, BilinearForm, ElementTriP1, LinearForm, MeshTri
from skfem.helpers import dot

Source = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Problem:
    """A linear system `A u = b` from a mesh; the boundary nodes are eliminated.

    Attributes:
        A: (n, n) symmetric positive definite SciPy CSR array, float64.
        b: (n,) right-hand side.
        mesh: the mesh.
        interior: (n,) mesh nodes that carry the unknowns.
    """

    A: sp.csr_array
    b: np.ndarray
    mesh: MeshTri
    interior: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """Positions of the unknowns, (n, 2)."""
        return self.mesh.p.T[self.interior]

    def extend(self, u: np.ndarray) -> np.ndarray:
        """Values at all mesh nodes, zero on the boundary, from the (n,) unknowns."""
        full = np.zeros(self.mesh.nvertices)
        full[self.interior] = u
        return full


def _laplace(u: Any, v: Any, _: object) -> Any:
    return dot(u.grad, v.grad)


def poisson(mesh: MeshTri, source: Source | float = 1.0) -> Problem:
    """P1 elements for `-div grad u = f` with `u = 0` on the whole boundary.

    Args:
        mesh: triangles.
        source: f, a constant or a function of (x, y) arrays.

    Raises:
        ValueError: the mesh has no interior node.
    """
    basis = Basis(mesh, ElementTriP1())
    f = source if callable(source) else (lambda x, y: np.full_like(x, float(source)))
    load = LinearForm(lambda v, w: f(w.x[0], w.x[1]) * v)
    interior = basis.complement_dofs(basis.get_dofs())
    if len(interior) == 0:
        raise ValueError("mesh: every node lies on the boundary; refine it")
    matrix = sp.csr_array(BilinearForm(_laplace).assemble(basis))[interior][:, interior]
    # Right angles give exact zeros that come out of assembly as 1e-17: no couplings, no edges.
    scale = abs(matrix.diagonal()).max()
    matrix.data[abs(matrix.data) < 1e-14 * scale] = 0.0
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Problem(matrix, load.assemble(basis)[interior], mesh, interior)
