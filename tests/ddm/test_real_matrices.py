"""Matrices and meshes of other projects: PyAMG's examples, and a part from gmsh's documentation."""

import os
import sysconfig
from pathlib import Path

import meshio
import numpy as np
import pyamg
import pytest
import scipy.sparse as sp

from ddm.mesh import build_mesh, mesh_cad
from ddm.mesh.build import signed_sizes
from ddm.problems import elasticity, from_matrix, poisson


@pytest.mark.parametrize(
    ("name", "kind", "complex_"),
    [
        ("airfoil", "spd", False),
        ("knot", "spd", False),
        ("recirc_flow", "general", False),
        ("helmholtz_2D", "symmetric", True),
    ],
)
def test_examples_of_pyamg(name, kind, complex_):
    A = sp.csr_array(pyamg.gallery.load_example(name)["A"])
    problem = from_matrix(A)
    assert problem.kind == kind
    assert np.iscomplexobj(problem.A.data) == complex_
    assert abs(problem.A - A).max() == 0


def test_the_elastic_bar_has_rigid_modes_of_small_energy():
    """PyAMG's bar comes with rigid-body modes; it is clamped, so that they are not null vectors."""
    example = pyamg.gallery.load_example("bar")
    modes = np.asarray(example["B"])
    problem = from_matrix(sp.csr_array(example["A"]), block_size=3, near_nullspace=modes)
    energy = np.einsum("nk,nk->k", modes, problem.A @ modes) / (modes**2).sum(axis=0)
    assert (energy > 0).all()
    assert (energy < 0.1 * problem.A.diagonal().mean()).all()
    assert problem.nullspace is None


def test_tetrahedra_of_pyamg():
    """The faces of a unit cube are its boundary; a body that hangs on one of them is definite."""
    example = pyamg.gallery.load_example("unit_cube")
    mesh = build_mesh(np.asarray(example["vertices"]), np.asarray(example["elements"], np.int64))
    assert abs(signed_sizes(mesh)).sum() == pytest.approx(1)
    assert len(poisson(mesh).b) == len(mesh.interior_nodes())
    low = mesh.p[2].min()
    problem = elasticity(mesh, dirichlet={lambda x, y, z: np.isclose(z, low): 0.0})
    assert np.linalg.eigvalsh(problem.A.toarray()).min() > 0


@pytest.mark.usefixtures("gmsh")
def test_a_part_from_gmshs_documentation_is_meshed():
    path = Path(sysconfig.get_path("data")) / "share/doc/gmsh/tutorials/t13_data.stl"
    if not path.is_file():
        if os.environ.get("CI"):
            pytest.fail(f"continuous integration must have gmsh's wheel, with {path}")
        pytest.skip(f"gmsh came without {path}")
    mesh = mesh_cad(path, 2000)
    assert mesh.nvertices == pytest.approx(2000, rel=0.25)
    surface = meshio.read(path)
    corners = surface.points[surface.cells_dict["triangle"]]
    volume = abs(np.linalg.det(corners).sum()) / 6  # of the cones to the origin
    assert abs(signed_sizes(mesh)).sum() == pytest.approx(volume, rel=0.02)
    assert len(poisson(mesh, dirichlet={next(iter(mesh.boundaries)): 0.0}).b) > 1000
