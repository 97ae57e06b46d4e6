"""What lies outside subdomains: the room of interface values, and the elements that are cut."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dense_elements import diffusion, elasticity, helmholtz
from manufactured import cube
from small_problems import laplacian, unit_square

import ddm
from ddm.coarse import algebraic_neumann, assembled_neumann
from ddm.exterior import exterior, interface_room
from ddm.interface import robin, robin_between
from ddm.partition import decompose, partition
from ddm.problems.problem import Elements
from sparsetorch import CSRTensor


def test_interface_room_keeps_rows_dominant():
    """Never more than what couples outside; with positive couplings, less."""
    A = laplacian(12)
    owner = partition(A, 6)
    d = decompose(A, owner)
    room = interface_room(CSRTensor.from_scipy(A), d)
    assert np.allclose(room, d.outside)
    i, j = (int(node) for node in np.argwhere(np.triu(A.toarray(), 1) < 0)[0])
    A[i, j] = A[j, i] = 0.8 * A[i, i]  # an obtuse pair of triangles
    d = decompose(A, owner)
    room = interface_room(CSRTensor.from_scipy(A), d)
    assert (room >= 0).all()
    assert (room <= d.outside).all()
    assert (room < d.outside).any()
    for part in range(d.n_subdomains):
        here = d.subdomain == part
        local = A.toarray()[np.ix_(d.node[here], d.node[here])]
        excess = np.diag(local) - (abs(local).sum(1) - np.diag(local))
        assert (room[here] <= np.maximum(excess, 0) + 1e-12).all()


@pytest.mark.parametrize("overlap", [1, 2])
def test_of_an_m_matrix_it_is_what_the_algebraic_neumann_matrices_lack(overlap):
    A = laplacian(12)
    d = decompose(A, partition(A, 6), overlap)
    matrix = CSRTensor.from_scipy(A)
    lumped = exterior(matrix, d)
    between = robin_between(matrix, d, algebraic_neumann(matrix, d), 0.0)
    torch.testing.assert_close(-between, lumped)
    torch.testing.assert_close(-0.5 * lumped, robin(d, 0.5))


def dense_problems():
    """Problems with elements, numbered by hand and by scikit-fem, some with eliminated unknowns."""
    for made in (diffusion(8), elasticity(6), helmholtz(6)):
        yield made.A, Elements(made.dofs, made.matrices), made.block_size
    for problem in (
        ddm.random_problem("anisotropic_mixed", 3, 300),
        ddm.random_problem("elasticity", 2, 300),
        ddm.elasticity(cube(4), dirichlet={"front": 0.0}),
    ):
        problem = problem.with_all_couplings()
        assert problem.elements is not None
        yield problem.A, problem.elements, problem.block_size


NAMES = ("diffusion", "elasticity", "helmholtz", "anisotropic", "clamped", "in space")


@pytest.mark.parametrize("overlap", [1, 2, 3])
@pytest.mark.parametrize("which", range(6), ids=NAMES)
def test_of_elements_it_is_what_the_assembled_neumann_matrices_lack(which, overlap):
    A, elements, size = list(dense_problems())[which]
    d = decompose(A, partition(A, 5, block_size=size), overlap, block_size=size)
    matrix = CSRTensor.from_scipy(A)
    found = exterior(matrix, d, elements)
    N = assembled_neumann(d, elements.dofs, elements.matrices)
    assert found.abs().max() > 0
    torch.testing.assert_close(-found, robin_between(matrix, d, N, 0.0), rtol=1e-10, atol=1e-10)


def test_elements_in_single_precision_serve_a_matrix_in_double():
    problem = elasticity(6)
    d = decompose(problem.A, partition(problem.A, 4, block_size=2), block_size=2)
    A, elements = CSRTensor.from_scipy(problem.A), Elements(problem.dofs, problem.matrices)
    rounded = replace(elements, matrices=elements.matrices.astype(np.float32))
    found = exterior(A, d, rounded)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, exterior(A, d, elements), rtol=1e-5, atol=1e-6)


def test_one_subdomain_has_nothing_outside():
    problem = elasticity(4)
    d = decompose(problem.A, np.zeros(problem.A.shape[0], dtype=int), 2, block_size=2)
    found = exterior(CSRTensor.from_scipy(problem.A), d, Elements(problem.dofs, problem.matrices))
    assert len(found) == len(d.interface) == 0


def test_elements_that_do_not_belong_to_the_matrix_are_refused():
    problem = elasticity(6)
    elements = Elements(problem.dofs, problem.matrices)
    d = decompose(problem.A, partition(problem.A, 4, block_size=2), block_size=2)
    A = CSRTensor.from_scipy(problem.A)
    for wrong in (
        replace(elements, matrices=2 * elements.matrices),
        replace(elements, dofs=elements.dofs[:-1], matrices=elements.matrices[:-1]),
    ):
        with pytest.raises(ValueError, match="elements: expected matrices that sum to A"):
            exterior(A, d, wrong)
    with pytest.raises(TypeError, match="elements: complex, but A is real"):
        exterior(A, d, replace(elements, matrices=elements.matrices + 0j))
    with pytest.raises(TypeError, match="dofs: expected integers, got float64"):
        exterior(A, d, replace(elements, dofs=elements.dofs.astype(float)))


def test_one_large_entry_hides_no_wrong_elements():
    """As a penalty for a boundary condition."""
    problem = elasticity(6)
    d = decompose(problem.A, partition(problem.A, 4, block_size=2), block_size=2)
    matrix = sp.csr_array(problem.A, copy=True)
    matrix[0, 0] += 1e12
    dofs, matrices = (np.concatenate([x, x[:1]]) for x in (problem.dofs, problem.matrices))
    dofs[-1], matrices[-1] = -1, 1e12
    dofs[-1, 0] = 0
    A, elements = CSRTensor.from_scipy(matrix), Elements(dofs, matrices)
    exterior(A, d, elements)
    matrices[int((dofs == dofs.max()).any(axis=1).argmax())] *= 1.001  # far from the large entry
    with pytest.raises(ValueError, match="elements: expected matrices that sum to A"):
        exterior(A, d, elements)


def test_couplings_that_add_up_to_zero_must_be_stored():
    """On a square of right triangles Poisson's equation has no couplings along diagonals."""
    problem = ddm.poisson(unit_square(6))
    assert problem.elements is not None
    stored = problem.with_all_couplings().A
    lacking = sp.csr_array(problem.A, copy=True)
    lacking.eliminate_zeros()
    assert lacking.nnz < stored.nnz
    owner = partition(stored, 4)
    exterior(CSRTensor.from_scipy(stored), decompose(stored, owner), problem.elements)
    with pytest.raises(ValueError, match="elements: A does not store all of their couplings"):
        exterior(CSRTensor.from_scipy(lacking), decompose(lacking, owner), problem.elements)
