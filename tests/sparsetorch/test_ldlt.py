"""Factors of indefinite matrices: accuracy, inertia, what is refused; and real forms of complex."""

import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magnetic import magnetic
from random_matrices import dense, random_complex, random_square

import sparsetorch.linalg.real_form
from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, Status, factorized, selected_inverse, slogdet, solve
from sparsetorch.linalg.cholesky import LDLT, Cholesky
from sparsetorch.linalg.lu import LU
from sparsetorch.ordering import minimum_degree
from sparsetorch_kernels import cholesky_is_compiled

F64 = torch.float64


def from_rows(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=F64))


def helmholtz(n: int, shift: float, dtype: torch.dtype = F64) -> CSRTensor:
    """The Laplacian of a grid minus a multiple of the identity."""
    A = poisson(n, n, dtype=dtype)
    return A.add_diagonal(torch.full((n * n,), -shift, dtype=dtype))


def saddle_point(n: int, constraints: int, weight: float) -> CSRTensor:
    """[[A, B^T], [B, -weight I]]: quasi-definite if weight is positive."""
    generator = torch.Generator().manual_seed(0)
    B = torch.randn(constraints, n * n, generator=generator, dtype=F64)
    B = sp.csr_array((B * (B > 1.3)).numpy())
    A = poisson(n, n, dtype=F64).to_scipy()
    lower = -weight * sp.eye_array(constraints) if weight else None
    return CSRTensor.from_scipy(sp.block_array([[A, B.T], [B, lower]], format="csr"))


def charged(n: int, energy: float) -> CSRTensor:
    """A Hermitian matrix with eigenvalues on both sides of zero."""
    return magnetic(n).add_diagonal(torch.full((n * n,), -energy, dtype=torch.complex128))


def backward_error(A: CSRTensor, x: torch.Tensor, b: torch.Tensor) -> float:
    size = A.map(torch.abs).sum(-1).max() * x.abs().max() + b.abs().max()
    return float((b - A @ x).abs().max() / size)


MATRICES = {
    "1x1": from_rows([-3.0]),
    "negative definite": -poisson(7, 9, dtype=F64),
    "Helmholtz": helmholtz(20, 0.7),
    "Helmholtz, high frequency": helmholtz(30, 3.1),
    "quasi-definite": saddle_point(8, 20, 1e-2),
    "hardly regularized": saddle_point(8, 20, 1e-6),
    "magnetic": charged(9, 1.3),
}


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("columns", [(), (3,), (0,)])
def test_solves_are_accurate_to_rounding(A, columns):
    b = torch.randn(A.shape[0], *columns, generator=torch.Generator().manual_seed(0), dtype=A.dtype)
    factors = factorized(A, "ldlt")
    torch.testing.assert_close(factors.solve(b), torch.linalg.solve(dense(A), b))
    turned = torch.linalg.solve(dense(A).mT, b)
    for x in (factors.solve(b, transpose=True), factors.T(b), factors.T.T.T(b)):
        torch.testing.assert_close(x, turned)
    torch.testing.assert_close(solve(A, b, "ldlt"), factors(b))
    if b.numel():
        # What is not refined has passed with one right-hand side: others may err by a little more.
        assert backward_error(A, factors(b), b) < 1e-14


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
def test_determinants_inertia_and_the_selected_inverse(A):
    D, factors = dense(A), factorized(A, "ldlt")
    assert isinstance(factors, LDLT)
    torch.testing.assert_close(factors.slogdet(), tuple(torch.linalg.slogdet(D)))
    row, col = A.pattern.row.long(), A.pattern.col.long()
    inverse = torch.linalg.inv(D)
    error = (selected_inverse(A).values - inverse[row, col]).abs().max()
    assert error <= 1e-8 * inverse.abs().max()


def test_the_entries_of_an_inverse_that_rounding_has_may_have_spoilt_are_found_otherwise():
    A = MATRICES["hardly regularized"]
    factors = factorized(A, "ldlt")
    assert isinstance(factors, LDLT)
    assert factors.inverse_entries() is None
    well = factorized(MATRICES["negative definite"], "ldlt")
    assert isinstance(well, LDLT)
    assert well.inverse_entries() is not None


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
def test_new_values_on_a_known_pattern(A):
    scale = torch.linspace(1.0, 2.0, A.shape[0]).to(A.dtype)
    new = A.scale_rows(scale).scale_cols(scale)
    b = torch.ones(A.shape[0], dtype=A.dtype)
    again = factorized(A, "ldlt").refactorized(new)
    assert isinstance(again, LDLT)
    torch.testing.assert_close(again.solve(b), torch.linalg.solve(dense(new), b))


def test_small_pivots_are_refined():
    A = helmholtz(60, 2.551)
    factors = factorized(A, "ldlt")
    assert isinstance(factors, LDLT)
    assert factors._error > 1e-13
    b = torch.ones(3600, 2, dtype=F64)
    assert backward_error(A, factors(b), b) < 1e-15
    factors._error = 0.0
    assert backward_error(A, factors(b), b) > 1e-14


def test_a_step_of_an_optimizer_does_not_change_refined_solutions():
    A, b = helmholtz(60, 2.551), torch.ones(3600, dtype=F64)
    factors = factorized(A, "ldlt")
    before = factors.solve(b)
    A.values.mul_(3.0)
    assert torch.equal(factors.solve(b), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.float16], ids=str)
def test_narrow_dtypes_are_accurate_to_their_own_rounding(dtype):
    A = (charged(16, 1.3) if dtype.is_complex else helmholtz(16, 3.1)).to(dtype)
    factors = factorized(A, "ldlt")
    b = torch.ones(256, 2, dtype=dtype)
    x, (sign, logarithm) = factors(b), factors.slogdet()
    assert (x.dtype, sign.dtype) == (dtype, dtype)
    assert logarithm.dtype == sign.real.dtype
    wide = torch.complex128 if dtype.is_complex else F64
    exact = A.to(wide)
    eps = torch.finfo(dtype).eps
    assert backward_error(exact, x.to(wide), b.to(wide)) < 2 * eps
    wanted = torch.linalg.slogdet(dense(exact))
    assert sign == wanted[0].real.sign()
    torch.testing.assert_close(logarithm.double(), wanted[1], rtol=2 * eps, atol=0)
    if dtype != torch.float16:
        assert selected_inverse(A).dtype == dtype


@pytest.mark.parametrize(
    ("A", "detail"),
    [
        (from_rows([0, 1], [1, 0]), r"the pivot in column [01] is 0"),
        (from_rows([1e-17, 1], [1, 1e-17]), r"the pivot in column [01] is 1e-17"),
        (from_rows([1e-12, 1], [1, 1e-12]), r"with the factors, residuals are \d"),
        (saddle_point(8, 20, 0.0), r"the pivot in column \d+ is"),
    ],
)
def test_matrices_that_need_exchanges_are_refused_and_go_by_lu(A, detail):
    with pytest.raises(SolveError, match=rf"without exchanges of rows.*{detail}.*'lu'") as info:
        factorized(A, "ldlt")
    assert info.value.solution.status is Status.UNSTABLE
    factors = factorized(A)
    assert isinstance(factors, LU)
    b = torch.ones(A.shape[0], dtype=F64)
    torch.testing.assert_close(factors(b), torch.linalg.solve(dense(A), b))


def test_singular_matrices_are_singular_by_default_and_unstable_by_name():
    A = from_rows([1, 2], [2, 4])
    with pytest.raises(SolveError, match="unstable"):
        factorized(A, "ldlt")
    with pytest.raises(SolveError, match="the matrix is singular"):
        factorized(A)
    assert slogdet(A)[0] == 0


@pytest.mark.skipif(not cholesky_is_compiled(), reason="without the C++ library auto means LU")
def test_what_auto_takes():
    positive, indefinite = magnetic(5), charged(5, 1.3)
    symmetric = random_complex(8, "symmetric").detach()
    for A, kind in (
        (positive, Cholesky),
        (indefinite, LDLT),
        (symmetric, LU),
        (helmholtz(6, 1.0), LDLT),
        (random_square(6).detach(), LU),
        (saddle_point(8, 20, 0.0), LU),
    ):
        assert type(factorized(A)) is kind


def test_a_hermitian_factor_names_columns_of_the_matrix():
    A = CSRTensor.diag(torch.tensor([1.0, 1.0, -5.0, 1.0], dtype=torch.complex128))
    with pytest.raises(SolveError, match="the pivot in column 2 is -5"):
        factorized(A, "cholesky")


def test_rounding_in_imaginary_parts_of_the_diagonal_is_no_obstacle():
    A = magnetic(4)
    noisy = A.add_diagonal(torch.full((16,), 1e-15j, dtype=torch.complex128))
    assert isinstance(factorized(noisy, "cholesky"), Cholesky)
    with pytest.raises(ValueError, match=r"entry \(0, 0\) is \(4\+1e-06j\)"):
        factorized(A.add_diagonal(torch.full((16,), 1e-6j, dtype=torch.complex128)), "cholesky")


def test_the_real_form_is_found_once_per_pattern(monkeypatch):
    A, calls = magnetic(4), []

    def counted(pattern):
        calls.append(pattern)
        return minimum_degree(pattern)

    monkeypatch.setattr(sparsetorch.linalg.real_form, "minimum_degree", counted)
    factorized(A, "cholesky").refactorized(2 * A)
    factorized(A.add_diagonal(torch.full((16,), -1.3 + 0j, dtype=A.dtype)), "ldlt")
    assert len(calls) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6), st.booleans())
def test_random_indefinite_matrices(n, seed, is_complex):
    """Whatever the default makes of them, what it returns solves the system."""
    if is_complex:
        A = random_complex(n, "hermitian", seed).detach()
    else:
        A = random_square(n, seed, symmetric=True).detach()
        A = A.add_diagonal(torch.linspace(-2.1, 0.5, n, dtype=F64))  # not -2, which makes zeros
    b = torch.ones(n, 2, dtype=A.dtype)
    x = solve(A, b)
    assert backward_error(A, x, b) < 1e-14
