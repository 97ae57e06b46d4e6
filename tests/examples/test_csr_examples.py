"""The numbered examples, made short: each finds what it is there to show."""

import os
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import csr_01_gcn_citeseer as gcn  # noqa: E402
import csr_02_jacobi_weights as jacobi  # noqa: E402
import csr_03_multigrid_interpolation as multigrid  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    """The matrices are small, and other processes have the other cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def citeseer() -> Path:
    folder = Path(os.environ.get("CITESEER", gcn.FOLDER))
    if not (folder / "ind.citeseer.graph").exists():
        pytest.skip(f"no ind.citeseer.* in {folder}; set CITESEER to their folder")
    return folder


def test_a_gcn_classifies_citeseer(citeseer):
    got = gcn.run(citeseer, seeds=1, epochs=100)
    assert 0.66 < got["accuracy"] < 0.74  # the paper reports 0.703, after 200 epochs
    assert got["megabytes"] < 0.02 * got["dense_megabytes"]


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no ind\.citeseer\.graph in .*planetoid"):
        gcn.run(tmp_path)


def test_the_stencil_is_a_diffusion_operator():
    A = jacobi.diffusion(6)
    assert A.pattern.is_symmetric
    torch.testing.assert_close(A.to_dense(), A.to_dense().T)
    assert bool((torch.linalg.eigvalsh(A.to_dense()) > 0).all())
    interior = torch.tensor([7, 8, 13, 14])
    torch.testing.assert_close(A.sum(-1)[interior], torch.zeros(4, dtype=torch.float64))


def test_learned_jacobi_weights_beat_every_constant_on_unseen_right_hand_sides():
    got = jacobi.run(size=12, steps=60)
    assert got["learned"] < 0.99 * got["constant"]
    assert 0.5 < got["omega"] < 1.2  # the optimum is inside of the scan


def test_the_two_grid_gradient_is_that_of_dense_matrices():
    A, P0 = jacobi.diffusion(9), multigrid.aggregates(9)
    weights = (0.6 / A.diagonal()).requires_grad_()
    e = multigrid.errors(81, seed=0)
    sparse = multigrid.reduction(A, P0, weights, e)
    dense = multigrid.dense_reduction(A, P0, weights, e)
    torch.testing.assert_close(sparse, dense)
    torch.testing.assert_close(
        torch.autograd.grad(sparse, weights), torch.autograd.grad(dense, weights)
    )


def test_learned_interpolation_beats_every_constant_on_unseen_errors():
    got = multigrid.run(size=12, steps=25)
    assert got["learned"] < 0.99 * got["constant"]
    assert got["constant"] < 1.01 * got["classical"]
