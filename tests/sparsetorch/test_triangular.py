"""Triangular solves with CSRTensors; more of them are in the table of `operations`."""

import gc
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from random_matrices import dense, random_complex, random_csr, random_square
from scipy.sparse.linalg import spsolve_triangular
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, Pattern, poisson
from sparsetorch.linalg import SolveError, Status, solve_triangular
from sparsetorch.triangles import triangle, triangle_levels
from sparsetorch_kernels import SingularTriangleError, _native
from sparsetorch_kernels.triangular import backend

FORMS = [
    (lower, unit, transpose)
    for lower in (True, False)
    for unit in (True, False)
    for transpose in (True, False)
]
every_form = pytest.mark.parametrize(("lower", "unit", "transpose"), FORMS)


each_double = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch):
    """Each implementation in turn."""
    if request.param == "reference":
        monkeypatch.setattr(backend, "_cpu_op", lambda: None)
    elif _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")


def square(n: int, dtype: torch.dtype, seed: int = 0) -> CSRTensor:
    if dtype.is_complex:
        return random_complex(n, seed=seed, dtype=dtype)
    return random_square(n, seed).detach().to(dtype).requires_grad_()


def dense_solve(D, b, lower=True, unit=False, transpose=False):
    T = D.tril() if lower else D.triu()
    if unit:
        T = T - torch.diag_embed(T.diagonal(dim1=-2, dim2=-1)) + torch.eye(T.shape[-1]).to(D)
    T = torch.linalg.inv(T.mT if transpose else T)
    return T @ b if b.ndim != 1 else (T @ b.unsqueeze(-1)).squeeze(-1)


@every_form
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128], ids=str)
def test_equals_the_dense_solve_and_its_gradients(implementation, lower, unit, transpose, dtype):
    A = square(30, dtype)
    for shape in [(30,), (30, 1), (30, 2), (30, 37), (2, 30, 3), (30, 0)]:
        b = torch.randn(shape, dtype=dtype, requires_grad=True)
        for given in (b, b.conj()) if dtype.is_complex else (b,):
            got = solve_triangular(A, given, lower=lower, unit_diagonal=unit, transpose=transpose)
            want = dense_solve(dense(A), given, lower, unit, transpose)
            torch.testing.assert_close(got, want)
        weights = torch.randn_like(want)
        torch.testing.assert_close(
            torch.autograd.grad(got, (A.values, b), weights),
            torch.autograd.grad(want, (A.values, b), weights),
        )


@every_form
@each_double
def test_derivatives_of_first_and_second_order(lower, unit, transpose, dtype):
    A = square(5, dtype, seed=3)
    b = torch.randn(5, 2, dtype=dtype, requires_grad=True)

    def solve(values, b):
        return solve_triangular(
            A.with_values(values), b, lower=lower, unit_diagonal=unit, transpose=transpose
        )

    assert gradcheck(solve, (A.values, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(solve, (A.values, b), check_fwd_over_rev=True)


def test_batches_broadcast_as_in_matmul():
    A = random_csr(6, 6, 0.5, batch=(3,)).with_diagonal(torch.linspace(1, 2, 6).double())
    assert A.shape == (3, 6, 6)
    for shape, result in [((6,), (3, 6)), ((6, 2), (3, 6, 2)), ((3, 6, 2), (3, 6, 2))]:
        b = torch.randn(shape).double()
        x = solve_triangular(A, b)
        assert x.shape == result
        torch.testing.assert_close(x, dense_solve(dense(A), b))
    b = torch.randn(4, 1, 6, 2).double()
    torch.testing.assert_close(solve_triangular(A, b), dense_solve(dense(A), b))


@each_double
def test_vmap_over_values_and_right_hand_sides(dtype):
    A = square(6, dtype)
    other = 1j * A.values if dtype.is_complex else 2 * A.values
    values, b = torch.stack([A.values, other]).detach(), torch.randn(6, 2, dtype=dtype)
    mapped = torch.vmap(lambda v, b: solve_triangular(A.with_values(v), b), (0, 1))(values, b)
    for i in range(2):
        want = solve_triangular(A.with_values(values[i]), b[:, i])
        torch.testing.assert_close(mapped[i], want)


def test_vmap_over_gradients():
    A, b = random_square(6), torch.randn(6, 2).double()
    values = torch.stack([A.values, 2 * A.values]).detach()
    per_matrix = torch.vmap(
        torch.func.grad(lambda v: solve_triangular(A.with_values(v), b[:, 0]).sin().sum())
    )(values)
    D = A.to_dense().detach()
    for i in range(2):
        whole = torch.func.grad(lambda D: dense_solve(D, b[:, 0]).sin().sum())((i + 1) * D)
        torch.testing.assert_close(per_matrix[i], A.from_dense(whole, A.pattern).values)


@each_double
def test_forward_mode_by_value(dtype):
    A, b = square(6, dtype).detach(), torch.randn(6, dtype=dtype)
    tangents = (torch.randn_like(A.values), torch.randn_like(b))
    torch.testing.assert_close(
        torch.func.jvp(lambda v, b: solve_triangular(A.with_values(v), b), (A.values, b), tangents),
        torch.func.jvp(
            lambda v, b: dense_solve(dense(A.with_values(v)), b), (A.values, b), tangents
        ),
    )


def test_hessian_by_value():
    A, b = random_square(6).detach(), torch.randn(6).double()

    def sparse_energy(values):
        return (solve_triangular(A.with_values(values), b, lower=False) ** 3).sum()

    def dense_energy(values):
        return (dense_solve(dense(A.with_values(values)), b, lower=False) ** 3).sum()

    hessian = torch.func.hessian(sparse_energy)(A.values)
    assert hessian.abs().max() > 0
    torch.testing.assert_close(hessian, torch.func.hessian(dense_energy)(A.values))


@pytest.mark.parametrize(
    "options", [{}, {"unit_diagonal": True, "transpose": True}, {"lower": False}]
)
@each_double
def test_compiles_as_one_graph(options, dtype):
    torch.compiler.reset()
    A, b = square(7, dtype), torch.randn(7, 2, dtype=dtype, requires_grad=True)

    def loss(A, b):
        return solve_triangular(A, b, **options).abs().sin().sum()

    want = loss(A, b)  # also finds the structure that compiled code reads
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(A, b)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, (A.values, b)), torch.autograd.grad(want, (A.values, b))
    )


def test_the_other_triangle_is_never_looked_at():
    A = random_square(8)
    row, col = A.pattern.row, A.pattern.col
    b = torch.randn(8).double()
    for lower in (True, False):
        other = row < col if lower else row > col
        poisoned = A.with_values(torch.where(other, float("nan"), A.values).detach())
        poisoned.requires_grad_()
        x = solve_triangular(poisoned, b, lower=lower)
        torch.testing.assert_close(x, solve_triangular(A, b, lower=lower))
        (gradient,) = torch.autograd.grad(x.sum(), poisoned.values)
        assert bool((gradient[other] == 0).all())
        unit = solve_triangular(poisoned, b, lower=lower, unit_diagonal=True)
        (gradient,) = torch.autograd.grad(unit.sum(), poisoned.values)
        assert bool((gradient[other | (row == col)] == 0).all())
        assert bool(gradient.isfinite().all())


def test_equals_scipy_on_a_grid():
    A = poisson(30, 31, dtype=torch.float64)
    b = np.random.default_rng(0).standard_normal((930, 3))
    for lower in (True, False):
        part = A.tril() if lower else A.triu()
        want = spsolve_triangular(part.to_scipy(), b, lower=lower)
        got = solve_triangular(A, torch.from_numpy(b), lower=lower)
        torch.testing.assert_close(got, torch.from_numpy(want))


def test_complex_matrices_equal_scipy_and_take_strided_and_conjugated_operands():
    A = random_complex(50).detach()
    b = torch.randn(50, 3, dtype=A.dtype)
    want = spsolve_triangular(A.tril().to_scipy(), b.numpy())
    np.testing.assert_allclose(solve_triangular(A, b).numpy(), want, rtol=1e-10)
    strided = b.mT.contiguous().mT
    torch.testing.assert_close(solve_triangular(A, strided), solve_triangular(A, b))
    turned = solve_triangular(A.conj(), b.conj())
    torch.testing.assert_close(turned, solve_triangular(A, b).conj())
    batch = A.with_values(torch.stack([A.values, 2j * A.values]))
    x = solve_triangular(batch, b)
    torch.testing.assert_close(x[0], solve_triangular(A, b))
    torch.testing.assert_close(2j * x[1], x[0])


def test_large_and_small_complex_pivots_do_not_overflow():
    d = torch.tensor([1e-300, 1e300j, 1e300 + 1e300j], dtype=torch.complex128)
    x = solve_triangular(CSRTensor.diag(d), d)
    torch.testing.assert_close(x, torch.ones_like(d))


def test_the_level_sets_of_a_grid_are_its_diagonals():
    """Unknown (i, j) of an n x n grid waits for (i - 1, j) and (i, j - 1)."""
    n = 12
    part = triangle(poisson(n, n, dtype=torch.float64).pattern, lower=True).pattern
    levels = triangle_levels(part, lower=True)
    assert levels.n_rows == 2 * n - 1
    along = torch.arange(n)
    assert torch.equal(levels.transposed[1].view(n, n).long(), along[:, None] + along)


def test_structure_is_found_once():
    A = random_square(6)
    solve_triangular(A, torch.ones(6).double())
    first = triangle(A.pattern, lower=True)
    solve_triangular(A.with_values(2 * A.values), torch.ones(6).double(), transpose=True)
    again = triangle(A.pattern, lower=True)
    assert first.pattern is again.pattern
    assert triangle_levels(first.pattern, lower=True) is triangle_levels(again.pattern, lower=True)
    whole = triangle(first.pattern, lower=True)
    assert whole.pattern is first.pattern  # a triangle is its own, and its values are not copied
    assert whole.positions is None
    assert whole.of(A.values) is A.values


def test_patterns_with_triangles_do_not_live_for_ever():
    A = random_square(6).detach().tril()
    solve_triangular(A, torch.ones(6).double())
    gc.collect()
    gc.disable()
    try:
        pattern = weakref.ref(A.pattern)
        del A
        assert pattern() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("n", [0, 1])
def test_tiny_matrices(n):
    A = CSRTensor.diag(torch.full((n,), 4.0).double())
    assert torch.equal(solve_triangular(A, torch.ones(n).double()), torch.full((n,), 0.25).double())
    assert solve_triangular(A, torch.ones(n, 0).double()).shape == (n, 0)
    empty = CSRTensor(
        Pattern(torch.zeros(n + 1).long(), torch.zeros(0).long(), (n, n)), torch.ones(0)
    )
    b = torch.rand(n, 2)
    torch.testing.assert_close(solve_triangular(empty, b, unit_diagonal=True), b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128], ids=str)
def test_a_row_without_diagonal_is_named(implementation, dtype):
    D = torch.eye(5, dtype=dtype) + torch.ones(5, 5, dtype=dtype).tril()
    D[3, 3] = 0  # not stored
    A, b = CSRTensor.from_dense(D), torch.ones(5, dtype=dtype)
    with pytest.raises(SolveError, match="the diagonal entry of row 3 is zero or not") as caught:
        solve_triangular(A, b)
    solution = pickle.loads(pickle.dumps(caught.value)).solution
    assert solution.status is Status.SINGULAR
    assert solution.x.shape == (5,)
    assert bool(solution.x.isnan().all())
    zero = A.with_diagonal(torch.tensor([1.0, 2.0, 0.0, 0.0, 1.0]).to(dtype))
    each: list[dict[str, Any]] = [{}, {"transpose": True}, {"lower": False}]
    for options in each:
        with pytest.raises(SolveError, match="row 2"):
            solve_triangular(zero, b, **options)
    torch.testing.assert_close(
        solve_triangular(A, b, unit_diagonal=True), dense_solve(D, b, unit=True)
    )
    assert SingularTriangleError(2).row == pickle.loads(pickle.dumps(SingularTriangleError(2))).row


def test_bad_arguments_are_named():
    A, b = random_square(4), torch.ones(4).double()
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got Tensor"):
        solve_triangular(torch.eye(4), b)  # pyright: ignore
    with pytest.raises(ValueError, match=r"A: expected square matrices, got shape \(3, 4\)"):
        solve_triangular(random_csr(3, 4), b)
    with pytest.raises(ValueError, match="b: expected size 4 in dimension -1"):
        solve_triangular(A, b[:3])
    with pytest.raises(ValueError, match="b: expected size 4 in dimension -2"):
        solve_triangular(A, torch.ones(2, 3).double())
    with pytest.raises(TypeError, match=r"b: the matrix is torch.float64"):
        solve_triangular(A, b.float())
    with pytest.raises(TypeError, match="b: expected a tensor, got list"):
        solve_triangular(A, [1.0])  # pyright: ignore
    small = torch.float8_e4m3fn
    with pytest.raises(TypeError, match=r"values: expected float16, .* got torch.float8_e4m3fn"):
        solve_triangular(A.to(small), b.to(small))
    with pytest.raises(ValueError, match="do not broadcast"):
        solve_triangular(A.with_values(torch.ones(2, A.nnz).double()), torch.ones(3, 4, 1).double())
