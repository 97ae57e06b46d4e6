"""Cholesky factorization: parity, reuse of structure, refusals; and both methods' determinants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_matrices import dense, random_pattern, random_square

from sparsetorch import CSRTensor, Pattern, diags, poisson
from sparsetorch.linalg import SolveError, Status, factorized, solve
from sparsetorch.linalg.cholesky import LDLT, Cholesky
from sparsetorch.linalg.direct import DirectMethod
from sparsetorch.linalg.lu import LU
from sparsetorch.ordering import minimum_degree
from sparsetorch_kernels import cholesky_is_compiled

F64 = torch.float64


def from_rows(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=F64))


def random_spd(n: int, density: float = 0.1, seed: int = 0, dtype=None) -> CSRTensor:
    """Symmetric, with a dominant diagonal, on a random pattern."""
    stored = random_pattern(n, n, density, seed)
    D = torch.zeros(n, n, dtype=F64)
    generator = torch.Generator().manual_seed(seed)
    D[stored.row, stored.col] = torch.randn(stored.nnz, generator=generator, dtype=F64)
    D = D + D.T
    D = D.fill_diagonal_(0) + torch.diag(D.abs().sum(1) + 1)
    A = CSRTensor.from_dense(D)
    pattern = Pattern(A.pattern.crow, A.pattern.col, (n, n), dtype=dtype)
    return CSRTensor(pattern, A.values)


MATRICES = {
    "0x0": CSRTensor.from_dense(torch.zeros(0, 0, dtype=F64)),
    "1x1": from_rows([3.0]),
    "diagonal": CSRTensor.diag(torch.arange(1.0, 6.0).double()),
    "random": random_spd(80),
    "int64": random_spd(50, dtype=torch.int64),
    "2-D": poisson(9, 14, dtype=F64),
    "3-D": poisson(5, 6, 7, dtype=F64),
}


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
@pytest.mark.parametrize("columns", [(), (3,), (0,)])
def test_solves_and_determinants_match_dense_algebra(A, columns):
    n = A.shape[0]
    b = torch.randn(n, *columns, generator=torch.Generator().manual_seed(0), dtype=F64)
    D = dense(A)
    expected = torch.linalg.solve(D, b)
    factors = factorized(A, "cholesky")
    assert isinstance(factors, Cholesky)
    for x in (factors.solve(b), factors(b), factors.T.solve(b), factors.solve(b, transpose=True)):
        torch.testing.assert_close(x, expected)
    sign, logarithm = factors.slogdet()
    assert sign == 1
    torch.testing.assert_close(logarithm, torch.linalg.slogdet(D)[1])
    torch.testing.assert_close(factors.logdet(), logarithm)
    torch.testing.assert_close(solve(A, b, "cholesky"), expected)


@pytest.mark.parametrize("A", MATRICES.values(), ids=MATRICES)
def test_new_values_on_a_known_pattern(A):
    for method in ("lu", "cholesky"):
        if method == "lu" and A.shape[0] == 0:
            continue  # SuperLU takes no empty matrix
        scale = torch.linspace(1.0, 2.0, A.shape[0], dtype=F64)
        new = A.scale_rows(scale).scale_cols(scale)
        b = torch.ones(A.shape[0], 2, dtype=F64)
        again = factorized(A, method).refactorized(new)
        torch.testing.assert_close(again.solve(b), torch.linalg.solve(dense(new), b))
        torch.testing.assert_close(again.logdet(), torch.logdet(dense(new)))


@pytest.mark.parametrize("seed", range(6))
def test_new_values_of_a_matrix_that_needs_interchanges(seed):
    A = random_square(40, seed=seed).detach()
    other = A.with_values(A.values.roll(3))
    b = torch.randn(40, generator=torch.Generator().manual_seed(seed), dtype=F64)
    again = factorized(A).refactorized(other)
    assert isinstance(again, LU)
    D = dense(other)
    for factors in (again, again.refactorized(A).refactorized(other), factorized(other)):
        torch.testing.assert_close(factors.solve(b), torch.linalg.solve(D, b))
        torch.testing.assert_close(factors.T.solve(b), torch.linalg.solve(D.T, b))
        torch.testing.assert_close(factors.slogdet(), tuple(torch.linalg.slogdet(D)))


def test_a_negative_determinant():
    A = from_rows([0.0, 2.0], [3.0, 0.0])
    factors = factorized(A)
    sign, logarithm = factors.slogdet()
    assert sign == -1
    torch.testing.assert_close(logarithm.exp(), torch.tensor(6.0).double())
    assert factors.logdet().isnan()
    assert factors.T.slogdet()[0] == -1


def test_auto_takes_cholesky_where_it_applies():
    A = random_spd(20)
    assert isinstance(factorized(A), Cholesky if cholesky_is_compiled() else LU)
    assert isinstance(factorized(A, "lu"), LU)
    indefinite = A - CSRTensor.diag(2 * A.diagonal())
    asymmetric = A.scale_rows(torch.linspace(1, 2, 20, dtype=F64))
    symmetric = LDLT if cholesky_is_compiled() else LU
    for other, kind in (
        (indefinite, symmetric),
        (-A, symmetric),
        (asymmetric, LU),
        (random_square(20).detach(), LU),
    ):
        factors = factorized(other)
        assert isinstance(factors, kind)
        b = torch.ones(20, dtype=F64)
        torch.testing.assert_close(factors.solve(b), torch.linalg.solve(dense(other), b))


def test_a_factor_of_an_indefinite_matrix_names_column_and_remedy():
    A = from_rows([2, 0, 0], [0, 1, 3], [0, 3, 1])
    with pytest.raises(SolveError, match=r"column [12] is -8.*use method='minres'.*'direct'") as e:
        factorized(A, "cholesky")
    assert e.value.solution.status is Status.INDEFINITE
    b = torch.ones(3, dtype=F64)
    with pytest.raises(SolveError, match="indefinite after 0 iterations"):
        solve(A, b, "cholesky")
    solution = solve(A, b, "cholesky", full_output=True)
    assert solution.status is Status.INDEFINITE
    torch.testing.assert_close(solve(A, b), torch.linalg.solve(dense(A), b))


def test_a_missing_diagonal_entry_is_an_indefinite_matrix():
    with pytest.raises(SolveError, match="pivot in column"):
        factorized(from_rows([0, 1], [1, 0]), "cholesky")
    with pytest.raises(SolveError, match="pivot in column 1 is 0"):
        factorized(CSRTensor.diag(torch.tensor([1.0, 0.0])), "cholesky")


def test_a_matrix_that_is_singular_to_rounding_has_no_cholesky_factor():
    line = diags([-1.0, 2.0, -1.0], [-1, 0, 1], (30, 30), dtype=F64)
    ends = torch.full((30,), 2.0, dtype=F64)
    ends[[0, -1]] = 1.0
    neumann = line.with_diagonal(ends)
    with pytest.raises(SolveError, match="indefinite"):
        factorized(neumann, "cholesky")


def test_asymmetric_matrices_are_refused_by_the_first_pair():
    A = random_spd(6, 0.5)
    values = A.values.clone()
    entry = int(torch.nonzero(A.pattern.row != A.pattern.col)[0, 0])
    i, j = int(A.pattern.row[entry]), int(A.pattern.col[entry])
    values[entry] += 1e-6
    with pytest.raises(ValueError, match=rf"entry \({i}, {j}\) is .* and \({j}, {i}\) is .*A.T"):
        factorized(A.with_values(values), "cholesky")
    with pytest.raises(ValueError, match=r"entry \(1, 0\) is stored and \(0, 1\) is not.*L.T"):
        factorized(from_rows([1, 0], [1, 3]), "cholesky")
    with pytest.raises(ValueError, match="expected a symmetric matrix"):
        solve(A.with_values(values), torch.ones(6, dtype=F64), "cholesky")


def test_asymmetry_of_the_size_of_rounding_is_no_obstacle():
    A = random_spd(40)
    B = random_square(40).detach()
    product = B.T @ A @ B
    assert not torch.equal(product.values, product.T.values)
    assert isinstance(factorized(product, "cholesky"), Cholesky)


def test_symmetry_is_judged_in_the_matrix_own_units():
    A = random_spd(30)
    units = torch.logspace(-9, 9, 30, dtype=F64)
    scaled = A.scale_rows(units).scale_cols(units)
    scaled = scaled.with_values((scaled.values + scaled.T.values) / 2 * (1 + 1e-15))
    b = units * torch.ones(30, dtype=F64)
    x = factorized(scaled, "cholesky").solve(b)
    torch.testing.assert_close(units * x, torch.linalg.solve(dense(A), b / units))


def test_structure_is_found_once_per_pattern(monkeypatch):
    import sparsetorch.pattern

    A = random_spd(20)
    calls = []

    def counted(pattern):
        calls.append(pattern)
        return minimum_degree(pattern)

    monkeypatch.setattr(sparsetorch.pattern, "minimum_degree", counted)
    factorized(A, "cholesky").refactorized(2 * A)
    solve(3 * A, torch.ones(20, dtype=F64), "cholesky")
    assert len(calls) == 1
    with pytest.raises(ValueError, match="expected the pattern that was factorized"):
        factorized(A).refactorized(CSRTensor.eye(20, dtype=F64))


def test_minimum_degree_eliminates_the_arms_of_a_star_first():
    D = torch.eye(9, dtype=F64)
    D[0], D[:, 0] = 1, 1
    order = minimum_degree(CSRTensor.from_dense(D).pattern)
    assert order.sort().values.tolist() == list(range(9))
    assert 0 in order[-2:].tolist()
    # A path has a perfect elimination: no fill, so n - 1 entries below the diagonal.
    path = diags([-1.0, 2.0, -1.0], [-1, 0, 1], (60, 60)).pattern
    found, n = minimum_degree(path).tolist(), 60
    neighbours = {i: {j for j in (i - 1, i + 1) if 0 <= j < n} for i in range(n)}
    filled = 0
    for i in found:
        around = neighbours.pop(i)
        filled += len(around)
        for j in around:
            neighbours[j] = (neighbours[j] | around) - {i, j}
    assert filled == n - 1


def test_float32_stays_float32():
    A = random_spd(50).to(torch.float32)
    x = factorized(A, "cholesky").solve(torch.ones(50))
    assert x.dtype == torch.float32
    torch.testing.assert_close(dense(A) @ x, torch.ones(50))


def test_bad_arguments_are_named():
    method: DirectMethod = "qr"  # pyright: ignore
    with pytest.raises(ValueError, match=r"method: expected one of 'auto', .*'ldlt', got 'qr'"):
        factorized(random_spd(3), method)
    with pytest.raises(ValueError, match="'cholesky' takes no options"):
        solve(random_spd(3), torch.ones(3, dtype=F64), "cholesky", rtol=1e-3)
    with pytest.raises(ValueError, match="elimination: expected a symmetric pattern"):
        _ = from_rows([1, 2], [0, 1]).pattern.elimination


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.floats(0, 0.3), st.integers(0, 10**6))
def test_random_patterns(n, density, seed):
    A = random_spd(n, density, seed)
    b = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=F64)
    torch.testing.assert_close(
        factorized(A, "cholesky").solve(b), factorized(A, "lu").solve(b), rtol=1e-9, atol=1e-11
    )
