"""Preconditioners of complex matrices: their dense formulas, in solves and in adjoint solves."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from magnetic import Z, helmholtz, magnetic
from random_matrices import dense
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import bicgstab, cg, gmres, minres, solve
from sparsetorch.precond import (
    Jacobi,
    Multigrid,
    amg,
    block_jacobi,
    chebyshev,
    fsai,
    ic0,
    ilu0,
    sor,
    spai,
    ssor,
)

pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def as_matrix(M: Any, n: int, dtype: torch.dtype = Z) -> Tensor:
    """The dense matrix of a preconditioner, (n, n)."""
    apply = M.matvec if isinstance(M, CSRTensor) else M
    return apply(torch.eye(n, dtype=dtype)).T


def relaxed(D: Tensor, omega: float) -> tuple[Tensor, Tensor, Tensor]:
    """D, D + omega L and D + omega U of a dense matrix."""
    d = torch.diag(D.diagonal())
    return d, d + omega * D.tril(-1), d + omega * D.triu(1)


def dense_ssor(D: Tensor) -> Tensor:
    d, lower, upper = relaxed(D, 1.5)
    return torch.linalg.inv(lower @ torch.linalg.inv(d) @ upper / (1.5 * 0.5))


def dense_chebyshev(D: Tensor) -> Tensor:
    """p(D^-1 A) D^-1 with 1 - t p(t) = T_3((theta - t) / delta) / T_3(theta / delta)."""
    theta, delta = 1.2, 1.0
    t, vectors = torch.linalg.eig(D / D.diagonal()[:, None])
    polynomial = np.polynomial.Chebyshev.basis(3)
    residual = polynomial((theta - t.numpy()) / delta) / polynomial(theta / delta)
    p = vectors @ torch.diag((1 - torch.from_numpy(residual)) / t) @ torch.linalg.inv(vectors)
    return p / D.diagonal()


def dense_ilu0(D: Tensor) -> Tensor:
    """Saad, Iterative Methods, algorithm 10.4."""
    F, stored, n = D.clone(), D != 0, len(D)
    for i in range(1, n):
        for k in range(i):
            if stored[i, k]:
                F[i, k] /= F[k, k].clone()
                F[i, k + 1 :] -= torch.where(stored[i, k + 1 :], F[i, k] * F[k, k + 1 :], 0)
    return torch.linalg.inv((F.tril(-1) + torch.eye(n, dtype=D.dtype)) @ F.triu())


def dense_spai(D: Tensor) -> Tensor:
    M = torch.zeros_like(D)
    for j in range(len(D)):
        J = D[:, j].nonzero()[:, 0]
        e = torch.eye(len(D), dtype=D.dtype)[:, j]
        M[J, j] = torch.linalg.lstsq(D[:, J], e[:, None]).solution[:, 0]
    return M


def dense_fsai(D: Tensor) -> Tensor:
    """G^H G, where G has the first rows of Cholesky factors of the inverses of submatrices."""
    G = torch.zeros_like(D)
    for i in range(len(D)):
        J = D[i, : i + 1].nonzero()[:, 0]
        L = torch.linalg.cholesky(D[J][:, J])
        G[i, J] = torch.linalg.inv(L)[-1]
    return G.mH @ G


def dense_aggregation(D: Tensor) -> Tensor:
    """The V-cycle by its recursion, from the matrices of its levels."""
    M = smoothed_aggregation(CSRTensor.from_dense(D))
    assert len(M.levels) >= 1
    expected = torch.linalg.pinv(_galerkin(M.levels[-1]))
    for level in reversed(M.levels):
        A, R, P = (dense(matrix) for matrix in (level.A, level.restriction, level.interpolation))
        torch.testing.assert_close(R, P.mH)
        S, identity = as_matrix(level.smoother, len(A)), torch.eye(len(A), dtype=Z)
        error = (identity - S @ A) @ (identity - P @ expected @ R @ A) @ (identity - S @ A)
        expected = (identity - error) @ torch.linalg.inv(A)
    return expected


def _galerkin(level: Any) -> Tensor:
    return dense(level.restriction) @ dense(level.A) @ dense(level.interpolation)


def smoothed_aggregation(A: CSRTensor, **options: Any) -> Multigrid:
    return amg(A, "smoothed_aggregation", **options)


def dense_blocks(D: Tensor) -> Tensor:
    block = torch.arange(len(D)) // 7
    return torch.linalg.inv(torch.where(block[:, None] == block, D, 0))


class Case(NamedTuple):
    """A way to build one, its dense formula, and what it promises or needs.

    hermitian: it is Hermitian positive definite if the matrix is. definite: needs such a matrix.
    """

    name: str
    build: Callable[[CSRTensor], Any]
    formula: Callable[[Tensor], Tensor]
    hermitian: bool = True
    definite: bool = False
    differentiable: bool = True  # in A

    def matrices(self, n: int) -> list[CSRTensor]:
        return [magnetic(n)] if self.definite else [magnetic(n), helmholtz(n)]


def bounded(A: CSRTensor) -> Any:
    return chebyshev(A, 2, (0.2, 2.2))


CASES = [
    Case("Jacobi", Jacobi, lambda D: torch.diag(1 / D.diagonal())),
    Case("blocks of 7", lambda A: block_jacobi(A, 7), dense_blocks),
    Case("Chebyshev", bounded, dense_chebyshev),
    Case("SOR", sor, lambda D: torch.linalg.inv(D.tril()), hermitian=False),
    Case("SSOR", lambda A: ssor(A, 1.5), dense_ssor),
    Case("ILU(0)", ilu0, dense_ilu0),
    Case("IC(0)", ic0, dense_ilu0, definite=True),  # L L^H is the L U of a Hermitian matrix
    Case("FSAI", fsai, dense_fsai, definite=True),
    Case("SPAI", spai, dense_spai, hermitian=False),
    Case("aggregation", smoothed_aggregation, dense_aggregation, differentiable=False),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every
@pytest.mark.parametrize("dtype", [torch.complex64, Z], ids=str)
def test_is_its_dense_formula_and_keeps_the_dtype(case, dtype):
    for A in case.matrices(5):
        M = as_matrix(case.build(A.to(dtype)), 25, dtype)
        assert M.dtype == dtype
        torch.testing.assert_close(M, case.formula(dense(A)).to(dtype))


@every
def test_is_hermitian_where_promised_and_its_transpose_that_of_the_matrix(case):
    for A in case.matrices(6):
        M = case.build(A)
        D = as_matrix(M, 36)
        torch.testing.assert_close(as_matrix(M.T, 36), D.T)
        torch.testing.assert_close(as_matrix(M.T.T, 36), D)
    D = as_matrix(case.build(magnetic(6)), 36)
    if case.hermitian:
        torch.testing.assert_close(D, D.mH)
        assert torch.linalg.eigvalsh((D + D.mH) / 2).min() > 0
    else:
        assert (D - D.mH).abs().max() > 1e-3


@every
def test_phases_of_the_unknowns_do_not_matter(case):
    """M(U^H A U) = U^H M(A) U: a gauge transformation, here of a real matrix too."""
    build, n = case.build, 36
    phases = torch.exp(1j * torch.rand(n).double() * 6)
    B = {"B": np.ones((n, 1), complex)}
    other_B = {"B": phases.conj().resolve_conj().numpy()[:, None]}
    if build is smoothed_aggregation:
        # PyAMG's own weights are from random vectors, and real ones for a real matrix.
        options: Any = {"smooth": ("jacobi", {"weighting": "local"}), "max_coarse": 3}
        build, build_other = partial(build, **B, **options), partial(build, **other_B, **options)
    else:
        build_other = build
    for A in (*case.matrices(6), poisson(6, 6, dtype=Z)):
        want = phases.conj()[:, None] * as_matrix(build(A), n) * phases
        turned = A.scale_rows(phases.conj()).scale_cols(phases)
        torch.testing.assert_close(as_matrix(build_other(turned), n), want)


@every
def test_saves_iterations(case):
    b = torch.randn(400, dtype=Z)
    H, A = magnetic(20), helmholtz(20)
    if case.hermitian:
        plain, with_it = cg(H, b), cg(H, b, preconditioner=case.build(H))
        assert with_it.converged
        assert with_it.iterations <= (1 if case.name in ("Jacobi", "blocks of 7") else 0.7) * (
            plain.iterations
        )
        assert minres(H, b, preconditioner=case.build(H)).converged
    for matrix in (H,) if case.definite else (H, A):
        M = case.build(matrix)
        assert gmres(matrix, b, preconditioner=M).iterations <= gmres(matrix, b).iterations
        x = bicgstab(matrix, b, preconditioner=M).x
        torch.testing.assert_close(matrix @ x, b, rtol=0, atol=1e-8)


@every
def test_applying_is_differentiable_in_r_and_where_promised_in_the_matrix(case):
    (A, *_), r = case.matrices(3), torch.randn(9, dtype=Z, requires_grad=True)
    M = case.build(A)
    assert gradcheck(lambda r: M.matvec(r) if isinstance(M, CSRTensor) else M(r), (r,))
    values = A.values.clone().requires_grad_()

    def apply(values: Tensor, r: Tensor) -> Tensor:
        B = A.with_values(values)
        M = case.build((B + B.H) / 2 if case.definite else B)
        return M.matvec(r) if isinstance(M, CSRTensor) else M(r)

    if case.differentiable:
        assert gradcheck(apply, (values, r), check_forward_ad=True, fast_mode=True)
        assert gradgradcheck(apply, (values, r), fast_mode=True)
    else:
        (gradient,) = torch.autograd.grad(apply(values, r).abs().sum(), values, allow_unused=True)
        assert gradient is None


SOLVES = [
    (case, method)
    for case in CASES
    for method in ("cg", "minres", "gmres", "fgmres", "bicgstab")
    if case.hermitian or method not in ("cg", "minres")
]


@pytest.mark.parametrize(("case", "method"), SOLVES, ids=[f"{m}-{c.name}" for c, m in SOLVES])
def test_serves_a_solve_and_its_adjoint(case, method):
    A = magnetic(7) if case.definite or method in ("cg", "minres") else helmholtz(7)
    A.requires_grad_()
    b = torch.randn(49, 2, dtype=Z, requires_grad=True)
    M = case.build(A)  # of values that require gradients, which do not pass through it
    x = solve(A, b, method, preconditioner=M, rtol=1e-12)
    exact = solve(A, b)
    torch.testing.assert_close(x, exact)
    weights = torch.randn_like(b)
    torch.testing.assert_close(
        torch.autograd.grad(x, (A.values, b), weights),
        torch.autograd.grad(exact, (A.values, b), weights),
    )


@every
def test_second_derivatives_and_tangents_of_a_solve(case):
    A = magnetic(3) if case.definite else helmholtz(3)
    M, b = case.build(A), torch.randn(9, dtype=Z)
    method = "gmres" if case.definite or not case.hermitian else "bicgstab"

    def x(values: Tensor, b: Tensor) -> Tensor:
        return solve(A.with_values(values), b, method, preconditioner=M, rtol=1e-13)

    def dense_x(values: Tensor, b: Tensor) -> Tensor:
        return torch.linalg.solve(dense(A.with_values(values)), b)

    tangents = (torch.randn_like(A.values), torch.randn_like(b))
    arguments = (A.values, b)
    torch.testing.assert_close(
        torch.func.jvp(x, arguments, tangents), torch.func.jvp(dense_x, arguments, tangents)
    )
    inputs = tuple(argument.clone().requires_grad_() for argument in arguments)
    assert gradgradcheck(x, inputs, fast_mode=True, check_fwd_over_rev=True, atol=1e-6)


@pytest.mark.parametrize("method", ["cg", "gmres"])
def test_the_adjoint_takes_as_few_steps_as_the_solve(method):
    """On a full pattern both are exact inverses: one step each way, if they are turned aright."""
    A = CSRTensor.from_dense(dense(magnetic(4)) + 1e-3j * torch.ones(16, 16).triu(1))
    A = ((A + A.H) / 2).requires_grad_()
    assert A.nnz == 256
    for M in (ic0(A), fsai(A)):
        calls: list[Tensor] = []
        times = _counted(M, calls)
        x = solve(A, torch.randn(16, dtype=Z), method, preconditioner=times)
        forward = len(calls)
        x.abs().sum().backward()
        assert forward < len(calls) <= 2 * forward


def _counted(M: Any, calls: list[Tensor]) -> Any:
    class Counted:
        def __call__(self, r: Tensor) -> Tensor:
            calls.append(r)
            return M(r)

        @property
        def T(self) -> Any:
            return _counted(M.T, calls)

    return Counted()


def test_gradients_of_ic0_and_fsai_are_hermitian_in_effect():
    """Their values depend on the lower triangle alone, as a real diagonal and complex entries."""
    A = magnetic(4).requires_grad_()
    above = A.pattern.col > A.pattern.row
    diagonal = A.pattern.col == A.pattern.row
    for values in (ic0(A).L.values, fsai(A).G.values):
        (gradient,) = torch.autograd.grad(values.abs().square().sum(), A.values)
        assert not bool(gradient[above].any())
        assert not bool(gradient[diagonal].imag.any())
        assert bool(gradient[diagonal].real.any())


def test_many_fields_at_once():
    A = magnetic(4)
    values = torch.stack([magnetic(4, field).values for field in (0.1, 0.2, 0.3)])
    r = torch.randn(16, dtype=Z)

    def energy(v: Tensor) -> Tensor:
        return ic0(A.with_values(v))(r).abs().square().sum()

    mapped = torch.vmap(torch.func.grad(energy))(values)
    each = torch.stack([torch.func.grad(energy)(v) for v in values])
    torch.testing.assert_close(mapped, each)


def test_chebyshev_estimates_its_interval():
    for field in (0.0, 0.3):
        A = magnetic(12, field)
        t = torch.linalg.eigvalsh(dense(A) / 4)
        low, high = chebyshev(A, 9).bounds
        assert t.max() <= high <= 1.05 * t.max()
        assert low <= 1.1 * max(float(t.min()), high / 200)
    with pytest.raises(ValueError, match=r"expected a positive definite matrix .* D or A is not"):
        chebyshev(-1 * magnetic(4))


@pytest.mark.parametrize("build", [ic0, fsai], ids=["ic0", "fsai"])
def test_what_is_not_hermitian_is_refused(build):
    with pytest.raises(ValueError, match=r"expected a Hermitian matrix, .* in 36 rows, .* row 0"):
        build(helmholtz(6))
