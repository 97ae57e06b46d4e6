"""ILU(0), IC(0), SOR and SSOR: factors, derivatives of every kind, and what theory says of them."""

import math

import numpy as np
import pytest
import torch
from random_matrices import dense, random_complex, random_csr, random_square
from scipy import sparse as sp
from scipy.sparse.linalg import spilu
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, diags, eye, kron, poisson
from sparsetorch.linalg import bicgstab, cg, gmres, solve
from sparsetorch.precond import IC0, Jacobi, ic0, ilu0, sor, ssor
from sparsetorch.precond.elimination import Equations, _Factorize


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def factors_of(A: CSRTensor, kind: str, values: Tensor | None = None, **options) -> Tensor:
    """All entries of the factors, as a function of the values.

    For a complex IC(0) of (A + A^H) / 2: single entries that are perturbed would leave the domain.
    """
    A = A if values is None else A.with_values(values)
    if kind == "ic0":
        return ic0((A + A.H) / 2 if A.dtype.is_complex else A, **options).L.values
    M = ilu0(A)
    return torch.cat([M.L.values, M.U.values])


def dense_factors(A: CSRTensor, kind: str, values: Tensor) -> Tensor:
    """The same by differentiable loops over rows of a dense matrix."""
    n = A.shape[0]
    D, stored = dense(A.with_values(values)), dense(A.with_values(torch.ones_like(values))) != 0
    if kind == "ic0" and D.is_complex():
        D = (D + D.mH) / 2
    f: dict[tuple[int, int], Tensor] = {}
    for i in range(n):
        for j in range(n):
            if not stored[i, j] or (kind == "ic0" and j > i):
                continue
            rest = D[i, j]
            for k in range(j if kind == "ic0" else min(i, j)):
                other = (j, k) if kind == "ic0" else (k, j)
                if (i, k) in f and other in f:
                    rest = rest - f[i, k] * (f[other].conj() if kind == "ic0" else f[other])
            if j < i:
                rest = rest / f[j, j]
            elif kind == "ic0":
                rest = rest.sqrt()
            f[i, j] = rest
    if kind == "ic0":
        return torch.stack(list(f.values()))
    one = torch.ones((), dtype=D.dtype)
    lower = [one if i == j else entry for (i, j), entry in f.items() if j <= i]
    return torch.stack(lower + [entry for (i, j), entry in f.items() if j >= i])


def example(kind: str, n: int = 8, dtype: torch.dtype = torch.float64) -> CSRTensor:
    if dtype.is_complex:
        return random_complex(n, "positive" if kind == "ic0" else "general", seed=1, dtype=dtype)
    return random_square(n, seed=1, symmetric=kind == "ic0").detach().to(dtype).requires_grad_()


each_kind = pytest.mark.parametrize("kind", ["ilu0", "ic0"])
each_double = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)


@each_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64, torch.complex128], ids=str)
def test_factors_equal_those_of_the_dense_loop(kind, dtype):
    A = example(kind, 14, dtype)
    torch.testing.assert_close(factors_of(A, kind), dense_factors(A, kind, A.values))


@each_kind
@each_double
def test_derivatives_of_first_and_second_order(kind, dtype):
    A = example(kind, 8 if dtype == torch.float64 else 6, dtype)

    def function(values):
        return factors_of(A, kind, values)

    assert gradcheck(function, A.values, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, A.values, check_fwd_over_rev=True)


@each_kind
@each_double
def test_forward_mode_hessian_and_vmap_by_value(kind, dtype):
    A = example(kind, 6, dtype).detach()

    def energy(factors):
        return (factors * factors.conj()).real.pow(1.5).sum()

    def sparse_energy(values):
        return energy(factors_of(A, kind, values))

    def dense_energy(values):
        return energy(dense_factors(A, kind, values))

    tangent = torch.randn_like(A.values)
    torch.testing.assert_close(
        torch.func.jvp(sparse_energy, (A.values,), (tangent,)),
        torch.func.jvp(dense_energy, (A.values,), (tangent,)),
    )
    along, forward_over_reverse = (
        torch.func.jvp(torch.func.grad(f), (A.values,), (tangent,))[1]
        for f in (dense_energy, sparse_energy)
    )
    assert along.abs().max() > 0
    torch.testing.assert_close(forward_over_reverse, along)
    many = torch.stack([A.values, 2 * A.values, 3 * A.values], 1)
    mapped = torch.vmap(torch.func.grad(sparse_energy), 1)(many)
    for i in range(3):
        torch.testing.assert_close(mapped[i], torch.func.grad(sparse_energy)(many[:, i]))


@each_kind
def test_hessian_by_value(kind):
    A = example(kind, 6).detach()
    got, want = (
        torch.func.hessian(lambda v, f=f: f(A, kind, v).pow(3).sum())(A.values)
        for f in (factors_of, dense_factors)
    )
    assert got.abs().max() > 0
    torch.testing.assert_close(got, want)


@each_kind
@each_double
def test_applying_is_differentiable_too(kind, dtype):
    A, r = example(kind, 8, dtype), torch.randn(2, 8, dtype=dtype, requires_grad=True)
    build = ic0 if kind == "ic0" else ilu0

    def apply(values, r):
        M = A.with_values(values)
        return build((M + M.H) / 2 if kind == "ic0" else M)(r)

    assert gradcheck(apply, (A.values, r), check_forward_ad=True, fast_mode=dtype.is_complex)
    assert gradgradcheck(apply, (A.values, r), fast_mode=True)
    M = build(A)
    U = M.L.H if isinstance(M, IC0) else M.U
    inverse = torch.linalg.inv(dense(M.L) @ dense(U))
    torch.testing.assert_close(M(r), r @ inverse.T)
    torch.testing.assert_close(M.T(r), r @ inverse)


@each_kind
@each_double
def test_the_reference_serves_where_the_library_does_not(kind, dtype, monkeypatch):
    A = example(kind, 30, dtype)
    native = factors_of(A, kind)
    monkeypatch.setattr("sparsetorch_kernels._native.ops", lambda: None)
    torch.testing.assert_close(factors_of(A, kind), native)


@each_kind
@each_double
def test_what_depends_on_the_pattern_is_found_once(kind, dtype, monkeypatch):
    A = example(kind, 8, dtype)
    torch.autograd.grad(factors_of(A, kind).abs().sum(), A.values)

    def refused(*_, **__):
        raise AssertionError("searched again")

    for search in ("_products_of_lu", "_products_of_cholesky", "_derivative"):
        monkeypatch.setattr(f"sparsetorch.precond.elimination.{search}", refused)
    torch.autograd.grad(factors_of(A, kind, 2 * A.values).abs().sum(), A.values)


def test_the_derivative_of_the_equations_is_the_jacobian():
    """M of the module's docstring, as a dense matrix, is the derivative of (L U) on the pattern."""
    A = example("ilu0", 7).detach()
    equations = Equations(A.pattern, symmetric=False)
    row, col = A.pattern.row.long(), A.pattern.col.long()

    def product(factors):
        F = dense(A.with_values(factors))
        return ((F.tril(-1) + torch.eye(7).double()) @ F.triu())[row, col]

    factors = _Factorize.apply(A.values, equations)
    torch.testing.assert_close(product(factors), A.values)
    pattern, source = equations.system
    M = CSRTensor(pattern, torch.cat([factors, factors.new_ones(1)])[source])
    torch.testing.assert_close(dense(M), torch.func.jacrev(product)(factors))
    assert bool((dense(M).triu(1) == 0).all())


def test_complete_factorizations_of_a_full_pattern():
    """Where every entry is stored, ILU(0) is LU and IC(0) is Cholesky."""
    D = torch.randn(8, 8, dtype=torch.complex128) + 9 * torch.eye(8)
    M = ilu0(CSRTensor.from_dense(D))
    lu = spilu(sp.csc_array(D.numpy()), drop_tol=0, permc_spec="NATURAL", diag_pivot_thresh=0)
    np.testing.assert_allclose(dense(M.L).numpy(), lu.L.toarray(), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(dense(M.U).numpy(), lu.U.toarray(), rtol=1e-12, atol=1e-14)
    L = ic0(CSRTensor.from_dense(D @ D.mH)).L
    torch.testing.assert_close(dense(L), torch.linalg.cholesky(D @ D.mH))
    assert bool((L.diagonal().imag == 0).all())


def test_ilu0_is_scipys_without_fill():
    """Where nothing fills in, on a tridiagonal matrix, it is the whole factorization."""
    A = diags([-1.0, 2.5, -0.7], [-1, 0, 1], (60, 60), torch.float64)
    lu = spilu(A.to_scipy().tocsc(), drop_tol=0, permc_spec="NATURAL", diag_pivot_thresh=0)
    M = ilu0(A)
    np.testing.assert_allclose(M.L.to_scipy().toarray(), lu.L.toarray(), atol=1e-14)
    np.testing.assert_allclose(M.U.to_scipy().toarray(), lu.U.toarray(), atol=1e-14)
    r = torch.randn(60).double()
    torch.testing.assert_close(M(r), torch.from_numpy(lu.solve(r.numpy())))
    assert gmres(A, r, preconditioner=M).iterations == 1


@each_double
def test_ic0_of_a_hermitian_matrix_is_ilu0_scaled(dtype):
    A = poisson(9, 11, dtype=dtype)
    if dtype.is_complex:
        A = A.with_values(A.values * torch.exp(0.3j * (A.pattern.row - A.pattern.col).double()))
    M, C = ilu0(A), ic0(A)
    pivots = M.U.diagonal()
    torch.testing.assert_close(C.L.to_dense(), M.L.scale_cols(pivots.sqrt()).to_dense())
    r = torch.randn(3, 99, dtype=dtype)
    torch.testing.assert_close(C(r), M(r))


def test_pivots_of_a_grid_satisfy_the_recurrence_of_dupont_kendall_and_rachford():
    """On a 5-point grid d_ij = 4 - 1 / d_(i-1)j - 1 / d_i(j-1), which tends to 2 + sqrt(2)."""
    n = 30
    pivots = ilu0(poisson(n, n, dtype=torch.float64)).U.diagonal().view(n, n)
    want = torch.zeros(n, n).double()
    for i in range(n):
        for j in range(n):
            above = 1 / want[i - 1, j] if i else 0
            left = 1 / want[i, j - 1] if j else 0
            want[i, j] = 4 - above - left
    torch.testing.assert_close(pivots, want)
    assert abs(float(pivots[-1, -1]) - (2 + math.sqrt(2))) < 1e-3


def test_ssor_with_a_good_omega_takes_the_square_root_of_the_iterations():
    """Axelsson 1972: twice the grid costs CG twice the iterations, with SSOR sqrt(2) times."""

    def iterations(n, build):
        A = poisson(n, n, dtype=torch.float64)
        return cg(A, torch.ones(n * n).double(), preconditioner=build(A, n)).iterations

    def good(A, n):
        return ssor(A, 2 / (1 + math.pi / n))

    for build, low, high in [(good, 1.3, 1.55), (lambda A, n: Jacobi(A), 1.85, 2.15)]:
        ratio = iterations(60, build) / iterations(30, build)
        assert low < ratio < high, ratio


@pytest.mark.parametrize("omega", [0.5, 1.0, 1.7])
def test_sor_and_ssor_are_saads_matrices(omega):
    A = random_square(9)
    D = dense(A)
    diagonal = torch.diag(D.diagonal())
    lower, upper = diagonal + omega * D.tril(-1), diagonal + omega * D.triu(1)
    eye_n = torch.eye(9).double()
    for M, inverse in [
        (sor(A, omega), lower / omega),
        (ssor(A, omega), lower @ torch.linalg.inv(diagonal) @ upper / (omega * (2 - omega))),
    ]:
        torch.testing.assert_close(M(eye_n).T, torch.linalg.inv(inverse))
        torch.testing.assert_close(M.T(eye_n), torch.linalg.inv(inverse))
        torch.testing.assert_close(M.T.T(eye_n[0]), M(eye_n[0]))
    r = torch.randn(9, dtype=torch.float64, requires_grad=True)
    for build in (sor, ssor):
        assert gradcheck(lambda v, r, b=build: b(A.with_values(v), omega)(r), (A.values, r))


def test_sor_without_coupling_upwards_is_a_solve():
    A = poisson(6, 6, dtype=torch.float64).tril()
    r = torch.randn(36).double()
    torch.testing.assert_close(A @ sor(A)(r), r)


def test_serve_solves_of_matrices_that_are_not_symmetric():
    line = diags([-1.4, 2.0, -0.6], [-1, 0, 1], (20, 20), torch.float64)
    here = eye(20, dtype=torch.float64)
    A, b = kron(line, here) + kron(here, line), torch.ones(400).double()
    plain = gmres(A, b).iterations
    for build in (ilu0, sor, ssor):
        M = build(A)
        assert gmres(A, b, preconditioner=M).iterations < 0.75 * plain
        assert bicgstab(A, b, preconditioner=M).converged
        values = A.values.clone().requires_grad_()
        x = solve(A.with_values(values), b, "gmres", preconditioner=M, rtol=1e-12)
        exact = solve(A.with_values(values), b)
        torch.testing.assert_close(
            torch.autograd.grad(x.sum(), values), torch.autograd.grad(exact.sum(), values)
        )


@each_double
def test_a_shift_saves_a_factorization_that_breaks_down(dtype):
    """Kershaw's matrix (1978): positive definite, but IC(0) meets a negative pivot."""
    D = torch.tensor([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]]).to(dtype)
    if dtype.is_complex:
        phases = torch.exp(1j * torch.arange(4).double())
        D = phases[:, None] * D * phases.conj()
    A = CSRTensor.from_dense(D)
    assert torch.linalg.eigvalsh(D).min() > 0
    with pytest.raises(ValueError, match=r"not positive in row 3: .*; try ic0\(A, shift=0.01\)"):
        ic0(A)
    with pytest.raises(ValueError, match=r"try ic0\(A, shift=0.2\)"):
        ic0(A, shift=0.1)
    b = torch.ones(4, dtype=dtype)
    shifted = ic0(A, shift=0.9)
    by_hand = ic0(A.with_diagonal(1.9 * A.diagonal()))
    torch.testing.assert_close(shifted.L.to_dense(), by_hand.L.to_dense())
    assert cg(A, b, preconditioner=shifted).converged
    A.requires_grad_()
    assert gradcheck(lambda v: factors_of(A, "ic0", v, shift=0.9), A.values, fast_mode=True)
    with pytest.raises(ValueError, match="shift: expected a number of at least 0, got -1"):
        ic0(A, shift=-1)


@each_double
def test_ic0_reads_the_lower_triangle_only(dtype):
    A = poisson(5, 5, dtype=dtype)
    above = A.pattern.col > A.pattern.row
    poisoned = A.with_values(torch.where(above, float("nan"), A.values).requires_grad_())
    L = ic0(poisoned).L
    torch.testing.assert_close(L.to_dense(), ic0(A).L.to_dense())
    (gradient,) = torch.autograd.grad(L.values.abs().sum(), poisoned.values)
    assert bool((gradient[above] == 0).all())
    assert bool((gradient[~above] != 0).any())


@pytest.mark.parametrize("n", [0, 1])
@each_double
def test_tiny_matrices(n, dtype):
    A = CSRTensor.diag(torch.full((n,), 4.0, dtype=dtype)).requires_grad_()
    for build in (ilu0, ic0, sor, ssor):
        z = build(A)(torch.ones(n, dtype=dtype))
        torch.testing.assert_close(z, torch.full((n,), 0.25, dtype=dtype))
        (gradient,) = torch.autograd.grad(z.real.sum(), A.values)
        torch.testing.assert_close(gradient, torch.full((n,), -1 / 16, dtype=dtype))


def test_bad_matrices_are_named():
    hole = CSRTensor.from_dense(torch.tensor([[1.0, 2, 0], [2, 0, 1], [0, 1, 0]]))
    for build in (ilu0, ic0):
        with pytest.raises(ValueError, match="not stored in 2 rows, the first of them row 1"):
            build(hole)
        with pytest.raises(ValueError, match=r"got shape \(3, 4\)"):
            build(random_csr(3, 4))
        with pytest.raises(TypeError, match=r"takes .*float16; try A.to\(torch.float32\)"):
            build(CSRTensor.diag(torch.ones(3).half()))
    for number in (0, complex(0, math.nan)):
        with pytest.raises(ValueError, match=r"ilu0 meets a zero \(or NaN\) pivot in row 1"):
            ilu0(CSRTensor.diag(torch.tensor([1j, number, 1], dtype=torch.complex128)))
    singular = CSRTensor.from_dense(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"ilu0 meets a zero \(or NaN\) pivot in row 1; reorder"):
        ilu0(singular)
    for build in (sor, ssor):
        with pytest.raises(ValueError, match=r"diagonal, which is zero in 2 rows, .* row 1"):
            build(hole)
        for omega in (0, 2, float("nan")):
            with pytest.raises(ValueError, match="omega: expected 0 < omega < 2"):
                build(singular, omega)


def test_ic0_of_a_matrix_that_is_not_hermitian():
    rounding = CSRTensor.diag(torch.tensor([2 + 1e-12j, 1]).to(torch.complex128))
    assert not bool(ic0(rounding).L.values.imag.any())
    with pytest.raises(
        ValueError, match=r"Hermitian matrix, .* in 1 rows, the first .* row 1; ilu0"
    ):
        ic0(CSRTensor.diag(torch.tensor([2, 1 + 1e-3j, 3]).to(torch.complex128)))
    for last in (0, -1, math.nan):
        with pytest.raises(
            ValueError, match=r"not positive in row 1: .*; try ic0\(A, shift=0.01\)"
        ):
            ic0(CSRTensor.diag(torch.tensor([1, last, 1]).to(torch.complex128)))


def test_phases_only_raise_the_pivots():
    """Varga, Saff and Mehrmann 1980: H-matrices factorize, with pivots above their M-matrices'."""
    grid = poisson(9, 9, dtype=torch.complex128)
    A = -1 * (grid @ grid).map(torch.ones_like)  # with triangles, around which phases count
    A = A.with_diagonal(-A.sum(-1))  # its rows add up to 1
    row, col = A.pattern.row.long(), A.pattern.col.long()
    phases = torch.exp(1j * torch.sin((row * col).double()) * (row - col).sign())
    turned = A.with_values(A.values * phases)
    torch.testing.assert_close(turned.to_dense(), turned.to_dense().mH)
    pivots, without = (ic0(M).L.diagonal().real.square() for M in (turned, A))
    assert bool((pivots >= without - 1e-13).all())
    assert (pivots - without).max() > 0.01
