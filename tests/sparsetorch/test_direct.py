"""LU factorization: accuracy, transposes, orderings, and singular matrices."""

import copy
import pickle

import pytest
import torch
from random_matrices import dense, random_csr, random_square

from sparsetorch import CSRTensor, diags, eye, kron
from sparsetorch.linalg import SolveError, Status, factorized, solve
from sparsetorch.linalg.direct import DirectMethod


def from_rows(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=torch.float64))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("columns", [(), (3,), (0,)])
def test_solves_with_the_matrix_and_its_transpose(symmetric, columns):
    A = random_square(30, symmetric=symmetric).detach()
    b = torch.randn(30, *columns).double()
    factors = factorized(A)
    D = dense(A)
    torch.testing.assert_close(factors.solve(b), torch.linalg.solve(D, b))
    for x in (factors.solve(b, transpose=True), factors.T.solve(b), factors.T.T.T(b)):
        torch.testing.assert_close(x, torch.linalg.solve(D.T, b))


def test_solves_with_what_pytorch_has_negated_lazily():
    A = random_square(30).detach()
    negated = A.with_values(torch.complex(A.values, A.values).conj().imag)
    b = torch.complex(torch.ones(30), torch.ones(30)).to(torch.complex128).conj().imag
    assert negated.values.is_neg()
    assert b.is_neg()
    torch.testing.assert_close(solve(negated, b), solve(A, torch.ones(30).double()))


@pytest.mark.parametrize(
    "rows",
    [
        ([1e-20, 1.0], [1.0, 1.0]),  # numml does not pivot and returns (0, 1)
        ([0.0, 1.0], [1.0, 0.0]),  # a missing diagonal gives NaN there
        ([0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]),
    ],
)
def test_pivots_where_the_diagonal_is_small_or_missing(rows):
    A = from_rows(*rows)
    b = torch.arange(1.0, len(rows) + 1).double()
    torch.testing.assert_close(solve(A, b), torch.linalg.solve(dense(A), b))


def test_random_indefinite_matrices_with_a_symmetric_pattern_are_solved_accurately():
    A = random_csr(300, 300, 0.02, seed=1).detach()
    A = A + A.T.with_values(A.T.values * 0.3) + 1e-3 * CSRTensor.eye(300, dtype=torch.float64)
    assert A.pattern.is_symmetric
    b = torch.ones(300).double()
    x = solve(A, b)
    scale = dense(A).abs().sum(1).max() * x.norm()
    assert (b - A @ x).norm() <= 1e-13 * scale


def test_float32_stays_float32():
    A = random_square(20).detach().to(torch.float32)
    x = factorized(A).solve(torch.ones(20))
    assert x.dtype == torch.float32
    torch.testing.assert_close(dense(A) @ x, torch.ones(20))


def test_values_may_be_strided():
    A = random_square(10).detach()
    strided = torch.stack([A.values, A.values], 1)[:, 0]
    b = torch.ones(10, 2).double()
    torch.testing.assert_close(solve(A.with_values(strided), b.mT.contiguous().mT), solve(A, b))


@pytest.mark.parametrize(
    ("A", "detail"),
    [
        (from_rows([1, 2], [2, 4]), "singular"),
        (from_rows([1, 2], [0, 0]), "row 1 has no entries"),
        (from_rows([0, 2, 0], [0, 1, 0], [0, 1, 0]), "column 0 has no entries and 1 more"),
    ],
)
def test_singular_matrices_are_explained(A, detail):
    with pytest.raises(SolveError, match=rf"the matrix is singular \(.*{detail}.*To try: check"):
        factorized(A)
    solution = solve(A, torch.ones(A.shape[0]).double(), full_output=True)
    assert solution.status is Status.SINGULAR
    assert solution.x.isnan().all()


@pytest.mark.parametrize("method", ["auto", "lu", "cholesky", "ldlt"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float16], ids=str)
def test_solves_by_factors_that_are_kept(method, dtype, monkeypatch):
    A = random_square(20, symmetric=True).detach().to(dtype).requires_grad_()
    factors = factorized(A, method)
    b, c = torch.randn(2, 20, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    b.requires_grad_()

    def never(*_):
        raise AssertionError("factorized again")

    def derivatives(how):
        x = solve(A, b, how)
        y = solve(A, x + c, how)
        first = torch.autograd.grad(y.abs().sin().sum(), (A.values, b), create_graph=True)
        size = first[0].abs().sin().sum() + first[1].abs().sin().sum()
        return y, *first, *torch.autograd.grad(size, (A.values, b))

    expected = derivatives("direct")
    monkeypatch.setattr("sparsetorch.linalg.solvers.factorized", never)
    if dtype == torch.float16:
        torch.testing.assert_close(derivatives(factors), expected, rtol=1e-2, atol=1e-2)
    else:
        torch.testing.assert_close(derivatives(factors), expected)
    torch.testing.assert_close(solve(A.T, b, factors.T), factors.T.solve(b))
    rows = torch.vmap(lambda row: solve(A, row, factors))(b.mT)
    torch.testing.assert_close(rows.mT, factors.solve(b))


def test_factors_of_another_matrix_are_refused():
    A, b = random_square(6).detach(), torch.ones(6, dtype=torch.float64)
    factors = factorized(A)
    for other in (2 * A, A.T, random_square(6, seed=1)):
        with pytest.raises(ValueError, match=r"method: expected the factors of A.*refactorized"):
            solve(other, b, factors)
    with pytest.raises(ValueError, match="takes no options of the iterative methods"):
        solve(A, b, factors, rtol=1e-3)
    A.values.mul_(2)  # the factors are of what it was
    with pytest.raises(ValueError, match="expected the factors of A"):
        solve(A, b, factors)
    torch.testing.assert_close(factors.matrix.values * 2, A.values)


def test_a_training_step_does_not_change_factors():
    A = random_square(6, symmetric=True).detach()
    A = A.add_diagonal(torch.linspace(-2.0, 0.5, 6, dtype=torch.float64))
    b = torch.ones(6, dtype=torch.float64)
    x = solve(A, b)
    for method in ("lu", "ldlt"):
        changing = A.with_values(A.values.clone())
        factors = factorized(changing, method)
        again = factors.refactorized(changing)
        changing.values.mul_(3)
        torch.testing.assert_close(factors.solve(b), x)
        torch.testing.assert_close(again.solve(b), x)


def test_overflow_is_a_failure():
    with pytest.raises(SolveError, match="the solution overflows"):
        solve(from_rows([1e-300]), torch.tensor([1e300], dtype=torch.float64))


def test_bad_matrices_are_named():
    with pytest.raises(ValueError, match=r"A.values: expected finite numbers, got NaN or infinity"):
        factorized(from_rows([float("nan")]))
    with pytest.raises(ValueError, match=r"A: expected a square matrix, got shape \(2, 3\)"):
        factorized(from_rows([1, 2, 3], [4, 5, 6]))
    with pytest.raises(TypeError, match=r"complex64 or complex128, got torch.float8_e4m3fn"):
        factorized(CSRTensor.eye(2).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"LU on CUDA, got meta"):
        factorized(CSRTensor.eye(2).to("meta"))


def neumann(n: int) -> CSRTensor:
    """The singular Laplacian of an n x n grid without a boundary condition."""
    line = diags([-1.0, 2.0, -1.0], [-1, 0, 1], (n, n), dtype=torch.float64)
    ends = torch.ones(n, dtype=torch.float64)
    ends[1:-1] = 2.0
    line, here = line.with_diagonal(ends), eye(n, dtype=torch.float64)
    return kron(line, here) + kron(here, line)


def test_a_matrix_singular_to_working_precision_is_reported_although_lu_succeeds():
    A = neumann(5)
    b = torch.rand(25, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(SolveError, match="to working precision: the residual norm is"):
        solve(A, b)
    assert solve(A, b, full_output=True).status is Status.SINGULAR


def test_no_right_hand_sides():
    assert solve(CSRTensor.eye(3, torch.float64), torch.ones(3, 0).double()).shape == (3, 0)


METHODS: list[DirectMethod] = ["lu", "cholesky", "ldlt"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float16], ids=str)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "again",
    [lambda f: pickle.loads(pickle.dumps(f)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_factors_can_be_copied_and_pickled(method, dtype, again):
    """Those of the matrix that was factorized, also where an optimizer has changed it since."""
    A = (random_square(12, symmetric=True).to(dtype) * 1.0).requires_grad_()
    b = torch.ones(12, dtype=dtype)
    for factors in (factorized(A, method), factorized(A, method).refactorized(A), factorized(A).T):
        expected = factors.solve(b)
        with torch.no_grad():
            A.values.mul_(2.0)
        torch.testing.assert_close(again(factors).solve(b), expected)
        torch.testing.assert_close(again(factors.T).solve(b), factors.T.solve(b))


def test_copies_of_lu_factors_take_new_values():
    A = random_square(12).detach()
    factors = factorized(A, "lu").refactorized(2 * A)
    again = copy.deepcopy(factors).refactorized(3 * A)
    torch.testing.assert_close(again.solve(A.values[:12]) * 3, factors.solve(A.values[:12]) * 2)
