"""Meshes of scikit-fem's own, checked like those that this library makes."""

import numpy as np
import pytest
from manufactured import cube
from skfem import MeshQuad, MeshTet, MeshTri
from small_problems import delaunay

from ddm.mesh import check_mesh


def moved(mesh, step: float):
    """The mesh with one inner node moved."""
    points = mesh.p.copy()
    points[:, mesh.interior_nodes()[0]] += step
    return type(mesh)(points, mesh.t)


def test_good_meshes_pass():
    for mesh in (delaunay(6), cube(3), MeshTri().refined(2), MeshTet().refined(1)):
        check_mesh(mesh)


@pytest.mark.parametrize("mesh", [delaunay(8), cube(3)], ids=["triangles", "tetrahedra"])
def test_a_node_that_moves_too_far_inverts_elements(mesh):
    check_mesh(moved(mesh, 0.01))
    with pytest.raises(ValueError, match=r"lie on one side of the facet .*inverted"):
        check_mesh(moved(mesh, 0.4))


def test_other_damage_is_named():
    square = MeshTri()
    flat = MeshTri(np.array([[0, 1, 2, 0], [0, 0, 0, 1.0]]), np.array([[0, 0], [1, 1], [2, 3]]))
    apart = MeshTri(
        np.concatenate([square.p, square.p + 5], axis=1),
        np.concatenate([square.t, square.t + 4], axis=1),
    )
    alone = MeshTri(np.concatenate([square.p, [[3.0], [3.0]]], axis=1), square.t, validate=False)
    nan = MeshTri(np.where(square.p == 1, np.nan, square.p), square.t)
    for mesh, message in (
        (flat, "1 triangles have no area, the first is 0"),
        (apart, "2 connected components"),
        (alone, "1 nodes belong to no element, the first is 4"),
        (nan, "some coordinates are not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            check_mesh(mesh)
    with pytest.raises(TypeError, match="expected a MeshTri or a MeshTet, got MeshQuad1"):
        check_mesh(MeshQuad())
