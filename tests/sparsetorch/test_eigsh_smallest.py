"""`which="SM"` inside of a spectrum: what a Krylov space does not hold is found by counting."""

import pytest
import torch
from magnetic import magnetic
from torch import Tensor

from sparsetorch import CSRTensor, poisson
from sparsetorch.linalg import SolveError, eigsh, factorized
from sparsetorch.linalg.cholesky import LDLT
from sparsetorch.linalg.smallest import n_missed

F64 = torch.float64


def blind(n: int, dtype: torch.dtype = F64) -> tuple[CSRTensor, Tensor]:
    """Eigenvalues on both sides of zero, and a start that the one closest to zero is normal to."""
    w = torch.cat([torch.linspace(-4.0, -1.0, n // 2), torch.linspace(1.0, 5.0, n - n // 2 - 1)])
    d = torch.cat([w.new_tensor([0.3]), w]).to(dtype)
    start = torch.ones(n, dtype=dtype)
    start[0] = 0
    return CSRTensor.diag(d), start


@pytest.mark.parametrize("dtype", [F64, torch.float32, torch.complex128], ids=str)
def test_what_the_start_does_not_hold_is_found(dtype):
    A, start = blind(40, dtype)
    w, V = eigsh(A, 2, which="SM", v0=start)
    expected = torch.tensor([0.3, 1.0]) if w[0] > 0 else torch.tensor([-1.0, 0.3])
    torch.testing.assert_close(w.double(), expected.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(A @ V, V * w, rtol=0, atol=1e-5)


def test_so_are_copies_of_an_eigenvalue():
    d = torch.cat([torch.tensor([0.2, 0.2, 0.2]), torch.linspace(-3.0, -1.0, 20)]).double()
    w = eigsh(CSRTensor.diag(d), 4, which="SM", return_eigenvectors=False)
    torch.testing.assert_close(w, torch.tensor([-1.0, 0.2, 0.2, 0.2], dtype=F64))


def test_derivatives_are_those_of_the_pairs_that_were_missed():
    A, start = blind(40)

    def loss(values: Tensor) -> Tensor:
        w, V = eigsh(A.with_values(values), 1, which="SM", v0=start)
        return w.sum() + (V**4).sum()

    gradient = torch.func.grad(loss)(A.values)
    torch.testing.assert_close(gradient, torch.eye(40, dtype=F64)[0])


def test_a_singular_matrix_says_what_to_do():
    A, start = blind(40)
    A.values[0] = 0.0
    with pytest.raises(SolveError, match=r"missed 1 of the smallest eigenvalues.*sigma close to"):
        eigsh(A, 2, which="SM", v0=start)


@pytest.mark.parametrize("A", [poisson(6, 5, dtype=F64), magnetic(5)], ids=["real", "complex"])
def test_counts_are_those_of_the_dense_matrix(A):
    n = A.shape[0]
    for shift in (0.0, 1.3, 2.9):
        S = A.add_diagonal(torch.full((n,), -shift, dtype=A.dtype))
        w = torch.linalg.eigvalsh(S.to_dense())
        factors = factorized(S, "ldlt")
        assert isinstance(factors, LDLT)
        assert factors.n_negative == int((w < 0).sum())
        found = w[w.abs().argsort()][:5]
        assert n_missed(S, found, 8.0) == 0
        assert n_missed(S, found[1:], 8.0) == (found[0].abs() < found[-1].abs() - 1e-6)
        assert n_missed(S, found[[0, 4]], 8.0) >= 1
