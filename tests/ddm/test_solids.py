"""Tetrahedral meshes: solids, CAD files, and their named boundaries."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from manufactured import cube

import ddm.mesh
from ddm.mesh import build_mesh, distort, mesh_box, mesh_cad, mesh_hull, random_solid
from ddm.mesh.build import signed_sizes
from ddm.problems import poisson

pytestmark = pytest.mark.usefixtures("gmsh")
SIX = {"left", "right", "front", "back", "bottom", "top"}


def covered(mesh) -> bool:
    """Whether the named boundaries are the whole boundary, without a facet in two of them."""
    named = np.concatenate(list(mesh.boundaries.values()))
    return np.array_equal(np.sort(named), np.sort(mesh.boundary_facets()))


def area(mesh, facets) -> float:
    a, b, c = mesh.p[:, mesh.facets[:, facets]].transpose(1, 2, 0)
    return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()


@pytest.mark.parametrize("seed", range(4))
def test_random_solids_have_the_wanted_size_and_good_tetrahedra(seed):
    mesh = random_solid(seed, 500)
    assert mesh.nvertices == pytest.approx(500, rel=0.2)
    size = abs(signed_sizes(mesh))
    assert size.min() > 1e-3 * size.mean()
    assert covered(mesh)
    again = build_mesh(mesh.p.T, mesh.t.T)
    assert np.array_equal(again.p, mesh.p)
    assert np.array_equal(random_solid(seed, 500).p, mesh.p)


def test_a_hull_of_a_cube_is_the_cube():
    corners = np.stack(np.meshgrid([0, 1], [0, 2], [0, 3]), axis=-1).reshape(-1, 3)
    mesh = mesh_hull(np.vstack([corners, [[0.5, 1, 1]]]), n_nodes=300)
    assert abs(signed_sizes(mesh)).sum() == pytest.approx(6)
    assert len(mesh.boundaries) == 6
    areas = sorted(area(mesh, facets) for facets in mesh.boundaries.values())
    assert areas == pytest.approx([2, 2, 3, 3, 6, 6])
    assert covered(mesh)


def test_a_box_with_a_hole_has_named_sides():
    mesh = mesh_box(n_nodes=1500, size=(1, 2, 1), holes=[(0.5, 1, 0.5, 0.3)])
    assert set(mesh.boundaries) == SIX | {"holes"}
    assert covered(mesh)
    assert mesh.nvertices == pytest.approx(1500, rel=0.15)
    assert area(mesh, mesh.boundaries["front"]) == pytest.approx(1)
    assert area(mesh, mesh.boundaries["left"]) == pytest.approx(2)
    assert area(mesh, mesh.boundaries["holes"]) == pytest.approx(4 * np.pi * 0.09, rel=0.05)
    assert abs(signed_sizes(mesh)).sum() == pytest.approx(2 - 4 / 3 * np.pi * 0.027, rel=0.01)
    u = poisson(mesh, 0.0, dirichlet={"holes": 1.0, "left": 1.0})
    assert len(u.b) > 1000


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: mesh_hull(np.eye(3), n_nodes=100), "points: they span no volume"),
        (lambda: mesh_hull(np.ones((5, 2)), n_nodes=100), r"points: .* of shape \(k, 3\)"),
        (lambda: mesh_box(n_nodes=3), "n_nodes: expected at least 8, got 3"),
        (lambda: mesh_box(n_nodes=100, size=(1, 0, 1)), "size: expected three positive lengths"),
        (lambda: mesh_box(n_nodes=100, holes=[(0, 0, 0, -1)]), r"holes\[0\]: expected \(x, y, z,"),
        (lambda: mesh_box(n_nodes=100, holes=[(0.5, 0.5, 0.5, 2)]), "holes: they leave 0 pieces"),
        (
            lambda: mesh_box(n_nodes=100, size=(1, 1, 4), holes=[(0.5, 0.5, 2, 0.8)]),
            "holes: they leave 2 pieces",
        ),
    ],
)
def test_shapes_that_are_none_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def write_cad(gmsh, path: Path) -> None:
    """A box and a cylinder that touch; in IGES the box alone."""
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        occ = gmsh.model.occ
        occ.addBox(0, 0, 0, 1, 1, 1)
        if path.suffix != ".igs":
            occ.addCylinder(1, 0.5, 0.5, 1, 0, 0, 0.3)
        occ.synchronize()
        gmsh.write(str(path))
    finally:
        gmsh.finalize()


@pytest.mark.parametrize("name", ["part.step", "part.brep"])
def test_an_assembly_becomes_one_mesh_with_its_parts(gmsh, tmp_path, name):
    write_cad(gmsh, tmp_path / name)
    mesh = mesh_cad(tmp_path / name, 800)
    assert mesh.nvertices == pytest.approx(800, rel=0.2)
    volumes = [abs(signed_sizes(mesh)[part]).sum() for part in mesh.subdomains.values()]
    assert sorted(volumes) == pytest.approx([np.pi * 0.09, 1.0], rel=0.05)
    assert covered(mesh)


def test_surfaces_of_an_iges_file_are_closed_to_a_solid(gmsh, tmp_path):
    write_cad(gmsh, tmp_path / "box.igs")
    mesh = mesh_cad(tmp_path / "box.igs", 300)
    assert abs(signed_sizes(mesh)).sum() == pytest.approx(1)
    assert len(mesh.boundaries) == 6


def test_an_stl_surface_is_filled(tmp_path):
    """The boundary of a mesh, written as triangles and filled again."""
    mesh = mesh_box(n_nodes=300, size=(1, 2, 1))
    lines = ["solid box"]
    for facet in mesh.boundary_facets():
        corners = mesh.p[:, mesh.facets[:, facet]].T
        inside = mesh.p.mean(axis=1)
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        if normal @ (corners[0] - inside) < 0:
            corners = corners[::-1]
        lines += ["facet normal 0 0 0", "outer loop"]
        lines += [f"vertex {x:.17g} {y:.17g} {z:.17g}" for x, y, z in corners]
        lines += ["endloop", "endfacet"]
    (tmp_path / "box.stl").write_text("\n".join([*lines, "endsolid box"]))
    filled = mesh_cad(tmp_path / "box.stl", 600)
    assert abs(signed_sizes(filled)).sum() == pytest.approx(2)
    assert filled.nvertices == pytest.approx(600, rel=0.25)
    assert covered(filled)
    for facets in filled.boundaries.values():  # pieces of the six sides
        assert (np.ptp(filled.p[:, filled.facets[:, facets]], axis=(1, 2)) < 1e-9).sum() == 1


def test_cad_files_that_hold_no_solid_are_refused(gmsh, tmp_path):
    with pytest.raises(FileNotFoundError, match="path: no CAD file"):
        mesh_cad(tmp_path / "none.step", 100)
    for name in ("bad.step", "bad.stl"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ValueError, match=rf"path: .*{name}"):
            mesh_cad(tmp_path / name, 100)
    (tmp_path / "mesh.obj").write_text("v 0 0 0")
    with pytest.raises(ValueError, match=r"path: expected \.step, .* got mesh\.obj"):
        mesh_cad(tmp_path / "mesh.obj", 100)
    write_cad(gmsh, tmp_path / "part.step")
    with pytest.raises(ValueError, match="n_nodes: expected at least 8, got 1"):
        mesh_cad(tmp_path / "part.step", 1)
    with pytest.raises(ValueError, match=r"n_nodes: the shape needs .* nodes or more"):
        mesh_cad(tmp_path / "part.step", 9)


def test_distortion_moves_the_interior_and_stretches_all():
    mesh: Any = cube(4)
    moved = distort(mesh, 0.3, 1.0, seed=1)
    boundary = mesh.boundary_nodes()
    assert np.array_equal(moved.p[:, boundary], mesh.p[:, boundary])
    assert (moved.p != mesh.p)[:, mesh.interior_nodes()].any(axis=0).all()
    assert (signed_sizes(moved) * signed_sizes(mesh) > 0).all()
    assert set(moved.boundaries) == set(mesh.boundaries)
    stretched = distort(mesh, 0.0, 2.0, seed=1)
    assert np.allclose(signed_sizes(stretched), 2 * signed_sizes(mesh))
    with pytest.raises(ValueError, match="turned a tetrahedron over"):
        distort(mesh, 3.0, 1.0, seed=0)


def test_plane_domains_name_their_outlines():
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=float)
    mesh: Any = ddm.mesh.mesh_domain(corners, n_nodes=300, holes=[0.2 * corners + 0.4])
    assert set(mesh.boundaries) == {"outline", "hole 0"}
    assert covered(mesh)
    a, b = mesh.p[:, mesh.facets[:, mesh.boundaries["hole 0"]]].transpose(1, 2, 0)
    assert np.linalg.norm(a - b, axis=1).sum() == pytest.approx(0.8)
