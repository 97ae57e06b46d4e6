"""What is true of every finite-element system: element matrices, blocks, modes, exact solutions."""

from typing import Any

import numpy as np
import pytest
from manufactured import cube, solved, square
from skfem import Basis, BilinearForm, ElementTriP1, ElementVector, MeshTri
from skfem.helpers import ddot, div, sym_grad

from ddm.problems import (
    convection_diffusion,
    diffusion,
    elasticity,
    graph_laplacian,
    helmholtz,
    peclet,
    poisson,
    rigid_body_modes,
)
from ddm.problems.space import ELEMENTS

ROLLERS = {"left": (0.0, None), "bottom": (None, 0.0)}
ROBIN = {"right": (2.0, 1.0)}
PROBLEMS = {
    "poisson": lambda: poisson(square(6)),
    "poisson P2 3D": lambda: poisson(cube(2), degree=2),
    "jumps, mixed": lambda: diffusion(
        square(6), lambda x, y: np.where(x < 0.5, 1.0, 1e6), robin=ROBIN, neumann={"top": 1.0}
    ),
    "convection": lambda: convection_diffusion(square(6), 0.01, (1.0, -2.0), reaction=1.0),
    "elasticity 2D": lambda: elasticity(square(6), source=(0.0, -1.0), dirichlet=ROLLERS),
    "elasticity 3D": lambda: elasticity(cube(2), dirichlet={"left": 0.0}, source=(0, 0, 1.0)),
    "bedding": lambda: elasticity(square(5), dirichlet={}, robin={"left": (3.0, (1.0, 0.0))}),
    "helmholtz": lambda: helmholtz(square(6), 5.0, absorption=0.1, dirichlet={"left": 1j}),
    "graph": lambda: graph_laplacian(abs(poisson(square(6)).A)),
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


def test_element_matrices_sum_to_the_matrix(problem):
    n = len(problem.b)
    difference = abs(problem.elements.assemble(n) - problem.A)
    assert difference.max() <= 1e-13 * abs(problem.A).max()


def test_element_matrices_of_two_halves_sum_to_the_matrix(problem):
    """Each half is a Neumann matrix: it touches only unknowns of its elements."""
    n, half = len(problem.b), len(problem.elements.dofs) // 2
    chosen = np.arange(len(problem.elements.dofs)) < half
    first, second = (problem.elements.assemble(n, part) for part in (chosen, ~chosen))
    assert abs(first + second - problem.A).max() <= 1e-13 * abs(problem.A).max()
    touched = np.unique(problem.elements.dofs[:half])
    assert set(np.unique(first.nonzero()[0])) <= set(touched)
    assert first.nnz < problem.A.nnz


def test_the_kind_is_true(problem):
    A = problem.A.toarray()
    if problem.kind == "general":
        assert abs(A - A.T).max() > 1e-3
    else:
        assert np.allclose(A, A.T, atol=1e-13 * abs(A).max())
    if problem.kind == "spd":
        assert np.linalg.eigvalsh(A).min() > 0


def test_shapes_fit(problem):
    n, size = len(problem.b), problem.block_size
    assert problem.A.shape == (n, n)
    assert n == size * len(problem.interior)
    assert problem.near_nullspace.shape[0] == n
    assert problem.elements.dofs.dtype == np.int64
    assert problem.elements.dofs.max() == n - 1
    if problem.mesh is not None:
        vertices = problem.interior[problem.interior < problem.mesh.nvertices]
        where = problem.coordinates[::size][: len(vertices)]
        assert np.array_equal(where, problem.mesh.p.T[vertices])
        full = problem.extend(np.ones(n))
        assert np.array_equal(full.reshape(-1, size)[problem.interior], np.ones((n // size, size)))


def test_the_matrix_is_that_of_scikit_fem():
    """Rows are test functions: a transposed convection would pass every symmetric test."""
    mesh = square(6)
    problem = convection_diffusion(mesh, 1.0, (3.0, -1.0), stabilisation="none")
    form = BilinearForm(
        lambda u, v, w: u.grad[0] * v.grad[0] + u.grad[1] * v.grad[1]
        + (3 * u.grad[0] - u.grad[1]) * v
    )  # fmt: skip
    theirs = form.assemble(Basis(mesh, ElementTriP1())).toarray()
    inside = problem.interior
    assert np.allclose(problem.A.toarray(), theirs[np.ix_(inside, inside)], atol=1e-13)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("mesh", [square(4), cube(2)], ids=["2D", "3D"])
def test_the_elastic_matrix_is_that_of_scikit_fem(mesh, degree):
    """With a Poisson ratio that varies, from the textbook form."""
    ratio = np.random.default_rng(0).uniform(-0.3, 0.45, mesh.nelements)
    problem = elasticity(mesh, 2.0, ratio, degree=degree, dirichlet={}, singular="nullspace")
    element = ElementVector(ELEMENTS[mesh.dim(), degree]())
    mu = (1 / (1 + ratio))[:, None]
    lam = 2 * mu * (ratio / (1 - 2 * ratio))[:, None]
    form = BilinearForm(
        lambda u, v, w: 2 * mu * ddot(sym_grad(u), sym_grad(v)) + lam * div(u) * div(v)
    )
    theirs = form.assemble(Basis(mesh, element))
    assert abs(problem.A - theirs).max() < 1e-13 * abs(theirs).max()


def test_a_jump_of_a_million_is_met_exactly():
    """The flux through two layers is constant, and linear elements hold both slopes."""
    mesh = MeshTri.init_tensor(np.linspace(0, 1, 5), np.linspace(0, 1, 4)).with_defaults()
    k = np.where(mesh.p[0, mesh.t].mean(axis=0) < 0.5, 1.0, 1e6)
    problem = diffusion(mesh, k, 0.0, dirichlet={"left": 0.0, "right": 1.0})
    x = mesh.p[0]
    q = 1 / (0.5 / 1.0 + 0.5 / 1e6)
    exact = np.where(x < 0.5, q * x, 1 - q * (1 - x) / 1e6)
    assert np.allclose(problem.extend(solved(problem)), exact, atol=1e-9)


def test_a_tensor_is_an_isotropic_coefficient_on_a_stretched_mesh():
    mesh, stretch = square(6), np.diag([2.0, 0.5])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    F = turn @ stretch
    moved = MeshTri(F @ mesh.p, mesh.t)
    inverse = np.linalg.inv(F)
    K = inverse @ inverse.T * np.linalg.det(F)
    assert np.allclose(diffusion(mesh, K).A.toarray(), poisson(moved).A.toarray(), atol=1e-12)


@pytest.mark.parametrize("mesh", [square(5), cube(2)], ids=["2D", "3D"])
def test_coefficients_by_element_by_function_and_by_tensor_agree(mesh):
    d, m = mesh.dim(), mesh.nelements
    plain = diffusion(mesh, 3.0, 2.0)
    others = [
        diffusion(mesh, np.full(m, 3.0), np.full(m, 2.0)),
        diffusion(mesh, lambda *x: 3 + 0 * x[0], lambda *x: 2.0),
        diffusion(mesh, 3 * np.eye(d), 2.0),
        diffusion(mesh, np.tile(3 * np.eye(d), (m, 1, 1)), 2.0),
        diffusion(mesh, lambda *x: np.multiply.outer(3 * np.eye(d), 1 + 0 * x[0]), 2.0),
    ]
    for other in others:
        assert np.allclose(other.A.toarray(), plain.A.toarray(), atol=1e-13)
        assert np.allclose(other.b, plain.b)


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("mesh", [square(5), cube(2)], ids=["2D", "3D"])
def test_rigid_motions_have_no_energy(mesh, degree):
    d = mesh.dim()
    problem: Any = elasticity(mesh, 7.0, dirichlet={}, degree=degree, singular="nullspace")
    modes = problem.near_nullspace
    assert modes.shape[1] == {2: 3, 3: 6}[d]
    assert np.linalg.matrix_rank(modes) == modes.shape[1]
    assert abs(problem.A @ modes).max() < 1e-11
    assert np.allclose(problem.nullspace.T @ problem.nullspace, np.eye(modes.shape[1]))
    assert np.allclose(modes, rigid_body_modes(problem.coordinates[::d]))


def test_rollers_leave_one_component_free():
    """Uniaxial tension of a plate in plane stress: u = (x, -nu y) s / E, which P1 holds exactly."""
    E, nu, s = 5.0, 0.3, 2.0
    problem: Any = elasticity(
        square(5), E, nu, plane="stress", dirichlet=ROLLERS, neumann={"right": (s, 0.0)}
    )
    x, y = problem.mesh.p
    exact = np.stack([s / E * x, -nu * s / E * y], axis=1)
    assert np.allclose(problem.extend(solved(problem)), exact, atol=1e-12)
    # Only the corner is fixed in both components.
    assert len(problem.interior) == problem.mesh.nvertices - 1
    held = np.abs(problem.near_nullspace).sum(axis=1) == 0
    assert held.sum() == 2 * 4


def test_prescribed_values_are_interpolated_exactly():
    for degree in (1, 2):
        problem = diffusion(square(5), 2.0, 0.0, degree=degree, dirichlet=lambda x, y: 1 + x - y)
        nodes = problem.boundary_values
        full = problem.extend(solved(problem))
        assert nodes is not None
        assert len(full) == len(nodes)
        assert np.allclose(
            full[: problem.mesh.nvertices], 1 + problem.mesh.p[0] - problem.mesh.p[1]
        )
        inside = problem.coordinates
        assert np.allclose(solved(problem), 1 + inside[:, 0] - inside[:, 1])


def test_streamline_diffusion_removes_the_wiggles_of_galerkin():
    """A boundary layer that no element resolves: the exact solution stays between 0 and 1."""
    mesh = MeshTri.init_tensor(*[np.linspace(0, 1, 17)] * 2).with_defaults()
    parts = {"left": 0.0, "right": 0.0}

    def overshoot(stabilisation):
        problem = convection_diffusion(
            mesh, 1e-3, (1.0, 0.0), 1.0, dirichlet=parts, stabilisation=stabilisation
        )
        u = solved(problem)
        x = problem.coordinates[:, 0]
        return abs(u - x)[x < 0.9].max()

    assert peclet(mesh, 1e-3, (1.0, 0.0)) == pytest.approx(1 / 16 / 2e-3)
    assert overshoot("none") > 0.5
    assert overshoot("auto") < 0.05


def test_helmholtz_counts_each_wave():
    """Rows of k^2 M: linear in k^2 (1 + i epsilon), and i k on the boundary."""
    mesh = square(5)
    A, B, C = (
        helmholtz(mesh, k, absorption=e).A.toarray()
        for k, e in ((2.0, 0.0), (4.0, 0.0), (2.0, 0.5))
    )
    K = helmholtz(mesh, 1e-6).A.toarray().real
    assert np.allclose(4 * (K - A.real), K - B.real, atol=1e-9)
    assert np.allclose(B.imag, 2 * A.imag)
    assert A.imag.sum() == pytest.approx(-2 * 4)  # -k times the length of the boundary
    assert (C - A).sum() == pytest.approx(-0.5j * 4)
    by_element = helmholtz(mesh, np.full(mesh.nelements, 2.0)).A.toarray()
    by_function = helmholtz(mesh, lambda x, y: 2 + 0 * x).A.toarray()
    assert np.allclose(by_element, A)
    assert np.allclose(by_function, A)


def test_elements_can_be_left_out():
    assert poisson(square(5), keep_elements=False).elements is None
