"""What theory says of Schwarz methods, and what makes them impossible."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from skfem import Basis, BilinearForm, ElementTriP1
from skfem.helpers import dot
from small_problems import delaunay, random_interface, random_matrix, small_setup

from ddm.coarse import partition_of_unity
from ddm.local import DenseBlocks, SparseBlocks, local_solver
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz, robin
from ddm.setup import set_up
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres, richardson

SOLVERS = ["dense", "sparse"]


def neumann(n_side: int) -> sp.csr_array:
    """The Laplacian of a mesh with its boundary nodes: constants are in its null space."""
    form = BilinearForm(lambda u, v, _: dot(u.grad, v.grad))
    return sp.csr_array(form.assemble(Basis(delaunay(n_side), ElementTriP1())))


@pytest.mark.parametrize("local", SOLVERS)
@pytest.mark.parametrize("two_level", [False, True])
def test_one_subdomain_is_a_direct_solve(local, two_level):
    setup = small_setup(10, 1, local=local)
    P = setup.P if two_level else None
    method = Schwarz(setup.A, setup.decomposition, P=P, local=local)
    b = random_matrix(setup.decomposition.n, 1)[:, 0]
    assert len(setup.decomposition.interface) == 0
    assert richardson(setup.A, b, preconditioner=method, rtol=1e-12).iterations == 1
    assert fgmres(setup.A, b, preconditioner=method, rtol=1e-12).iterations == 1


@pytest.mark.parametrize("local", SOLVERS)
def test_theta_of_one_is_no_interface(local):
    setup = small_setup(local=local)
    r = random_matrix(setup.decomposition.n, 2)
    with_zeros = Schwarz(
        setup.A, setup.decomposition, interface=robin(setup.decomposition, 1.0), local=local
    )
    assert not robin(setup.decomposition, 1.0).any()
    assert torch.equal(
        with_zeros.apply(r), Schwarz(setup.A, setup.decomposition, local=local).apply(r)
    )
    assert torch.equal(
        setup.classical(1.0).apply(r),
        Schwarz(setup.A, setup.decomposition, P=setup.P, local=local).apply(r),
    )


def test_robin_values_sit_on_the_diagonal_and_take_what_couples_outside():
    d = small_setup(overlap=2).decomposition
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    values = robin(d, 0.25).numpy()
    assert not values[row != col].any()
    assert np.allclose(values[row == col], -0.75 * d.outside[row[row == col]])
    for theta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="theta: expected a weight of at least 0"):
            robin(d, theta)


@pytest.mark.parametrize("smoothing", [0, 1])
def test_errors_of_two_levels_are_orthogonal_to_the_coarse_space(smoothing):
    setup = small_setup(smoothing=smoothing)
    method = Schwarz(
        setup.A, setup.decomposition, interface=random_interface(setup), P=setup.P, local="sparse"
    )
    e = random_matrix(setup.decomposition.n, 3)
    assert (setup.P.T @ (setup.A @ method.propagate(e))).abs().max() < 1e-12


def test_coarse_functions_are_solved_at_once():
    """The coarse correction alone is exact on the range of P: P A0^-1 P^T A P = P."""
    setup = small_setup()
    coarse = setup.classical(0.5).coarse
    e = setup.P @ random_matrix(setup.decomposition.n_subdomains, 2)
    torch.testing.assert_close(setup.P @ coarse.solve(setup.P.T @ (setup.A @ e)), e)


@pytest.mark.parametrize("local", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_subdomains_that_float_are_singular(local, dtype):
    """Theta = 0 leaves a pure Neumann problem where a subdomain misses the boundary."""
    setup = small_setup(20, 16, dtype=dtype, local=local)
    layout, interface = setup.local, robin(setup.decomposition, 0.0, dtype)
    message = "interface: the local matrix of (some )?subdomain.* is singular; raise the Robin"
    with pytest.raises(ValueError, match=message):
        Schwarz(setup.A, setup.decomposition, interface=interface, local=layout)
    # Units do not matter, and a little of the Dirichlet condition is enough.
    small = setup.A.with_values(1e-12 * setup.A.values)
    interface = 1e-12 * robin(setup.decomposition, 0.01, dtype)
    Schwarz(small, setup.decomposition, interface=interface, local=layout)


@pytest.mark.parametrize("coarse", SOLVERS)
def test_a_singular_coarse_matrix_is_refused(coarse):
    message = r"P: the coarse matrix P\^T A P, \((4|8), (4|8)\), is singular; columns of P must be"
    setup = small_setup(10, 4)
    P = partition_of_unity(setup.decomposition).to_dense()
    for columns in (torch.cat([P, P], 1), torch.cat([P, P @ random_matrix(4, 4)], 1)):
        with pytest.raises(ValueError, match=message):
            Schwarz(setup.A, setup.decomposition, P=CSRTensor.from_dense(columns), coarse=coarse)
    # The matrix of a Neumann problem has regular local matrices, but constants in the coarse space.
    A = neumann(10)
    d = decompose(A, partition(A, 4))
    with pytest.raises(ValueError, match=message):
        Schwarz(CSRTensor.from_scipy(A), d, P=partition_of_unity(d), coarse=coarse)


def test_jumps_of_coefficients_are_not_taken_for_singular():
    setup = small_setup(12, 6)
    jump = 10.0 ** (8 * torch.rand(setup.decomposition.n, dtype=torch.float64))
    A = setup.A.scale_rows(jump).scale_cols(jump).to_scipy()
    for local in SOLVERS:
        set_up(A, setup.decomposition.owner, smoothing=0, local=local).classical()


@pytest.mark.parametrize("local", SOLVERS)
def test_wrong_vectors_are_refused(local):
    setup = small_setup(local=local)
    n = setup.decomposition.n
    for P in (None, setup.P):
        method = Schwarz(setup.A, setup.decomposition, P=P, local=local)
        for operation in (method.apply, method.apply_transposed):
            for shape in ((n + 1,), (n - 1, 2), (1, n), (n, 2, 2), ()):
                with pytest.raises(ValueError, match=rf"r: expected shape \({n},\) or \({n}, k\)"):
                    operation(torch.ones(shape, dtype=torch.float64))
            with pytest.raises(TypeError, match=r"r: expected torch\.float64 like A, got"):
                operation(torch.ones(n))
            with pytest.raises(TypeError, match="r: expected a tensor, got ndarray"):
                operation(np.ones(n))  # type: ignore
        with pytest.raises(ValueError, match=f"expected size {n}"):
            method.propagate(torch.ones(n + 1, dtype=torch.float64))


def test_wrong_arguments_are_refused():
    setup = small_setup()
    A, d, P = setup.A, setup.decomposition, setup.P
    with pytest.raises(ValueError, match=rf"A: expected shape \({d.n}, {d.n}\), got \(9, 9\)"):
        Schwarz(small_setup(5, 2).A, d)
    with pytest.raises(ValueError, match=rf"interface: expected shape \({len(d.interface)},\)"):
        Schwarz(A, d, interface=torch.zeros(len(d.interface) + 1))
    with pytest.raises(ValueError, match=rf"P: expected \({d.n}, S\) with 1 <= S"):
        Schwarz(A, d, P=P.T)
    with pytest.raises(TypeError, match="dtype"):
        Schwarz(A, d, P=P.to(torch.float32))
    with pytest.raises(ValueError, match="local: expected 'auto', 'dense' or 'sparse', got 'lu'"):
        Schwarz(A, d, local="lu")
    with pytest.raises(ValueError, match="coarse: expected 'auto', 'dense' or 'sparse', got 'lu'"):
        Schwarz(A, d, P=P, coarse="lu")


def test_solvers_are_picked_by_device():
    setup = small_setup(local="auto")
    d = setup.decomposition
    assert isinstance(local_solver(d), SparseBlocks)
    assert isinstance(local_solver(d, device="cuda" if torch.cuda.is_available() else "meta"),
                      DenseBlocks)  # fmt: skip
    assert isinstance(Schwarz(setup.A, d).local, SparseBlocks)
    other = "cuda" if torch.cuda.is_available() else "meta"
    assert isinstance(SparseBlocks(d).to(other), DenseBlocks)
    with pytest.raises(ValueError, match="local: sparse local solves run on the CPU, got cuda"):
        local_solver(d, "sparse", "cuda")
