"""Names of boundaries and parts in mesh files; elements that are inverted, flat or twice there."""

from typing import Any

import meshio
import numpy as np
import pytest
from manufactured import cube, square

from ddm.mesh import build_mesh, load_mesh, save_mesh
from ddm.problems import poisson

TET = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("name", ["mesh.msh", "mesh.vtu"])
@pytest.mark.parametrize("mesh", [square(5), cube(2)], ids=["2D", "3D"])
def test_names_survive_a_file(tmp_path, mesh, name):
    mesh = mesh.with_subdomains({"low": np.arange(5), "high": np.arange(5, 9)})
    save_mesh(mesh, tmp_path / name)
    again = load_mesh(tmp_path / name)
    assert type(again) is type(mesh)
    assert np.array_equal(again.t, mesh.t)
    assert np.allclose(again.p, mesh.p, rtol=1e-15, atol=1e-15)
    for read, written in ((again.boundaries, mesh.boundaries), (again.subdomains, mesh.subdomains)):
        assert set(read) == set(written)
        assert all(np.array_equal(np.sort(read[key]), np.sort(written[key])) for key in written)
    one, other = (poisson(m, dirichlet={"left": 1.0}) for m in (mesh, again))
    assert np.allclose(one.b, other.b)


@pytest.mark.parametrize("mesh", [square(4), cube(2)], ids=["2D", "3D"])
def test_a_mesh_without_names_is_read_without_names(tmp_path, mesh):
    save_mesh(build_mesh(mesh.p.T, mesh.t.T), tmp_path / "plain.msh")
    again = load_mesh(tmp_path / "plain.msh")
    assert not again.boundaries
    assert not again.subdomains


def test_groups_that_gmsh_writes_are_named(gmsh, tmp_path):
    """Version 4.1, binary, with a named and a nameless group."""
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.option.setNumber("Mesh.Binary", 1)
        gmsh.model.occ.addBox(0, 0, 0, 1, 1, 1)
        gmsh.model.occ.synchronize()
        gmsh.model.addPhysicalGroup(2, [1, 2], name="x sides")
        gmsh.model.addPhysicalGroup(2, [5], 77)
        gmsh.model.addPhysicalGroup(3, [1], name="rock")
        gmsh.option.setNumber("Mesh.MeshSizeMax", 0.4)
        gmsh.model.mesh.generate(3)
        gmsh.write(str(tmp_path / "box.msh"))
    finally:
        gmsh.finalize()
    mesh = load_mesh(tmp_path / "box.msh")
    assert set(mesh.boundaries) == {"x sides", "77"}
    assert set(mesh.subdomains) == {"rock"}
    x = mesh.p[0, mesh.facets[:, mesh.boundaries["x sides"]]]
    assert np.isin(x, [0, 1]).all()
    assert len(mesh.subdomains["rock"]) == mesh.nelements


def test_integer_arrays_of_other_files_are_names(tmp_path):
    mesh = square(4)
    edges = mesh.facets[:, mesh.boundaries["left"]].T
    cells: list[Any] = [("triangle", mesh.t.T), ("line", edges)]
    data = {
        "material": [1 + np.arange(mesh.nelements) % 2, np.zeros(len(edges), int)],
        "part": [np.zeros(mesh.nelements, int), np.full(len(edges), 4)],
        "temperature": [np.ones(mesh.nelements), np.ones(len(edges))],
    }
    points = np.column_stack([mesh.p.T, np.zeros(mesh.nvertices)])
    meshio.Mesh(points, cells, cell_data=data).write(tmp_path / "mesh.vtu")
    read = load_mesh(tmp_path / "mesh.vtu")
    assert set(read.boundaries) == {"part=4"}
    assert set(read.subdomains) == {"material=1", "material=2"}


def test_tetrahedra_win_over_their_faces(tmp_path):
    mesh = cube(2)
    cells: list[Any] = [("triangle", mesh.facets[:, mesh.boundary_facets()].T), ("tetra", mesh.t.T)]
    meshio.Mesh(mesh.p.T, cells).write(tmp_path / "mesh.vtu")
    assert np.array_equal(load_mesh(tmp_path / "mesh.vtu").t, mesh.t)


def test_quadratic_cells_are_refused(tmp_path):
    points = np.vstack([TET, (TET[[0, 1, 2, 0, 1, 2]] + TET[[1, 2, 0, 3, 3, 3]]) / 2])
    cells: list[Any] = [("tetra", np.arange(4)[None]), ("tetra10", np.arange(10)[None])]
    meshio.Mesh(points, cells).write(tmp_path / "mesh.vtu")
    with pytest.raises(ValueError, match="also has tetra10 cells; expected tetrahedra only"):
        load_mesh(tmp_path / "mesh.vtu")


def test_names_that_a_msh_file_cannot_hold_are_refused(tmp_path):
    mesh = square(4)
    overlap = mesh.with_subdomains({"a": np.arange(3), "b": np.arange(2, 5)})
    with pytest.raises(ValueError, match=r"subdomain 'b' overlaps another; write it as \.vtu"):
        save_mesh(overlap, tmp_path / "mesh.msh")
    save_mesh(overlap, tmp_path / "mesh.vtu")
    assert np.array_equal(load_mesh(tmp_path / "mesh.vtu").subdomains["b"], [2, 3, 4])
    twice = mesh.with_subdomains({"left": np.arange(3)})
    with pytest.raises(ValueError, match=r"\['left'\] name both boundaries and subdomains"):
        save_mesh(twice, tmp_path / "mesh.msh")


def inverted(mesh):
    """An interior node moved far beyond its neighbours."""
    points = mesh.p.copy()
    node = mesh.interior_nodes()[0]
    points[:, node] += 0.6
    return points.T, mesh.t.T


@pytest.mark.parametrize(
    ("points", "cells", "message"),
    [
        (TET, np.zeros((0, 4), int), "mesh: it has no tetrahedra"),
        (TET, [[0, 1, 2, 4]], "mesh: tetrahedra name nodes 0 to 4, but there are 4 nodes"),
        (TET * [1, 1, 1e-14], [[0, 1, 2, 3]], "mesh: 1 tetrahedra have no volume, the first is 0"),
        (TET, [[0, 1, 2]], r"mesh: expected points \(n, 2\) with triangles"),
        (*inverted(cube(3)), "pairs of tetrahedra lie on one side of the facet .* inverted"),
        (*inverted(square(5)), "pairs of triangles lie on one side of the facet .* inverted"),
        (TET[:, :2], [[0, 1, 2], [0, 1, 2]], "mesh: 3 pairs of triangles lie on one side"),
        (
            np.array([[0.0, 0], [1, 0], [0, 1], [0, -1], [1, 2]]),
            [[0, 1, 2], [0, 1, 3], [0, 1, 4]],
            "mesh: 1 facets have more than two triangles",
        ),
    ],
)
def test_elements_that_make_no_mesh_are_refused(points, cells, message):
    with pytest.raises(ValueError, match=message):
        build_mesh(points, np.asarray(cells))


@pytest.mark.parametrize("mesh", [square(5), cube(3)], ids=["2D", "3D"])
def test_the_order_of_corners_does_not_matter(mesh):
    """Quadratic elements have unknowns on edges, which must find each other."""
    turned = np.random.default_rng(0).permuted(mesh.t.T, axis=1)
    for degree in (1, 2):
        one, other = (
            poisson(build_mesh(mesh.p.T, cells), degree=degree) for cells in (mesh.t.T, turned)
        )
        order, other_order = (np.lexsort(p.coordinates.T.round(9)) for p in (one, other))
        A, B = one.A.toarray(), other.A.toarray()
        assert np.allclose(A[np.ix_(order, order)], B[np.ix_(other_order, other_order)])


def test_named_pieces_must_be_facets():
    mesh = square(4)
    with pytest.raises(ValueError, match="boundary 'cut' has 1 pieces that are not facets"):
        build_mesh(mesh.p.T, mesh.t.T, {"cut": np.array([[0, mesh.nvertices - 1]])})
