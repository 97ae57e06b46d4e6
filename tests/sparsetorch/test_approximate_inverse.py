"""SPAI and FSAI against dense problems, one column or row at a time."""

import pytest
import torch
from random_matrices import dense, random_csr, random_pattern, random_square
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from sparsetorch import CSRTensor, Pattern, diags, eye, kron, poisson
from sparsetorch.linalg import bicgstab, cg, gmres
from sparsetorch.precond import fsai, ic0, spai


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def places(pattern: Pattern) -> Tensor:
    """Which entries are stored, (n, n) bool."""
    stored = torch.zeros(pattern.shape, dtype=torch.bool)
    stored[pattern.row.long(), pattern.col.long()] = True
    return stored


def dense_spai(D: Tensor, stored: Tensor) -> Tensor:
    M = torch.zeros_like(D)
    for j in range(len(D)):
        J = stored[:, j].nonzero()[:, 0]
        e = torch.eye(len(D), dtype=D.dtype)[:, j]
        M[J, j] = torch.linalg.lstsq(D[:, J], e[:, None]).solution[:, 0]
    return M


def dense_fsai(D: Tensor, stored: Tensor) -> Tensor:
    G = torch.zeros_like(D)
    for i in range(len(D)):
        J = stored[i, : i + 1].nonzero()[:, 0]
        y = torch.linalg.inv(D[J][:, J])[:, -1]
        G[i, J] = y / y[-1].sqrt()
    return G


def with_diagonal(pattern: Pattern) -> Pattern:
    return pattern.with_diagonal.pattern


@pytest.mark.parametrize("n", [1, 2, 7, 30])
@pytest.mark.parametrize("wanted", ["own", "squared", "random", "full"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_equal_the_dense_problems(n, wanted, symmetric):
    A = random_square(n, symmetric=symmetric).detach()
    pattern = {
        "own": None,
        "squared": A.pattern.matmul(A.pattern),
        "random": random_pattern(n, n, 0.3, seed=5),  # without a diagonal, with empty columns
        "full": random_pattern(n, n, 1.0, seed=5),
    }[wanted]
    D, on = dense(A), A.pattern if pattern is None else pattern
    M = spai(A, pattern)
    assert M.pattern is on
    torch.testing.assert_close(dense(M), dense_spai(D, places(on)))
    if wanted == "full":
        torch.testing.assert_close(dense(M), torch.linalg.inv(D))
    if symmetric:
        on = with_diagonal(on)
        G = fsai(A, None if pattern is None else on).G
        torch.testing.assert_close(dense(G), dense_fsai(D, places(on)))
        product = dense(G) @ D @ dense(G).T
        torch.testing.assert_close(product.diagonal(), torch.ones(n).double())


def test_derivatives_of_first_and_second_order():
    A = random_square(6)
    B = random_square(6, symmetric=True)
    for function, values in [
        (lambda v: spai(A.with_values(v)).values, A.values),
        (lambda v: fsai(B.with_values(v)).G.values, B.values),
    ]:
        assert gradcheck(function, values, check_forward_ad=True)
        assert gradgradcheck(function, values)


def test_fsai_reads_the_lower_triangle_only():
    A = poisson(4, 5, dtype=torch.float64)
    above = A.pattern.col > A.pattern.row
    poisoned = A.with_values(torch.where(above, float("nan"), A.values))
    assert torch.equal(fsai(poisoned).G.values, fsai(A).G.values)


def test_a_larger_pattern_is_a_better_inverse():
    """The residual of the best M cannot grow with its pattern, and is zero on the full one."""
    line = diags([-1.3, 2.0, -0.7], [-1, 0, 1], (9, 9), torch.float64)
    here = eye(9, dtype=torch.float64)
    A, pattern, residuals, iterations = kron(line, here) + kron(here, line), None, [], []
    for _ in range(3):
        M = spai(A, pattern)
        residuals.append(float((dense(A) @ dense(M) - torch.eye(81)).norm()))
        iterations.append(gmres(A, torch.ones(81).double(), preconditioner=M).iterations)
        pattern = M.pattern.matmul(A.pattern)
    assert residuals == sorted(residuals, reverse=True)
    assert iterations == sorted(iterations, reverse=True)
    assert iterations[0] < gmres(A, torch.ones(81).double()).iterations
    assert bicgstab(A, torch.ones(81).double(), preconditioner=spai(A)).converged


def test_fsai_of_a_grid_saves_iterations_and_ic0_more():
    A = poisson(40, 40, dtype=torch.float64)
    b = torch.randn(1600).double()
    plain = cg(A, b).iterations
    with_fsai = cg(A, b, preconditioner=fsai(A)).iterations
    assert cg(A, b, preconditioner=ic0(A)).iterations < with_fsai < 0.6 * plain


def test_what_depends_on_the_pattern_is_found_once(monkeypatch):
    A = random_square(8, symmetric=True)
    before = spai(A).values, fsai(A).G.values

    def refused(*_, **__):
        raise AssertionError("searched again")

    monkeypatch.setattr("sparsetorch.precond.approximate_inverse.grouped", refused)
    torch.testing.assert_close(spai(2 * A).values, before[0] / 2)
    torch.testing.assert_close(fsai(4 * A).G.values, before[1] / 2)


def test_tiny_matrices():
    for n in (0, 1):
        A = CSRTensor.diag(torch.full((n,), 4.0).double())
        assert torch.equal(spai(A).values, torch.full((n,), 0.25).double())
        assert torch.equal(fsai(A).G.values, torch.full((n,), 0.5).double())
    empty = Pattern(torch.zeros(4).long(), torch.zeros(0).long(), (3, 3))
    assert spai(CSRTensor.eye(3), empty).nnz == 0


def test_float32_stays():
    A = random_square(6, symmetric=True).to(torch.float32)
    assert spai(A).dtype == fsai(A).G.dtype == torch.float32


def test_bad_matrices_are_named():
    A = CSRTensor.from_dense(torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]))
    with pytest.raises(ValueError, match="at the places of column 0 of the inverse are linearly"):
        spai(A)
    with pytest.raises(ValueError, match="the entries in row 1 of G is not"):
        fsai(A.with_values(torch.tensor([1.0, 2, 2, 1, 1])))
    hole = CSRTensor.from_dense(torch.tensor([[1.0, 1, 0], [1, 1, 0], [1, 0, 0]]))
    with pytest.raises(ValueError, match=r"A: fsai needs the whole diagonal, .* row 2"):
        fsai(hole)
    with pytest.raises(ValueError, match=r"pattern: fsai needs the whole diagonal, .* row 2"):
        fsai(A, hole.pattern)
    for build in (spai, fsai):
        with pytest.raises(ValueError, match=r"A: expected one square matrix, got shape \(3, 4\)"):
            build(random_csr(3, 4))
        with pytest.raises(ValueError, match=r"pattern: expected shape \(3, 3\) on cpu"):
            build(A, random_pattern(4, 4, 0.5, 0))
        with pytest.raises(TypeError, match=r"A: expected float32, .* got torch.float16"):
            build(A.to(torch.float16))
