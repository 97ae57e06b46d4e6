"""Mesh files: round trips, what is wrong with bad ones, and a gmsh that cannot load."""

import importlib

import meshio
import numpy as np
import pytest
from skfem import MeshTet
from small_problems import delaunay, unit_square

from ddm.mesh import GmshUnavailableError, build_mesh, load_mesh, random_mesh, save_mesh

TRIANGLE = np.array([[0.0, 0], [1, 0], [0, 1]])


@pytest.mark.parametrize("name", ["mesh.msh", "mesh.vtu", "mesh.obj"])
def test_a_saved_mesh_is_read_back(tmp_path, name):
    mesh = delaunay(8)
    save_mesh(mesh, tmp_path / name)
    again = load_mesh(tmp_path / name)
    assert np.array_equal(again.t, mesh.t)
    assert np.allclose(again.p, mesh.p, rtol=1e-15, atol=1e-15)


def test_a_kill_while_a_mesh_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "mesh.msh"
    save_mesh(unit_square(1), path)

    def killed(self, path, **options):
        path.write_text("half a mesh")
        raise KeyboardInterrupt

    monkeypatch.setattr("meshio.Mesh.write", killed)
    with pytest.raises(KeyboardInterrupt):
        save_mesh(delaunay(8), path)
    assert list(tmp_path.iterdir()) == [path]
    assert load_mesh(path).nelements == 8


def test_a_format_of_two_files_keeps_both(tmp_path):
    path = tmp_path / "mesh.node"
    save_mesh(unit_cube := MeshTet().refined(1), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mesh.ele", "mesh.node"]
    assert load_mesh(path).nelements == unit_cube.nelements


def test_reading_says_nothing_on_the_terminal(tmp_path, capfd):
    save_mesh(unit_square(1), tmp_path / "mesh.msh")
    load_mesh(tmp_path / "mesh.msh")
    (tmp_path / "bad.msh").write_text("not a mesh")
    with pytest.raises(ValueError, match="path: "):
        load_mesh(tmp_path / "bad.msh")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mesh.msh", "mesh.vtu", "mesh.obj", "mesh.nothing"])
@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(256))])
def test_a_file_that_is_no_mesh_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"path: .*{name}"):
        load_mesh(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "mesh.msh"
    save_mesh(delaunay(8), path)
    path.write_text(path.read_text()[:1000])
    with pytest.raises(ValueError, match=r"path: .*mesh\.msh is not a mesh file"):
        load_mesh(path)


@pytest.mark.parametrize("name", ["nothing.msh", "."])
def test_a_missing_file_is_not_found(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="path: no mesh file"):
        load_mesh(tmp_path / name)


def test_a_file_without_triangles_is_refused(tmp_path):
    path = tmp_path / "lines.vtu"
    meshio.Mesh(np.eye(3), [("line", np.array([[0, 1], [1, 2]]))]).write(path)
    with pytest.raises(ValueError, match="has no triangles or tetrahedra; its cell types: line"):
        load_mesh(path)


def test_a_file_that_names_missing_vertices_is_refused(tmp_path):
    path = tmp_path / "missing.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n")
    with pytest.raises(ValueError, match=r"missing\.obj names vertices 0 to 8 of 3"):
        load_mesh(path)


def test_a_surface_in_space_is_refused(tmp_path):
    path = tmp_path / "surface.vtu"
    meshio.Mesh(np.eye(3), [("triangle", np.array([[0, 1, 2]]))]).write(path)
    with pytest.raises(ValueError, match=r"surface\.vtu is not plane: z goes from 0\.0 to 1\.0"):
        load_mesh(path)


@pytest.mark.parametrize(
    ("points", "triangles", "message"),
    [
        (TRIANGLE, np.zeros((0, 3), int), "mesh: it has no triangles"),
        (TRIANGLE, [[0, 1, 3]], "mesh: triangles name nodes 0 to 3, but there are 3 nodes"),
        (TRIANGLE, [[0, 1, -1]], "mesh: triangles name nodes -1 to 1"),
        (TRIANGLE * [np.nan, 1], [[0, 1, 2]], "mesh: some coordinates are not finite"),
        (TRIANGLE * [1, 0], [[0, 1, 2]], "mesh: 1 triangles have no area, the first is 0"),
        (
            np.vstack([TRIANGLE, TRIANGLE + 5]),
            [[0, 1, 2], [3, 4, 5]],
            "mesh: it has 2 connected components, expected 1",
        ),
    ],
)
def test_triangles_that_make_no_mesh_are_refused(points, triangles, message):
    with pytest.raises(ValueError, match=message):
        build_mesh(points, np.asarray(triangles))


def test_nodes_that_nothing_touches_are_dropped():
    mesh = build_mesh(np.vstack([[9.0, 9.0], TRIANGLE]), np.array([[1, 2, 3]]))
    assert np.array_equal(mesh.p.T, TRIANGLE)
    assert np.array_equal(mesh.t.T, [[0, 1, 2]])


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (OSError("libGLU.so.1: cannot open shared object file"), "apt-get install -y libglu1-mesa"),
        (ModuleNotFoundError("No module named 'gmsh'"), r"pip install 'sparsetorch\[ddm\]'"),
    ],
)
def test_a_gmsh_that_cannot_load_says_how_to_get_it(monkeypatch, error, remedy):
    def fail(name):
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(GmshUnavailableError, match=remedy) as caught:
        random_mesh(0, 100)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("version", [2.2, 4.1])
@pytest.mark.parametrize("binary", [0, 1])
def test_one_line_may_be_in_several_groups_of_gmsh(gmsh, tmp_path, version, binary):
    path = str(tmp_path / "square.msh")
    gmsh.initialize()
    try:
        gmsh.option.setNumber("General.Terminal", 0)
        gmsh.model.add("square")
        gmsh.model.occ.addRectangle(0, 0, 0, 1, 1)
        gmsh.model.occ.synchronize()
        first, second = (tag for _, tag in gmsh.model.getEntities(1)[:2])
        gmsh.model.addPhysicalGroup(1, [first], 7, name="inlet")
        gmsh.model.addPhysicalGroup(1, [first, second], 8, name="both")
        gmsh.model.addPhysicalGroup(2, [1], 9, name="body")
        if version > 4:  # version 2 writes elements once for each group
            gmsh.model.addPhysicalGroup(2, [1], 10, name="all")
        gmsh.model.mesh.setSize(gmsh.model.getEntities(0), 0.2)
        gmsh.model.mesh.generate(2)
        gmsh.option.setNumber("Mesh.MshFileVersion", version)
        gmsh.option.setNumber("Mesh.Binary", binary)
        gmsh.write(path)
    finally:
        gmsh.finalize()
    mesh = load_mesh(path)
    inlet, both = (set(mesh.boundaries[name].tolist()) for name in ("inlet", "both"))
    assert len(inlet) == 5
    assert inlet < both
    assert len(both) == 10
    assert set(mesh.subdomains) == ({"body", "all"} if version > 4 else {"body"})
    for elements in mesh.subdomains.values():
        assert len(elements) == mesh.nelements
