"""Triangular solves and ILU(0) of complex matrices, and triangular solves in half precision."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from random_matrices import dense, random_complex, random_csr, random_square
from scipy.sparse.linalg import spilu, spsolve_triangular
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor
from sparsetorch.linalg import SolveError, cg, gmres, solve, solve_triangular
from sparsetorch.precond import ic0, ilu0, ssor
from sparsetorch_kernels import _native
from sparsetorch_kernels.incomplete import backend as incomplete
from sparsetorch_kernels.triangular import backend

FORMS = [
    (lower, unit, transpose)
    for lower in (True, False)
    for unit in (True, False)
    for transpose in (True, False)
]
every_form = pytest.mark.parametrize(("lower", "unit", "transpose"), FORMS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(params=["native", "reference"])
def implementation(request, monkeypatch):
    """Each implementation in turn."""
    if request.param == "reference":
        monkeypatch.setattr(backend, "_cpu_op", lambda: None)
        monkeypatch.setattr(incomplete, "_native", SimpleNamespace(ops=lambda: None))
    elif _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")


def dense_solve(D, b, lower=True, unit=False, transpose=False):
    T = D.tril() if lower else D.triu()
    if unit:
        T = T - torch.diag_embed(T.diagonal(dim1=-2, dim2=-1)) + torch.eye(T.shape[-1]).to(D)
    T = torch.linalg.inv(T.mT if transpose else T)
    return T @ b if b.ndim != 1 else (T @ b.unsqueeze(-1)).squeeze(-1)


@every_form
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_equals_the_dense_solve_and_its_gradients(implementation, lower, unit, transpose, dtype):
    A = random_complex(30, dtype=dtype)
    for shape in [(30,), (30, 1), (30, 2), (30, 37), (2, 30, 3), (30, 0)]:
        b = torch.randn(shape, dtype=dtype, requires_grad=True)
        for given in (b, b.conj()):
            got = solve_triangular(A, given, lower=lower, unit_diagonal=unit, transpose=transpose)
            want = dense_solve(dense(A), given, lower, unit, transpose)
            torch.testing.assert_close(got, want)
        weights = torch.randn_like(want)
        torch.testing.assert_close(
            torch.autograd.grad(got, (A.values, b), weights),
            torch.autograd.grad(want, (A.values, b), weights),
        )


@every_form
def test_derivatives_of_first_and_second_order(lower, unit, transpose):
    A = random_complex(5, seed=3)
    b = torch.randn(5, 2, dtype=A.dtype, requires_grad=True)

    def solve(values, b):
        return solve_triangular(
            A.with_values(values), b, lower=lower, unit_diagonal=unit, transpose=transpose
        )

    assert gradcheck(solve, (A.values, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(solve, (A.values, b), check_fwd_over_rev=True)


def test_equals_scipy_and_takes_strided_and_conjugated_operands():
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
    torch.testing.assert_close(x, torch.stack([solve_triangular(A, b), x[1]]))
    torch.testing.assert_close(2j * x[1], x[0])


def test_jvp_and_vmap_by_value():
    A, b = random_complex(6).detach(), torch.randn(6, dtype=torch.complex128)
    tangents = (torch.randn_like(A.values), torch.randn_like(b))

    def ours(values, b):
        return solve_triangular(A.with_values(values), b)

    def by_torch(values, b):
        return dense_solve(dense(A.with_values(values)), b)

    torch.testing.assert_close(
        torch.func.jvp(ours, (A.values, b), tangents),
        torch.func.jvp(by_torch, (A.values, b), tangents),
    )
    values = torch.stack([A.values, 1j * A.values])
    mapped = torch.vmap(ours, (0, None))(values, b)
    torch.testing.assert_close(mapped, torch.stack([ours(v, b) for v in values]))


def test_compiles_as_one_graph():
    torch.compiler.reset()
    A = random_complex(7)
    b = torch.randn(7, 2, dtype=A.dtype, requires_grad=True)

    def loss(A, b):
        return solve_triangular(A, b, lower=False).abs().sum()

    want = loss(A, b)
    got = torch.compile(loss, fullgraph=True, backend="aot_eager")(A, b)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(
        torch.autograd.grad(got, (A.values, b)), torch.autograd.grad(want, (A.values, b))
    )


def test_a_row_without_diagonal_is_named(implementation):
    D = torch.eye(5, dtype=torch.complex128) * 1j
    D[3, 3] = 0
    with pytest.raises(SolveError, match="row 3"):
        solve_triangular(CSRTensor.from_dense(D), torch.ones(5, dtype=D.dtype))


def test_large_and_small_pivots_do_not_overflow():
    d = torch.tensor([1e-300, 1e300j, 1e300 + 1e300j], dtype=torch.complex128)
    x = solve_triangular(CSRTensor.diag(d), d)
    torch.testing.assert_close(x, torch.ones_like(d))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_form
def test_half_precision_is_float32_rounded_once(lower, unit, transpose, dtype):
    A = random_square(20).detach().to(dtype).requires_grad_()
    wide = A.detach().to(torch.float32).requires_grad_()
    options = {"lower": lower, "unit_diagonal": unit, "transpose": transpose}
    for shape in [(20,), (20, 3)]:
        b = torch.randn(shape).to(dtype).requires_grad_()
        wide_b = b.detach().float().requires_grad_()
        x, wide_x = (solve_triangular(M, r, **options) for M, r in ((A, b), (wide, wide_b)))
        assert torch.equal(x, wide_x.to(dtype))
        weights = torch.randn(shape).to(dtype)
        got = torch.autograd.grad(x, (A.values, b), weights)
        want = torch.autograd.grad(wide_x, (wide.values, wide_b), weights.float())
        for g, w in zip(got, want):
            assert torch.equal(g, w.to(dtype))


def factors(A: CSRTensor) -> torch.Tensor:
    M = ilu0(A)
    return torch.cat([M.L.values, M.U.values])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_ilu0_reproduces_the_matrix_on_its_pattern(implementation, dtype):
    A = random_complex(30, dtype=dtype).detach()
    M = ilu0(A)
    row, col = A.pattern.row.long(), A.pattern.col.long()
    torch.testing.assert_close((dense(M.L) @ dense(M.U))[row, col], A.values)
    r = torch.randn(30, dtype=dtype)
    torch.testing.assert_close(M(r), torch.linalg.solve(dense(M.L) @ dense(M.U), r))
    torch.testing.assert_close(M.T(r), torch.linalg.solve((dense(M.L) @ dense(M.U)).T, r))


def test_ilu0_of_a_full_pattern_is_scipys_lu():
    A = CSRTensor.from_dense(torch.randn(8, 8, dtype=torch.complex128) + 9 * torch.eye(8))
    M = ilu0(A)
    lu = spilu(A.to_scipy().tocsc(), drop_tol=0, permc_spec="NATURAL", diag_pivot_thresh=0)
    np.testing.assert_allclose(dense(M.L).numpy(), lu.L.toarray(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dense(M.U).numpy(), lu.U.toarray(), rtol=1e-12, atol=1e-14)


def test_derivatives_of_ilu0():
    A = random_complex(6, seed=1)

    def function(values):
        return factors(A.with_values(values))

    assert gradcheck(function, A.values, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, A.values)
    tangent = torch.randn_like(A.values)
    step = 1e-6 * tangent
    difference = (function(A.values + step) - function(A.values - step)) / 2e-6
    got = torch.func.jvp(function, (A.values.detach(),), (tangent,))[1]
    torch.testing.assert_close(got, difference.detach(), rtol=1e-6, atol=1e-8)


def test_ilu0_and_ssor_precondition_forward_and_adjoint():
    A = random_complex(60).detach()
    A = A - 0.7 * CSRTensor.eye(60, dtype=A.dtype)
    b = torch.randn(60, dtype=A.dtype)
    assert gmres(A, b, preconditioner=ilu0(A)).iterations < gmres(A, b).iterations
    values = A.values.clone().requires_grad_()
    x = solve(A.with_values(values), b, "gmres", preconditioner=ilu0(A), rtol=1e-12)
    (got,) = torch.autograd.grad(x.abs().sum(), values)
    plain = solve(A.with_values(values), b)
    (want,) = torch.autograd.grad(plain.abs().sum(), values)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
    H = random_complex(60, "positive").detach()
    assert cg(H, b, preconditioner=ssor(H)).iterations < cg(H, b).iterations


def test_what_ilu0_and_ic0_refuse():
    A = random_complex(5, "positive").detach()
    with pytest.raises(TypeError, match=r"ic0 takes float32 or float64, .*complex128; try ilu0"):
        ic0(A)
    half = random_csr(4, 4, 1.0).to(torch.float16)
    with pytest.raises(TypeError, match=r"ilu0 takes .*float16; try A.to\(torch.float32\)"):
        ilu0(half)
    zero = CSRTensor.diag(torch.tensor([1j, 0, 1], dtype=torch.complex128))
    with pytest.raises(ValueError, match="row 1"):
        ilu0(zero)
    nan = CSRTensor.diag(torch.tensor([1j, 1, complex(0, float("nan"))]))
    with pytest.raises(ValueError, match="row 2"):
        ilu0(nan)
