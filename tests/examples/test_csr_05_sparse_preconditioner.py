"""The learned preconditioner, made short: it beats IC(0), and its gradient is that of matrices."""

import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import csr_05_sparse_preconditioner as example  # noqa: E402

from sparsetorch import CSRTensor, poisson, save  # noqa: E402
from sparsetorch.linalg import cg  # noqa: E402
from sparsetorch.precond import IC0, Jacobi, ic0  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    """The matrices are small, and other processes have the other cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PROBLEMS = {
    "poisson": lambda: poisson(20, 20, dtype=torch.float64),
    "jumps": lambda: example.diffusion(20),
    "anisotropic": lambda: example.anisotropic(20),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_learned_factor_beats_ic0_on_unseen_right_hand_sides(problem, seed):
    A = PROBLEMS[problem]()
    factor = ic0(A).L
    by_ic0 = example.iterations(A, IC0(factor))
    learned = example.learn(A, factor, seed, epochs=50)
    assert learned.L.pattern is factor.pattern
    assert example.iterations(A, learned) < 0.85 * by_ic0
    assert by_ic0 < 0.5 * example.iterations(A, Jacobi(A))


def test_the_loss_is_the_error_that_cg_leaves():
    A = example.diffusion(9)
    x = example.vectors(81, 1, seed=0)
    M = ic0(A)
    left = x[0] - cg(A, A @ x[0], preconditioner=M, maxiter=example.STEPS).x
    norms = [(e @ (A @ e)).sqrt() for e in (left, x[0])]
    expected = (norms[0] / norms[1]).log() / example.STEPS
    torch.testing.assert_close(example.reduction(A.matvec, M, x), expected)


def test_its_gradient_is_that_of_dense_matrices():
    A = example.anisotropic(6)
    factor, x = ic0(A).L.requires_grad_(), example.vectors(36, 4, seed=0)
    D, L = A.to_dense(), factor.to_dense()

    def by_dense(r):
        return torch.cholesky_solve(r.mT, L).mT

    sparse = example.reduction(A.matvec, IC0(factor), x)
    dense = example.reduction(lambda x: x @ D, by_dense, x)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(
        torch.autograd.grad(sparse, factor.values), torch.autograd.grad(dense, factor.values)
    )


def test_modified_ic0_keeps_row_sums_and_is_ic0_without_its_omega():
    A = example.diffusion(8)
    one = torch.ones(64, dtype=torch.float64)
    L = example.modified(A, omega=1.0).L
    torch.testing.assert_close(L @ (L.T @ one), A @ one)
    torch.testing.assert_close(example.modified(A, omega=0.0).L.to_dense(), ic0(A).L.to_dense())
    indefinite = CSRTensor.from_dense(torch.tensor([[1.0, 2.0], [2.0, 1.0]]).double())
    with pytest.raises(ValueError, match="row 1 has a pivot that is not positive"):
        example.modified(indefinite, omega=1.0)
    assert example.best_modified(indefinite) is None


def test_a_matrix_of_a_file_and_the_picture(tmp_path, monkeypatch, capsys):
    save(poisson(10, 9, dtype=torch.float64), tmp_path / "small.mtx")
    picture = tmp_path / "picture.png"
    arguments = ["--matrix", str(tmp_path / "small.mtx"), "--seeds", "1", "--out", str(picture)]
    monkeypatch.setattr(sys, "argv", ["example", *arguments])
    example.main()
    assert picture.stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "small.mtx: 90 unknowns, 412 entries" in printed
    assert "learned L" in printed
