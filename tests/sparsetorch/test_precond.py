"""Preconditioners against their dense formulas, and what they are for: fewer iterations."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from random_matrices import dense, random_csr, random_square
from torch import Tensor
from torch.autograd import gradcheck

from sparsetorch import CSRTensor, diags, eye, kron, poisson
from sparsetorch.linalg import bicgstab, cg, gmres, solve
from sparsetorch.precond import (
    BlockJacobi,
    Jacobi,
    Multigrid,
    amg,
    block_jacobi,
    chebyshev,
    fsai,
    ic0,
    ilu0,
    jacobi,
    sor,
    spai,
    ssor,
)

gallery = pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]").gallery


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def example(name: str) -> CSRTensor:
    """A matrix that PyAMG ships: "airfoil" is positive definite, "recirc_flow" not symmetric."""
    return CSRTensor.from_scipy(sp.csr_array(gallery.load_example(name)["A"]))


def as_matrix(M: Callable[[Tensor], Tensor], n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """The dense matrix of a preconditioner, (n, n), by applying it to a batch of unit vectors."""
    return M(torch.eye(n, dtype=dtype)).T


class Preconditioner(NamedTuple):
    """A way to build one, bounds on the iterations of CG with it, and what it promises or needs.

    Without a preconditioner CG takes 60 iterations for the airfoil, 143 for the 40 x 40 grid.
    """

    name: str
    build: Callable[[CSRTensor], Any]
    on_airfoil: int
    on_poisson: int
    differentiable: bool = True  # in A
    only_definite: bool = False


PRECONDITIONERS = [
    Preconditioner("Jacobi", Jacobi, 60, 143),
    Preconditioner("blocks of 10", lambda A: block_jacobi(A, 10), 54, 125),
    Preconditioner("Chebyshev 1", lambda A: chebyshev(A, 1, (0.1, 2.1)), 36, 78),
    Preconditioner("Chebyshev 4", lambda A: chebyshev(A, 4, (0.05, 2.1)), 19, 34),
    Preconditioner("symmetric Gauss-Seidel", ssor, 25, 58),
    Preconditioner("SSOR 1.6", lambda A: ssor(A, 1.6), 24, 34),
    Preconditioner("ILU(0)", ilu0, 20, 49),
    Preconditioner("IC(0)", ic0, 20, 49, only_definite=True),
    Preconditioner("FSAI", fsai, 30, 84, only_definite=True),
    Preconditioner("Ruge-Stueben, Jacobi", lambda A: amg(A, degree=0), 15, 12, False),
    Preconditioner("Ruge-Stueben", amg, 11, 9, False),
    Preconditioner(
        "smoothed aggregation", lambda A: amg(A, "smoothed_aggregation", degree=2), 9, 10, False
    ),
]
every = pytest.mark.parametrize("case", PRECONDITIONERS, ids=lambda case: case.name)


@every
def test_is_symmetric_positive_definite_where_the_matrix_is(case):
    A = example("airfoil")
    M = as_matrix(case.build(A), A.shape[0])
    torch.testing.assert_close(M, M.T, rtol=0, atol=1e-12 * float(M.abs().max()))
    assert torch.linalg.eigvalsh((M + M.T) / 2).min() > 0


@every
def test_saves_iterations(case):
    for A, bound in [(example("airfoil"), case.on_airfoil), (POISSON, case.on_poisson)]:
        b = torch.randn(A.shape[0], generator=torch.Generator().manual_seed(0)).double()
        solution = cg(A, b, preconditioner=case.build(A))
        assert solution.converged
        assert solution.iterations <= bound


@every
def test_the_transpose_is_that_of_the_matrix(case):
    A = example("airfoil" if case.only_definite else "recirc_flow")
    M = case.build(A)
    n = A.shape[0]
    torch.testing.assert_close(as_matrix(M.T, n), as_matrix(M, n).T)
    torch.testing.assert_close(as_matrix(M.T.T, n), as_matrix(M, n))


@every
def test_takes_batches_and_keeps_the_dtype(case):
    A = example("airfoil")
    r = torch.randn(2, 3, 260).double()
    M = case.build(A)
    torch.testing.assert_close(M(r)[1, 2], M(r[1, 2]))
    half = case.build(A.to(torch.float32))
    assert half(r.float()).dtype == torch.float32
    torch.testing.assert_close(half(r.float()).double(), M(r), rtol=1e-3, atol=1e-4)


@every
def test_gradients_reach_r_and_where_promised_the_matrix(case):
    A = random_square(12, symmetric=True)
    r = torch.randn(12).double().requires_grad_()
    assert gradcheck(case.build(A), (r,))
    if case.differentiable:
        assert gradcheck(lambda values, r: case.build(A.with_values(values))(r), (A.values, r))
    else:
        (gradient,) = torch.autograd.grad(case.build(A)(r).sum(), A.values, allow_unused=True)
        assert gradient is None


@every
def test_serves_a_solve_and_its_adjoint(case):
    line = diags([-1.3, 2.0, -0.7], [-1, 0, 1], (15, 15), torch.float64)  # with convection
    here = eye(15, dtype=torch.float64)
    A = (kron(line, here) + kron(here, line)).requires_grad_()
    b = torch.ones(225).double()
    exact = torch.autograd.grad(solve(A, b).sum(), A.values)[0]
    for method in ("gmres", "bicgstab"):
        x = solve(A, b, method, preconditioner=case.build(A.detach()), rtol=1e-12)
        (gradient,) = torch.autograd.grad(x.sum(), A.values)
        torch.testing.assert_close(gradient, exact, rtol=1e-6, atol=1e-8 * float(exact.abs().max()))


@every
def test_bad_matrices_are_named(case):
    with pytest.raises(ValueError, match=r"A: expected one square matrix, got shape \(3, 4\)"):
        case.build(random_csr(3, 4))
    with pytest.raises(ValueError, match=r"A: expected one square matrix, got shape \(2, 3, 3\)"):
        case.build(random_csr(3, 3, batch=(2,)))
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got Tensor"):
        case.build(torch.eye(3))


@every
def test_vectors_of_another_size_or_dtype_are_refused(case):
    M = case.build(random_square(12, symmetric=True).detach())
    with pytest.raises(ValueError, match=r"^\w+: expected .*12.* got shape \((2, )?(5|5, 2)\)"):
        M(torch.ones(2, 5).double())
    with pytest.raises(ValueError, match=r"^\w+: expected .*12.* got shape \(1,\)"):
        M(torch.ones(1).double())  # which would broadcast
    with pytest.raises(TypeError, match=r"torch\.float(32|64).*torch\.float(32|64)"):
        M(torch.ones(12))


POISSON = poisson(40, 40, dtype=torch.float64)


@pytest.mark.parametrize("build", [*(case.build for case in PRECONDITIONERS), sor, spai])
def test_a_step_of_an_optimizer_does_not_change_it(build):
    """Half of the old matrix and half of the new one would be a preconditioner of neither."""
    assert_independent(build, poisson(5, 4, dtype=torch.float64))


@pytest.mark.parametrize("build", [Jacobi, sor, ssor, ilu0, spai])
def test_nor_does_it_for_a_triangular_matrix(build):
    """Whose triangle is the matrix itself."""
    assert_independent(build, poisson(5, 4, dtype=torch.float64).tril())


def assert_independent(build: Callable[[CSRTensor], Any], A: CSRTensor) -> None:
    A.requires_grad_()
    M, r = build(A), torch.randn(20, dtype=torch.float64)
    apply = M.matvec if isinstance(M, CSRTensor) else M
    before = apply(r).detach()
    with torch.no_grad():
        A.values.mul_(3.0).add_(1.0)
    assert torch.equal(apply(r), before)


def test_jacobi():
    A = random_square(5)
    J = Jacobi(A)
    r = torch.randn(3, 5).double()
    torch.testing.assert_close(J(r), r / dense(A).diagonal())
    assert J.T is J
    same = jacobi(A)
    assert isinstance(same, Jacobi)
    assert torch.equal(same.inverse_diagonal, J.inverse_diagonal)
    assert J(r).requires_grad
    with pytest.raises(ValueError, match="zero in 1 rows, the first of them row 1"):
        Jacobi(CSRTensor.from_dense(torch.tensor([[1.0, 2.0], [3.0, 0.0]])))


PARTITION = torch.tensor([2, 0, 0, 3, 2, 2, 0, 2, 3, 2, 2, 3])  # block 1 has no unknowns


@pytest.mark.parametrize(
    ("how", "labels"),
    [
        ({"block_size": 1}, torch.arange(12)),
        ({"block_size": 5}, torch.arange(12) // 5),
        ({"block_size": 20}, torch.zeros(12)),
        ({"partition": PARTITION}, PARTITION),
        ({"partition": PARTITION.int()}, PARTITION),
    ],
)
def test_block_jacobi_inverts_the_diagonal_blocks(how, labels):
    A = random_square(12)
    M = block_jacobi(A, **how)
    blocks = torch.where(labels[:, None] == labels, dense(A), 0)
    torch.testing.assert_close(as_matrix(M, 12), torch.linalg.inv(blocks))
    assert isinstance(M.T, BlockJacobi)


def test_blocks_of_one_are_jacobi_and_one_block_is_a_solve():
    A, r = random_square(12), torch.randn(12).double()
    torch.testing.assert_close(block_jacobi(A, 1)(r), Jacobi(A)(r))
    assert gmres(A, r, preconditioner=block_jacobi(A, 12)).iterations == 1


def test_block_jacobi_names_what_is_wrong():
    A = CSRTensor.from_dense(torch.tensor([[1.0, 0, 0], [0, 1, 2], [0, 2, 4]]))
    with pytest.raises(ValueError, match=r"1 diagonal blocks .* block 1, which starts with row 1"):
        block_jacobi(A, partition=torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="block_size, partition: expected one of the two"):
        block_jacobi(A)
    with pytest.raises(ValueError, match="block_size, partition: expected one of the two"):
        block_jacobi(A, 2, partition=torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match="block_size: expected at least 1 unknown, got 0"):
        block_jacobi(A, 0)
    with pytest.raises(ValueError, match=r"partition: expected \(3,\) like A, got shape \(2,\)"):
        block_jacobi(A, partition=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="partition: expected indices from 0 to 2, got -1 to 0"):
        block_jacobi(A, partition=torch.tensor([0, 0, -1]))


@pytest.mark.parametrize("degree", [0, 1, 2, 5])
def test_chebyshev_is_the_polynomial_that_saad_defines(degree):
    A = random_square(30, symmetric=True).detach()
    low, high = 0.4, 1.7
    scaled = dense(A) / A.diagonal()[:, None]
    got = as_matrix(chebyshev(A, degree, (low, high)), 30) * A.diagonal()  # p(D^-1 A)
    # 1 - t p(t) = T_k((theta - t) / delta) / T_k(theta / delta) of degree k = degree + 1
    theta, delta = (high + low) / 2, (high - low) / 2
    polynomial = np.polynomial.Chebyshev.basis(degree + 1)
    t, vectors = torch.linalg.eig(scaled)
    residual = polynomial((theta - t.real.numpy()) / delta) / polynomial(theta / delta)
    expected = (
        vectors @ torch.diag((1 - torch.from_numpy(residual)) / t) @ torch.linalg.inv(vectors)
    )
    torch.testing.assert_close(got, expected.real)


def test_a_chebyshev_interval_of_one_point_is_a_multiple_of_jacobi():
    A, r = random_square(12, symmetric=True), torch.randn(12).double()
    torch.testing.assert_close(chebyshev(A, 0, (2, 2))(r), Jacobi(A)(r) / 2)


def test_chebyshev_estimates_its_interval():
    M = chebyshev(POISSON, 3)
    largest = 1 + np.cos(np.pi / 41)
    assert largest <= M.bounds[1] <= 1.05 * largest
    assert M.bounds[0] == pytest.approx(M.bounds[1] / 32)
    well_conditioned = random_square(50, symmetric=True)
    low, _ = chebyshev(well_conditioned, 9).bounds  # here the interval is that of the eigenvalues
    t = torch.linalg.eigvals(dense(well_conditioned) / well_conditioned.diagonal()[:, None]).real
    assert 0.8 * t.min() <= low <= 1.1 * t.min()


def test_chebyshev_names_what_is_wrong():
    A = CSRTensor.from_dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(
        ValueError, match=r"positive definite matrix .*, but D\^-1 A has an eigenvalue"
    ):
        chebyshev(A)
    with pytest.raises(ValueError, match=r"positive definite matrix .*, but D or A is not"):
        chebyshev(-A)
    with pytest.raises(ValueError, match="degree: expected at least 0 products with A, got -1"):
        chebyshev(A, -1)
    with pytest.raises(ValueError, match=r"bounds: expected \(smallest, largest\) eigenvalue"):
        chebyshev(A, 1, (2, 1))
    with pytest.raises(ValueError, match="zero in 1 rows"):
        chebyshev(CSRTensor.from_dense(torch.tensor([[0.0, 1], [1, 2]])))


@pytest.mark.parametrize("kind", ["ruge_stuben", "smoothed_aggregation"])
@pytest.mark.parametrize("degree", [0, 2])
@pytest.mark.parametrize("name", ["airfoil", "recirc_flow"])
def test_the_v_cycle_is_its_recursion(kind, degree, name):
    A = example(name)
    M = amg(A, kind, degree=degree)
    assert len(M.levels) >= 2
    assert isinstance(M.coarsest, Tensor)
    expected = M.coarsest
    for level in reversed(M.levels):
        D, R, P = (dense(matrix) for matrix in (level.A, level.restriction, level.interpolation))
        # The next level is Galerkin's, and the smoother a polynomial on (1 / 2 (degree + 1), 1).
        eigenvalues = torch.linalg.eigvals(D / D.abs().sum(1)[:, None])
        assert eigenvalues.abs().max() <= 1 + 1e-12
        S, identity = as_matrix(level.smoother, len(D)), torch.eye(len(D)).double()
        error = (identity - S @ D) @ (identity - P @ expected @ R @ D) @ (identity - S @ D)
        expected = (identity - error) @ torch.linalg.inv(D)
    torch.testing.assert_close(as_matrix(M, A.shape[0]), expected)
    coarse = M.levels[-1]
    R, P = dense(coarse.restriction), dense(coarse.interpolation)
    torch.testing.assert_close(M.coarsest, torch.linalg.pinv(R @ dense(coarse.A) @ P))


@pytest.mark.parametrize("kind", ["ruge_stuben", "smoothed_aggregation"])
def test_multigrid_needs_as_many_iterations_on_a_fine_grid_as_on_a_coarse_one(kind):
    counts = []
    for n in (20, 80):
        A = poisson(n, n, dtype=torch.float64)
        b = torch.randn(n * n, generator=torch.Generator().manual_seed(0)).double()
        counts.append(cg(A, b, preconditioner=amg(A, kind)).iterations)
    assert max(counts) <= 14
    assert counts[1] <= counts[0] + 4  # without: 58 and 280


@pytest.mark.parametrize("kind", ["ruge_stuben", "smoothed_aggregation"])
def test_multigrid_takes_a_matrix_with_a_null_space(kind):
    A = POISSON.with_diagonal(POISSON.diagonal() - POISSON.sum(-1))  # Neumann
    b = torch.randn(1600, generator=torch.Generator().manual_seed(0)).double()
    b = b - b.mean()
    solution = cg(A, b, preconditioner=amg(A, kind))
    assert solution.converged
    assert solution.iterations <= 15


def test_smoothed_aggregation_takes_the_rigid_motions_of_elasticity():
    A, B = gallery.linear_elasticity((20, 20), format="csr")
    A = CSRTensor.from_scipy(sp.csr_array(A))
    b = torch.randn(A.shape[0], generator=torch.Generator().manual_seed(0)).double()
    M = amg(A, "smoothed_aggregation", degree=2, B=B)
    assert cg(A, b, preconditioner=M).iterations <= 24 < cg(A, b).iterations / 4


def test_the_set_up_is_the_same_each_time_and_leaves_the_random_generator_alone():
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    one, two = (amg(POISSON, "smoothed_aggregation") for _ in range(2))
    assert np.random.rand() == expected  # noqa: NPY002
    assert torch.equal(one.levels[0].interpolation.values, two.levels[0].interpolation.values)


def test_a_matrix_that_cannot_be_coarsened_is_smoothed():
    A = CSRTensor.diag(torch.arange(1.0, 3001).double())
    M = amg(A)
    assert not M.levels
    assert cg(A, torch.ones(3000).double(), preconditioner=M).iterations == 1
    small = amg(CSRTensor.from_dense(torch.tensor([[4.0]])))
    torch.testing.assert_close(small(torch.ones(1)), torch.tensor([0.25]))
    assert isinstance(small, Multigrid)


def test_multigrid_for_a_matrix_that_is_not_symmetric():
    A = example("recirc_flow")
    b = torch.randn(225, generator=torch.Generator().manual_seed(0)).double()
    for method in (gmres, bicgstab):
        assert method(A, b, preconditioner=amg(A)).iterations <= method(A, b).iterations / 4


def test_amg_names_what_is_wrong():
    A = POISSON
    with pytest.raises(ValueError, match=r"kind: expected 'ruge_stuben' or .*, got 'classical'"):
        amg(A, "classical")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="degree: expected at least 0 products with A, got -1"):
        amg(A, degree=-1)
    with pytest.raises(ValueError, match="A: expected finite values, got NaN or infinity"):
        amg(A.with_values(A.values * torch.nan))
    with pytest.raises(ValueError, match="A: 1 rows are zero, the first of them row 1"):
        amg(CSRTensor.from_dense(torch.tensor([[1.0, 0.0], [0.0, 0.0]])))
    with pytest.raises(TypeError, match=r"A: expected float32, .* or complex128, got .*float16"):
        amg(A.to(torch.float16))


def test_without_pyamg_the_install_command_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyamg", None)
    with pytest.raises(ImportError, match=r"PyAMG is not installed: pip install 'pyamg>=5.2'"):
        amg(POISSON)
