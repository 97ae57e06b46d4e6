"""Interface values: between Dirichlet and Neumann, and Schur complements of patches."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dense_elements import diffusion, elasticity, helmholtz
from manufactured import cube
from small_problems import laplacian, random_matrix

import ddm
from ddm.coarse import algebraic_neumann, assembled_neumann, nicolaides, partition_of_unity
from ddm.interface import robin, robin_between, schur
from ddm.partition import decompose, partition
from ddm.rates import best_theta, iterations_to_reduce
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import fgmres


def local_sum(A: CSRTensor, d, L: torch.Tensor) -> torch.Tensor:
    """`A_i + L_i` of all subdomains, (N, N) dense."""
    values = A.values[torch.from_numpy(d.block_source)].clone()
    values[torch.from_numpy(d.interface)] += L
    size = len(d.node)
    dense = torch.zeros(size, size, dtype=A.dtype)
    dense[torch.from_numpy(d.block_row), torch.from_numpy(d.block_col)] = values
    return dense


@pytest.mark.parametrize("problem", [diffusion(8), elasticity(6)], ids=["diffusion", "elasticity"])
@pytest.mark.parametrize("overlap", [1, 2])
def test_local_matrices_between_dirichlet_and_neumann(problem, overlap):
    bs = problem.block_size
    d = decompose(problem.A, partition(problem.A, 4, block_size=bs), overlap, block_size=bs)
    A = CSRTensor.from_scipy(problem.A)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    dirichlet = local_sum(A, d, torch.zeros(len(d.interface), dtype=torch.float64))
    for theta in (1.0, 0.3, 0.01):
        got = local_sum(A, d, robin_between(A, d, N, theta))
        torch.testing.assert_close(got, theta * dirichlet + (1 - theta) * N.to_dense())
        assert float(torch.linalg.eigvalsh((got + got.T) / 2)[0]) > 0
    with pytest.raises(ValueError, match="neumann: it differs from A away from the ring"):
        robin_between(A, d, assembled_neumann(d, problem.dofs, 2 * problem.matrices), 0.5)
    with pytest.raises(ValueError, match="theta: expected a weight of at least 0, got -1"):
        robin_between(A, d, N, -1)


def test_neumann_matrices_that_are_complex_or_store_more():
    problem = diffusion(8)
    d = decompose(problem.A, partition(problem.A, 4), 2)
    A, N = CSRTensor.from_scipy(problem.A), assembled_neumann(d, problem.dofs, problem.matrices)
    want = robin_between(A, d, N, 0.3)
    turn = torch.tensor(2 + 1j, dtype=torch.complex128)
    turned = [M.with_values(M.values * turn) for M in (A, N)]
    torch.testing.assert_close(robin_between(turned[0], d, turned[1], 0.3), want * turn)
    with pytest.raises(ValueError, match="neumann: it differs from A away from the ring"):
        robin_between(turned[0], d, N.to(torch.complex128), 0.3)
    last = torch.tensor([len(d.node) - 1])  # the first and the last subdomain do not meet
    for value in (0.0, 1.0):
        values = torch.full((1,), value, dtype=torch.float64)
        more = N + CSRTensor.from_coo(last * 0, last, values, (len(d.node), len(d.node)))
        assert more.nnz == N.nnz + 1
        if value:
            with pytest.raises(ValueError, match="neumann: it differs from A away from the ring"):
                robin_between(A, d, more, 0.3)
        else:
            torch.testing.assert_close(robin_between(A, d, more, 0.3), want)


def test_for_an_m_matrix_both_kinds_of_robin_condition_agree():
    A = laplacian(10)
    d = decompose(A, partition(A, 5), 2)
    matrix = CSRTensor.from_scipy(A)
    between = robin_between(matrix, d, algebraic_neumann(matrix, d), 0.3)
    torch.testing.assert_close(between, robin(d, 0.3))


@pytest.mark.parametrize("overlap", [1, 2])
def test_less_than_dirichlet_helps_elasticity(overlap):
    problem = elasticity(12)
    d = decompose(problem.A, partition(problem.A, 8, block_size=2), overlap, block_size=2)
    A = CSRTensor.from_scipy(problem.A)
    N = assembled_neumann(d, problem.dofs, problem.matrices)
    P = nicolaides(d, problem.near_nullspace)
    candidates = (1.0, 0.7, 0.5, 0.3)
    best = best_theta(A, d, P, neumann=N, candidates=candidates)
    counts = {
        theta: iterations_to_reduce(
            Schwarz(A, d, P=P, interface=robin_between(A, d, N, theta)), 1e-8
        )
        for theta in candidates
    }
    assert counts[best] == min(counts.values())
    assert counts[best] < counts[1.0]


def test_the_best_weight_of_another_form():
    A = laplacian(14)
    d = decompose(A, partition(A, 6))
    matrix, P = CSRTensor.from_scipy(A), partition_of_unity(d)
    options: dict[str, Any] = {"form": "additive", "levels": "symmetric"}
    best = best_theta(matrix, d, P, candidates=(1.0, 0.8), **options)
    counts = [
        iterations_to_reduce(
            Schwarz(matrix, d, P=P, interface=robin(d, theta), **options),
            1e-8,
        )
        for theta in (1.0, 0.8)
    ]
    assert best == (1.0, 0.8)[int(np.argmin(counts))]


@pytest.mark.parametrize("overlap", [1, 2])
def test_an_absorbing_condition_helps_helmholtz(overlap):
    problem = helmholtz(24, k=20.0)
    d = decompose(problem.A, partition(problem.A, 12), overlap)
    A = CSRTensor.from_scipy(problem.A)
    b = random_matrix(d.n, 1)[:, 0].to(A.dtype)
    counts = [
        fgmres(
            A, b, preconditioner=Schwarz(A, d, interface=robin(d, theta, A.dtype)), rtol=1e-8
        ).iterations
        for theta in (1.0, 0.5 - 0.5j)
    ]
    assert counts[1] < 0.8 * counts[0]


def dense_schur(A: torch.Tensor, d, i: int, layers: int) -> torch.Tensor:
    """-A_IE A_EE^-1 A_EI of a patch of so many layers, from sets of nodes."""
    inside = np.zeros(d.n, bool)
    inside[d.node[d.subdomain == i]] = True
    graph = (A != 0).numpy() | (A != 0).T.numpy()
    reached = inside
    for _ in range(layers):
        reached = reached | graph[reached].any(axis=0)
    I, E = (torch.from_numpy(np.flatnonzero(x)) for x in (inside, reached & ~inside))
    if len(E) == 0:
        return torch.zeros(len(I), len(I), dtype=A.dtype)
    return -A[I][:, E] @ torch.linalg.inv(A[E][:, E]) @ A[E][:, I]


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("lump", [False, True])
@pytest.mark.parametrize(
    "problem", [diffusion(8), elasticity(6), helmholtz(7)], ids=["diffusion", "elastic", "complex"]
)
def test_schur_complements_of_patches_on_the_interface(problem, layers, overlap, lump):
    bs = problem.block_size
    d = decompose(problem.A, partition(problem.A, 3, block_size=bs), overlap, block_size=bs)
    if bs == 2:
        layers = 1  # the patch grows by nodes, the dense formula by unknowns: equal for one layer
    A = CSRTensor.from_scipy(problem.A)
    L = schur(A, d, layers, lump=lump)
    assert L.dtype == A.dtype
    row, col = d.block_row[d.interface], d.block_col[d.interface]
    starts = np.cumsum(d.sizes) - d.sizes
    for i in range(3):
        S = dense_schur(A.to_dense(), d, i, layers)
        S = torch.diag(S.sum(1)) if lump else S
        mine = d.subdomain[row] == i
        expected = S[
            torch.from_numpy(row[mine] - starts[i]), torch.from_numpy(col[mine] - starts[i])
        ]
        torch.testing.assert_close(L[torch.from_numpy(mine)], expected)


def test_on_a_line_the_whole_exterior_gives_blocks_of_the_inverse():
    """Gander, Loisel and Szyld (2012): the optimal condition; on a line nothing is cut off."""
    n = 20
    dense = 2.1 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    A = sp.csr_array(dense)
    d = decompose(A, np.repeat([0, 1, 2, 3], 5))
    matrix = CSRTensor.from_scipy(A)
    local = local_sum(matrix, d, schur(matrix, d, layers=n)).numpy()
    inverse = np.linalg.inv(dense)
    for i in range(4):
        here = np.flatnonzero(d.subdomain == i)
        block = np.linalg.inv(local[np.ix_(here, here)])
        assert np.allclose(block, inverse[np.ix_(d.node[here], d.node[here])])


@pytest.mark.parametrize("lump", [False, True])
@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("first", [1, 3])
def test_patches_that_depend_on_the_inside_or_do_not(first, lower, lump):
    """Bidiagonal: only one neighbour's equations hold unknowns of the other, perhaps none."""
    dense = 2 * np.eye(6) - np.eye(6, k=-1 if lower else 1)
    A = sp.csr_array(dense)
    d = decompose(A, (np.arange(6) >= first).astype(int))
    matrix = CSRTensor.from_scipy(A)
    assert not schur(matrix, d, lump=lump).any()  # one way only: nothing comes back


def test_patches_gain_at_an_overlap_of_two():
    A = laplacian(18)
    d = decompose(A, partition(A, 10), 2)
    matrix, P = CSRTensor.from_scipy(A), partition_of_unity(d)
    counts = [
        iterations_to_reduce(Schwarz(matrix, d, P=P, interface=L), 1e-8)
        for L in (None, schur(matrix, d, 1))
    ]
    assert counts[1] <= counts[0]


def test_layers_that_make_no_sense_are_refused():
    A = laplacian(7)
    d = decompose(A, partition(A, 3))
    for layers in (0, 1.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="layers: expected at least 1 layer, got"):
            schur(CSRTensor.from_scipy(A), d, layers)  # type: ignore
    with pytest.raises(TypeError, match="layers: expected a whole number, got str"):
        schur(CSRTensor.from_scipy(A), d, "1")  # type: ignore
    whole = decompose(A, np.zeros(A.shape[0], dtype=int))
    assert schur(CSRTensor.from_scipy(A), whole, 3).shape == (0,)


def test_rounding_is_not_taken_for_a_difference_away_from_the_ring():
    """Sums of squares that differ by rounding alone once made good Neumann matrices refused."""
    problem = ddm.elasticity(cube(6), dirichlet={"front": 0.0})
    parts = partition(problem.A, 55, block_size=3, seed=15)
    d = decompose(problem.A, parts, block_size=3)
    assert problem.elements is not None
    N = assembled_neumann(d, problem.elements.dofs, problem.elements.matrices)
    interface = robin_between(CSRTensor.from_scipy(problem.A), d, N, 0.5)
    assert interface.abs().max() > 0


def test_a_complex_weight_wants_complex_values():
    d = decompose(laplacian(8), partition(laplacian(8), 3))
    with pytest.raises(TypeError, match=r"dtype: expected a complex one for theta = \(0.5\+0.5j\)"):
        robin(d, 0.5 + 0.5j)
    assert robin(d, 0.5 + 0.5j, torch.complex128).is_complex()
