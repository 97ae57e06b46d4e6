"""ILU(0), IC(0), SOR and SSOR: factors, derivatives of every kind, and what theory says of them."""

import math

import numpy as np
import pytest
import torch
from random_matrices import dense, random_csr, random_square
from scipy.sparse.linalg import spilu
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, diags, eye, kron, poisson
from sparsetorch.linalg import bicgstab, cg, gmres, solve
from sparsetorch.precond import IC0, Jacobi, ic0, ilu0, sor, ssor
from sparsetorch.precond.elimination import Equations, _Factorize
from sparsetorch.triangles import triangle


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def factors_of(A: CSRTensor, kind: str, values: Tensor | None = None, **options) -> Tensor:
    """All entries of the factors, as a function of the values."""
    A = A if values is None else A.with_values(values)
    if kind == "ic0":
        return ic0(A, **options).L.values
    M = ilu0(A)
    return torch.cat([M.L.values, M.U.values])


def dense_factors(A: CSRTensor, kind: str, values: Tensor) -> Tensor:
    """The same by differentiable loops over rows of a dense matrix."""
    n = A.shape[0]
    D, stored = dense(A.with_values(values)), dense(A.with_values(torch.ones_like(values))) != 0
    f: dict[tuple[int, int], Tensor] = {}
    for i in range(n):
        for j in range(n):
            if not stored[i, j] or (kind == "ic0" and j > i):
                continue
            rest = D[i, j]
            for k in range(j if kind == "ic0" else min(i, j)):
                other = (j, k) if kind == "ic0" else (k, j)
                if (i, k) in f and other in f:
                    rest = rest - f[i, k] * f[other]
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


def example(kind: str, n: int = 8) -> CSRTensor:
    return random_square(n, seed=1, symmetric=kind == "ic0")


each_kind = pytest.mark.parametrize("kind", ["ilu0", "ic0"])


@each_kind
def test_factors_equal_those_of_the_dense_loop(kind):
    A = example(kind, 14)
    torch.testing.assert_close(factors_of(A, kind), dense_factors(A, kind, A.values))


@each_kind
def test_derivatives_of_first_and_second_order(kind):
    A = example(kind)

    def function(values):
        return factors_of(A, kind, values)

    assert gradcheck(function, A.values, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(function, A.values, check_fwd_over_rev=True)


@each_kind
def test_forward_mode_hessian_and_vmap_by_value(kind):
    A = example(kind, 6).detach()
    tangent = torch.randn_like(A.values)

    def sparse_energy(values):
        return factors_of(A, kind, values).pow(3).sum()

    def dense_energy(values):
        return dense_factors(A, kind, values).pow(3).sum()

    torch.testing.assert_close(
        torch.func.jvp(sparse_energy, (A.values,), (tangent,)),
        torch.func.jvp(dense_energy, (A.values,), (tangent,)),
    )
    hessian = torch.func.hessian(sparse_energy)(A.values)
    assert hessian.abs().max() > 0
    torch.testing.assert_close(hessian, torch.func.hessian(dense_energy)(A.values))
    many = torch.stack([A.values, 2 * A.values, 3 * A.values], 1)
    mapped = torch.vmap(torch.func.grad(sparse_energy), 1)(many)
    for i in range(3):
        torch.testing.assert_close(mapped[i], torch.func.grad(sparse_energy)(many[:, i]))


@each_kind
def test_applying_is_differentiable_too(kind):
    A, r = example(kind), torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    build = ic0 if kind == "ic0" else ilu0

    def apply(values, r):
        return build(A.with_values(values))(r)

    assert gradcheck(apply, (A.values, r), check_forward_ad=True)
    assert gradgradcheck(apply, (A.values, r), fast_mode=True)
    M = build(A)
    U = M.L.T if isinstance(M, IC0) else M.U
    inverse = torch.linalg.inv(dense(M.L) @ dense(U))
    torch.testing.assert_close(M(r), r @ inverse.T)
    torch.testing.assert_close(M.T(r), r @ inverse)


@each_kind
def test_the_reference_serves_where_the_library_does_not(kind, monkeypatch):
    A = example(kind, 30)
    native = factors_of(A, kind)
    monkeypatch.setattr("sparsetorch_kernels._native.ops", lambda: None)
    torch.testing.assert_close(factors_of(A, kind), native)


@each_kind
def test_what_depends_on_the_pattern_is_found_once(kind):
    A = example(kind)
    pattern = triangle(A.pattern, lower=True).pattern if kind == "ic0" else A.pattern
    torch.autograd.grad(factors_of(A, kind).sum(), A.values)
    first = Equations(pattern, kind == "ic0")
    torch.autograd.grad(factors_of(A, kind, 2 * A.values).sum(), A.values)
    again = Equations(pattern, kind == "ic0")
    assert first.products is again.products
    assert first.system is again.system


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


def test_ic0_of_a_symmetric_matrix_is_ilu0_scaled():
    A = poisson(9, 11, dtype=torch.float64)
    M, C = ilu0(A), ic0(A)
    pivots = M.U.diagonal()
    torch.testing.assert_close(C.L.to_dense(), M.L.scale_cols(pivots.sqrt()).to_dense())
    r = torch.randn(3, 99).double()
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


def test_a_shift_saves_a_factorization_that_breaks_down():
    """Kershaw's matrix (1978): positive definite, but IC(0) meets a negative pivot."""
    D = torch.tensor([[3.0, -2, 0, 2], [-2, 3, -2, 0], [0, -2, 3, -2], [2, 0, -2, 3]]).double()
    A = CSRTensor.from_dense(D)
    assert torch.linalg.eigvalsh(D).min() > 0
    with pytest.raises(ValueError, match=r"not positive in row 3: .*; try ic0\(A, shift=0.01\)"):
        ic0(A)
    with pytest.raises(ValueError, match=r"try ic0\(A, shift=0.2\)"):
        ic0(A, shift=0.1)
    b = torch.ones(4).double()
    shifted = ic0(A, shift=0.9)
    by_hand = ic0(A.with_diagonal(1.9 * A.diagonal()))
    torch.testing.assert_close(shifted.L.to_dense(), by_hand.L.to_dense())
    assert cg(A, b, preconditioner=shifted).converged
    A.requires_grad_()
    assert gradcheck(lambda v: factors_of(A, "ic0", v, shift=0.9), A.values)
    with pytest.raises(ValueError, match="shift: expected a number of at least 0, got -1"):
        ic0(A, shift=-1)


def test_ic0_reads_the_lower_triangle_only():
    A = poisson(5, 5, dtype=torch.float64)
    above = A.pattern.col > A.pattern.row
    poisoned = A.with_values(torch.where(above, float("nan"), A.values).requires_grad_())
    L = ic0(poisoned).L
    torch.testing.assert_close(L.to_dense(), ic0(A).L.to_dense())
    (gradient,) = torch.autograd.grad(L.values.sum(), poisoned.values)
    assert bool((gradient[above] == 0).all())
    assert bool((gradient[~above] != 0).any())


@pytest.mark.parametrize("n", [0, 1])
def test_tiny_matrices(n):
    A = CSRTensor.diag(torch.full((n,), 4.0).double()).requires_grad_()
    for build in (ilu0, ic0, sor, ssor):
        z = build(A)(torch.ones(n).double())
        torch.testing.assert_close(z, torch.full((n,), 0.25).double())
        (gradient,) = torch.autograd.grad(z.sum(), A.values)
        torch.testing.assert_close(gradient, torch.full((n,), -1 / 16).double())


def test_bad_matrices_are_named():
    hole = CSRTensor.from_dense(torch.tensor([[1.0, 2, 0], [2, 0, 1], [0, 1, 0]]))
    for build in (ilu0, ic0):
        with pytest.raises(ValueError, match="not stored in 2 rows, the first of them row 1"):
            build(hole)
        with pytest.raises(ValueError, match=r"got shape \(3, 4\)"):
            build(random_csr(3, 4))
        with pytest.raises(TypeError, match="float16"):
            build(CSRTensor.diag(torch.ones(3).half()))
    singular = CSRTensor.from_dense(torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"ilu0 meets a zero \(or NaN\) pivot in row 1; reorder"):
        ilu0(singular)
    for build in (sor, ssor):
        with pytest.raises(ValueError, match=r"diagonal, which is zero in 2 rows, .* row 1"):
            build(hole)
        for omega in (0, 2, float("nan")):
            with pytest.raises(ValueError, match="omega: expected 0 < omega < 2"):
                build(singular, omega)
