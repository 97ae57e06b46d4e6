"""Which classes of matrices are told apart, and what a network has seen."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian, unit_square

import ddm
from ddm.problems import checkerboard
from ddm.scope import Scope, matrix_kind
from sparsetorch import poisson


def scope(kinds, dimension: int | None = 2, block_size=1):
    return Scope(frozenset(kinds), dimension, block_size)


def anisotropic():
    """`-div K grad u` with the ratio 1000 in a direction between those of the mesh."""
    c, s = np.cos(0.3), np.sin(0.3)
    turn = np.array([[c, -s], [s, c]])
    mesh = delaunay(16)
    K = np.tile(turn @ np.diag([1, 1e-3]) @ turn.T, (mesh.t.shape[1], 1, 1))
    return ddm.diffusion(mesh, K).A


def jumping(contrast=1e4):
    mesh = delaunay(16)
    return ddm.diffusion(mesh, checkerboard(mesh, 0, contrast=contrast)).A


@pytest.mark.parametrize(
    ("kind", "A"),
    [
        ("poisson", laplacian(16)),
        ("poisson", ddm.poisson(unit_square(4)).A),
        ("poisson", sp.csr_array(poisson(9, 9, dtype=torch.float64).to_scipy())),
        ("poisson", sp.csr_array(sp.eye_array(5))),
        ("diffusion", jumping()),
        ("anisotropic", anisotropic()),
        ("indefinite", sp.csr_array(laplacian(9) - 9 * sp.eye_array(49))),
    ],
)
def test_symmetric_matrices_of_one_unknown_a_node(kind, A):
    assert matrix_kind(A, "spd") == kind
    assert matrix_kind(sp.csr_array(1e9 * A), "spd") == kind  # whatever the units


def test_mild_jumps_are_like_poisson():
    assert matrix_kind(jumping(contrast=1.5), "spd") == "poisson"


def test_other_matrices():
    A = laplacian(9)
    assert matrix_kind(sp.csr_array(A.astype(complex)), "general") == "helmholtz"
    assert matrix_kind(sp.csr_array(A + 0.1 * sp.triu(A, 1)), "general") == "convection_diffusion"
    assert matrix_kind(A, "general") == "poisson"
    assert matrix_kind(A, "spd", block_size=7) == "elasticity"


@pytest.mark.parametrize("block_size", [1, 7])
@pytest.mark.parametrize("kind", ["symmetric", "general"])
def test_shifted_matrices_are_indefinite_whatever_their_diagonal(kind, block_size):
    A = laplacian(16)
    lowest = np.linalg.eigvalsh(A.toarray())[0]
    shifted = sp.csr_array(A - 3 * lowest * sp.eye_array(A.shape[0]))
    assert (shifted.diagonal() > 0).all()
    assert matrix_kind(shifted, kind, block_size=block_size) == "indefinite"
    assert matrix_kind(A, kind) == "poisson"


def test_what_a_network_has_not_seen_is_said():
    seen = scope(["diffusion", "anisotropic"])
    for kind in ("diffusion", "anisotropic", "poisson"):
        assert seen.unseen(scope([kind])) == ""
    assert seen.unseen(scope(["poisson"], None)) == ""
    assert "trained in 2D, not 3D" in seen.unseen(scope(["poisson"], 3))
    assert "1 unknown(s) a node, not 2" in seen.unseen(scope(["diffusion"], 2, 2))
    assert "this matrix is like helmholtz" in seen.unseen(scope(["helmholtz"]))
    assert "like diffusion" in scope(["poisson"]).unseen(scope(["diffusion"]))


def test_linear_coarse_spaces_need_coordinates():
    net = ddm.InterfaceNet(width=4, layers=1)
    net.metadata = {"kinds": '["poisson"]', "dimension": "2"}
    seen = Scope.of_net(net)
    assert seen is not None
    problem = ddm.poisson(delaunay(6))
    assert seen.unseen(Scope.of_problem(problem)) == ""
    bare = Scope.of_problem(ddm.from_matrix(problem.A))
    assert "hold linear functions, and no coordinates are given" in seen.unseen(bare)
    assert scope(["poisson"]).unseen(bare) == ""


def test_a_problem_says_its_dimension():
    problem = ddm.poisson(delaunay(6))
    assert Scope.of_problem(problem) == replace(scope(["poisson"]), coordinates=True)
    assert Scope.of_problem(ddm.from_matrix(problem.A)) == scope(["poisson"], None)


def test_metadata_of_a_network():
    net = ddm.InterfaceNet(width=4, layers=1, coordinates=False)
    assert Scope.of_net(net) is None
    net.metadata = {"kinds": '["elasticity"]', "dimension": "3", "block_size": "3"}
    assert Scope.of_net(net) == scope(["elasticity"], 3, 3)


@pytest.mark.parametrize(
    "kinds", ["elasticity", "[1]", '"poisson"', "null", '{"poisson": 1}', "[[]]"]
)
def test_damaged_metadata_is_refused(kinds):
    net = ddm.InterfaceNet(width=4, layers=1)
    net.metadata = {"kinds": kinds}
    with pytest.raises(ValueError, match="net: its metadata cannot be read"):
        Scope.of_net(net)
