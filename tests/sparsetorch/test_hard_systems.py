"""Systems without a solution, or out of range: a status or an error, never a wrong answer."""

import math
from functools import partial

import pytest
import torch
from random_matrices import dense, random_square
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import (
    Solution,
    SolveError,
    Status,
    bicgstab,
    block_cg,
    cg,
    chebyshev,
    det,
    diagonal_estimate,
    eigsh,
    factorized,
    fgmres,
    gmres,
    logdet,
    logdet_estimate,
    lsqr,
    minres,
    richardson,
    selected_inverse,
    slogdet,
    solve,
    solve_triangular,
    svds,
    trace_estimate,
)
from sparsetorch.linalg.direct import DirectMethod
from sparsetorch.linalg.solve import Method
from sparsetorch.precond import (
    Jacobi,
    amg,
    block_jacobi,
    fsai,
    ic0,
    ilu0,
    sor,
    spai,
    ssor,
)
from sparsetorch.precond import chebyshev as polynomial

NAN, INF = float("nan"), float("inf")
DEFINITE = [cg, block_cg, chebyshev]
SQUARE = [*DEFINITE, minres, gmres, fgmres, bicgstab, richardson]
METHODS = [*SQUARE, lsqr]
DIRECT: list[Method] = ["direct", "cholesky", "ldlt"]
FACTORIZATIONS: list[DirectMethod] = ["auto", "lu", "cholesky", "ldlt"]
ITERATIVE: list[Method] = ["cg", "block_cg", "minres", "chebyshev", "gmres", "fgmres", "bicgstab"]
every = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


def matrix(*rows: list[float]) -> CSRTensor:
    return CSRTensor.from_dense(torch.tensor(rows, dtype=torch.float64))


def damaged(value: float) -> CSRTensor:
    """Symmetric positive definite but for one entry and its mirror image."""
    D = dense(random_square(8, symmetric=True)).detach()
    D[5, 2] = D[2, 5] = value
    return CSRTensor.from_dense(D)


def right(n: int) -> Tensor:
    return torch.arange(1.0, n + 1, dtype=torch.float64)


ZERO = CSRTensor.from_dense(torch.zeros(3, 3, dtype=torch.float64))
ZERO_ROW = matrix([1, 0, 0], [0, 0, 0], [0, 0, 1])
RANK_ONE = matrix([1, 1], [1, 1])
ZERO_PIVOT = matrix([0, 1], [1, 0])
INDEFINITE = matrix([1, 0], [0, -1])
NEGATIVE = matrix([-1, 0], [0, -2])
SKEW = matrix([0, 1], [-1, 0])
SINGULAR = {"zero": ZERO, "a zero row": ZERO_ROW, "rank one": RANK_ONE}
REGULAR = {"zero pivot": ZERO_PIVOT, "indefinite": INDEFINITE, "negative": NEGATIVE}


@every
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_right_hand_side_that_is_not_finite_is_refused(method, value):
    A, b = random_square(8, symmetric=True).detach(), right(8)
    b[3] = value
    for wrong in (b, torch.stack([right(8), b], 1)):
        with pytest.raises(ValueError, match="b: expected finite numbers, got NaN or infinity"):
            method(A, wrong)


@pytest.mark.parametrize("method", [*DIRECT, *ITERATIVE])
def test_so_it_is_by_solve_and_by_factors(method):
    A, b = random_square(8, symmetric=True).detach(), right(8)
    b[3] = NAN
    with pytest.raises(ValueError, match="b: expected finite numbers"):
        solve(A, b, method)
    for how in FACTORIZATIONS:
        with pytest.raises(ValueError, match="b: expected finite numbers"):
            factorized(A, how).solve(b)


def test_substitution_carries_nan_to_what_depends_on_it():
    A, b = matrix([2, 0, 0], [1, 2, 0], [0, 0, 2]), right(3)
    b[0] = NAN
    assert solve_triangular(A, b).isnan().tolist() == [True, True, False]


@every
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_matrix_that_is_not_finite_makes_an_iteration_diverge(method, value):
    solution = method(damaged(value), right(8))
    assert solution.status is Status.DIVERGED
    assert "NaN" in solution.message


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_matrix_that_is_not_finite_is_not_factorized(value):
    A, good = damaged(value), damaged(0.125)
    fresh = good.with_values(torch.where(A.values.isfinite(), good.values, A.values))
    for use in (
        *(partial(solve, A, right(8), method) for method in DIRECT),
        *(partial(factorized, A, method) for method in FACTORIZATIONS),
        *(partial(f, A) for f in (logdet, slogdet, det, selected_inverse, logdet_estimate)),
        partial(eigsh, A, 1),
        partial(svds, A, 1),
        *(partial(factorized(good, method).refactorized, fresh) for method in FACTORIZATIONS),
    ):
        with pytest.raises(ValueError, match="expected finite numbers, got NaN or infinity"):
            use()
    assert trace_estimate(A).value.isnan()
    assert diagonal_estimate(A).isnan().any()


@pytest.mark.parametrize("A", SINGULAR.values(), ids=SINGULAR)
@pytest.mark.parametrize("method", SQUARE, ids=lambda m: m.__name__)
def test_a_singular_system_without_a_solution_converges_nowhere(method, A):
    assert not method(A, right(A.shape[0])).converged


@pytest.mark.parametrize("A", SINGULAR.values(), ids=SINGULAR)
@pytest.mark.parametrize("method", [*DIRECT, *ITERATIVE])
def test_solve_raises_for_it(method, A):
    with pytest.raises(SolveError, match="To try: "):
        solve(A, right(A.shape[0]), method)


@pytest.mark.parametrize("A", SINGULAR.values(), ids=SINGULAR)
def test_what_singular_matrices_have_all_the_same(A):
    D, b = dense(A), right(A.shape[0])
    torch.testing.assert_close(lsqr(A, b).x, torch.linalg.pinv(D) @ b)
    assert det(A) == 0
    assert slogdet(A)[1] == -INF
    with pytest.raises(SolveError):
        logdet(A)
    with pytest.raises(SolveError):
        selected_inverse(A)
    w = eigsh(A, 1)[0]
    torch.testing.assert_close(w, torch.linalg.eigvalsh(D)[-1:])


def test_eigenvectors_of_zero_are_orthonormal():
    for A in (ZERO, CSRTensor.eye(4, dtype=torch.float64) * 0):
        w, V = eigsh(A, 2)
        assert w.tolist() == [0, 0]
        torch.testing.assert_close(V.T @ V, torch.eye(2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"arbitrary$"):
        svds(ZERO, 1)
    with pytest.raises(ValueError, match="v0: expected finite numbers that are not all zero"):
        eigsh(INDEFINITE, 1, v0=torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("A", REGULAR.values(), ids=REGULAR)
@pytest.mark.parametrize("method", [*DIRECT, *ITERATIVE])
def test_an_indefinite_system_is_solved_or_called_so(method, A):
    b = right(2)
    anything = ("direct", "minres", "gmres", "fgmres", "bicgstab")
    if method in anything or (method == "ldlt" and A is not ZERO_PIVOT):
        torch.testing.assert_close(dense(A) @ solve(A, b, method), b)
    else:
        with pytest.raises(SolveError, match=r"not symmetric positive definite|exchanges of rows"):
            solve(A, b, method)


def test_a_skew_symmetric_system():
    b = right(2)
    suited: list[Method] = ["direct", "gmres", "fgmres"]
    for method in suited:
        torch.testing.assert_close(dense(SKEW) @ solve(SKEW, b, method), b)
    for method in set(ITERATIVE) - set(suited):
        with pytest.raises(SolveError):
            solve(SKEW, b, method)
    with pytest.raises(ValueError, match="expected a symmetric matrix"):
        solve(SKEW, b, "cholesky")


EMPTY = CSRTensor.from_dense(torch.zeros(0, 0, dtype=torch.float64))


@every
@pytest.mark.parametrize("shape", [(0,), (0, 2)])
def test_no_equations(method, shape):
    solution = method(EMPTY, torch.zeros(shape, dtype=torch.float64))
    assert solution.converged
    assert solution.x.shape == shape


def test_what_else_an_empty_matrix_has():
    b = right(0)
    for method in (*DIRECT, *ITERATIVE):
        assert solve(EMPTY, b, method).shape == (0,)
    assert solve_triangular(EMPTY, b).shape == (0,)
    assert (det(EMPTY), logdet(EMPTY), trace_estimate(EMPTY).value) == (1, 0, 0)
    assert selected_inverse(EMPTY).nnz == 0
    for build in (Jacobi, partial(block_jacobi, block_size=2), polynomial, amg, ilu0, ic0, sor,
                  ssor, fsai):  # fmt: skip
        assert build(EMPTY)(b).shape == (0,)


PRECONDITIONERS = {
    "Jacobi": Jacobi, "block_jacobi": partial(block_jacobi, block_size=3), "chebyshev": polynomial,
    "amg": amg, "ilu0": ilu0, "ic0": ic0, "sor": sor, "ssor": ssor, "spai": spai, "fsai": fsai,
}  # fmt: skip


@pytest.mark.parametrize("build", PRECONDITIONERS.values(), ids=PRECONDITIONERS)
def test_a_preconditioner_of_nan_is_refused_or_gives_nan(build):
    try:
        M = build(random_square(8, symmetric=True).detach() * NAN)
    except ValueError:
        return
    assert M(right(8)).isnan().any()


@pytest.mark.parametrize("build", PRECONDITIONERS.values(), ids=PRECONDITIONERS)
@pytest.mark.parametrize("A", [ZERO, ZERO_ROW], ids=["zero", "a zero row"])
def test_a_preconditioner_that_would_divide_by_zero_is_refused(build, A):
    if build is spai:
        A = RANK_ONE  # it minimises column by column, which zero rows do not disturb
    with pytest.raises(ValueError, match="A: "):
        build(A)


# The range of numbers


def scaled_alike(got: Tensor, expected: Tensor, scale: float, rtol: float) -> bool:
    return bool(((got / scale - expected).abs() <= rtol * expected.abs().max()).all())


@every
@pytest.mark.parametrize(
    ("dtype", "scale", "rtol"),
    [
        (torch.float64, 1e-200, 1e-8),
        (torch.float64, 1e200, 1e-8),
        (torch.float32, 1e-25, 1e-4),
        (torch.float32, 1e25, 1e-4),
        (torch.complex128, 1e-200, 1e-8),
    ],
    ids=str,
)
def test_a_right_hand_side_whose_squares_leave_the_range(method, dtype, scale, rtol):
    """Norms of b under- or overflow: that is not a solution at the first guess."""
    A, b = random_square(8, symmetric=True).detach().to(dtype), right(8).to(dtype)
    b = torch.stack([b, 0 * b, b.flip(0)], 1)
    expected, got = method(A, b), method(A, b * scale)
    assert expected.converged
    assert got.converged
    assert scaled_alike(got.x, expected.x, scale, rtol)
    assert got.residuals[0] == pytest.approx(expected.residuals[0] * scale, rel=1e-4)


@every
def test_columns_of_different_ranges(method):
    A, b = random_square(8, symmetric=True).detach(), right(8)
    expected = method(A, b).x
    x = method(A, torch.stack([b * 1e-200, b, b * 1e200], 1)).x
    for column, scale in zip(x.T, (1e-200, 1.0, 1e200)):
        assert scaled_alike(column, expected, scale, 1e-8)


@every
def test_options_are_scaled_with_it(method):
    A, b = random_square(8, symmetric=True).detach(), right(8) * 1e-200
    x, calls = method(A, b).x, []
    assert method(A, b, x0=x, rtol=1e-8).iterations == 0
    loose = method(A, b, rtol=0, atol=5e-200, callback=lambda *record: calls.append(record))
    assert loose.iterations < method(A, b).iterations
    assert [residual for _, residual in calls[:-1]] == loose.residuals[:-1]


@pytest.mark.parametrize("method", ["cg", "gmres", "direct"])
def test_gradients_of_any_size(method):
    """The adjoint of a solve has a small right-hand side where the loss is small."""
    A = random_square(8, symmetric=True).to(torch.float32).detach().requires_grad_()
    b = right(8).float().requires_grad_()
    x = solve(A, b, method)
    plain = torch.autograd.grad(x.sum(), (A.values, b), retain_graph=True)
    small = torch.autograd.grad(1e-25 * x.sum(), (A.values, b))
    for got, expected in zip(small, plain):
        assert scaled_alike(got.double(), expected.double(), 1e-25, 1e-4)


UNITS = [
    (torch.float64, 1e-200, 1e-8),
    (torch.float64, 1e200, 1e-8),
    (torch.complex128, 1e200, 1e-8),
    (torch.float32, 1e-20, 1e-3),
    (torch.float32, 1e20, 1e-3),
    (torch.float32, 1e-30, 1e-3),
]
in_units = pytest.mark.parametrize(("dtype", "scale", "rtol"), UNITS, ids=str)
INVARIANT = [method for method in SQUARE if method is not richardson]
PRECONDITIONERS = {
    "Jacobi": Jacobi,
    "blocks": lambda A: block_jacobi(A, 3),
    "FSAI": fsai,
    "IC(0)": ic0,
    "ILU(0)": ilu0,
    "SSOR": ssor,
    "polynomial": polynomial,
    "AMG": lambda A: amg(A, "smoothed_aggregation"),
}


@in_units
@pytest.mark.parametrize("method", INVARIANT, ids=lambda m: m.__name__)
def test_a_matrix_whose_squares_leave_the_range(method, dtype, scale, rtol):
    A, b = random_square(8, symmetric=True).detach().to(dtype), right(8).to(dtype)
    b = torch.stack([b, 0 * b, b.flip(0)], 1)
    expected, got = method(A, b), method(A * scale, b)
    assert got.converged
    assert got.iterations == pytest.approx(expected.iterations, abs=2)
    assert scaled_alike(got.x, expected.x, 1 / scale, rtol)
    assert method(A * scale, b, x0=got.x, rtol=2 * rtol).iterations == 0


@in_units
@pytest.mark.parametrize("build", PRECONDITIONERS.values(), ids=PRECONDITIONERS)
def test_so_do_preconditioners_of_it(build, dtype, scale, rtol):
    A = poisson(4, 3, dtype=torch.float64).to(dtype)
    b = right(12).to(dtype)
    for method in (cg, minres, gmres, bicgstab, chebyshev):
        expected = method(A, b, preconditioner=build(A))
        got = method(A * scale, b, preconditioner=build(A * scale))
        assert got.converged, (method, got)
        assert got.iterations == pytest.approx(expected.iterations, abs=2)
        assert scaled_alike(got.x, expected.x, 1 / scale, rtol)


def test_bounds_are_scaled_with_the_matrix():
    A, b, s = poisson(4, 3, dtype=torch.float64), right(12), 1e200
    expected, got = chebyshev(A, b, bounds=(0.5, 8)), chebyshev(A * s, b, bounds=(0.5 * s, 8 * s))
    assert got.converged
    assert scaled_alike(got.x, expected.x, 1 / s, 1e-8)
    low = chebyshev(A * s, b, bounds=(0.1 * s, 0.2 * s))
    assert "from 1e+199 to 2e+199" in low.message


@pytest.mark.parametrize("method", ITERATIVE)
def test_gradients_of_a_matrix_out_of_range(method):
    def gradient(A: CSRTensor) -> Tensor:
        A = A.detach().requires_grad_()
        return torch.autograd.grad(solve(A, right(12), method).sum(), A.values)[0]

    A = poisson(4, 3, dtype=torch.float64)
    assert scaled_alike(gradient(A * 1e-140), gradient(A), 1e280, 1e-7)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_least_squares_for_a_matrix_out_of_range(scale):
    A = CSRTensor.from_dense(torch.randn(9, 4, dtype=torch.float64))
    expected = lsqr(A, right(9)).x
    solution = lsqr(A * scale, right(9))
    assert solution.converged
    assert scaled_alike(solution.x, expected, 1 / scale, 1e-8)


@pytest.mark.parametrize("method", SQUARE, ids=lambda m: m.__name__)
def test_numbers_beyond_the_range_fail_or_are_right(method):
    A, b = random_square(8, symmetric=True).detach(), right(8)
    for matrix, scale in ((A * 1e300, 1e-300), (A * 1e-300, 1e300)):
        solution: Solution = method(matrix, b)
        if solution.converged:
            torch.testing.assert_close(solution.x / scale, method(A, b).x)


def test_a_solution_that_overflows_is_none():
    solution = cg(CSRTensor.eye(3, dtype=torch.float64) * 1e-200, right(3) * 1e200)
    assert solution.status is Status.DIVERGED
    assert "overflows" in solution.message
    assert math.isfinite(solution.residuals[0])
