"""The heavy-ball example: what it learns is nearly what Polyak proved to be best."""

import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import csr_04_heavy_ball as example  # noqa: E402

from sparsetorch import poisson  # noqa: E402


@pytest.fixture(autouse=True)
def _one_thread():
    # Many small operations: on a busy machine threads spend their time waiting for each other.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def worst_rate(w: torch.Tensor, alpha: float, beta: float) -> float:
    """The spectral radius of the iteration, from the eigenvalues of A."""
    sums = 1 + beta - alpha * w
    roots = (sums + torch.sqrt(sums.to(torch.complex128) ** 2 - 4 * beta)) / 2
    others = beta / roots
    return float(torch.maximum(roots.abs(), others.abs()).max())


def test_learned_parameters_are_nearly_optimal():
    A = poisson(16, dtype=torch.float64)
    w = torch.linalg.eigvalsh(A.to_dense())
    best = example.optimum(float(w[0]), float(w[-1]))
    assert worst_rate(w, *best) == pytest.approx(best[1] ** 0.5)
    learned = example.learn(A.matmul, 16, steps=60)
    assert worst_rate(w, *best) <= worst_rate(w, *learned) <= 1.03 * worst_rate(w, *best)
    assert learned == pytest.approx(best, rel=0.25)
    # The number of steps is that of the square root of the condition number.
    plain = example.iterations(A, 2 / float(w[0] + w[-1]), 0.0)
    assert example.iterations(A, *learned) < 0.5 * plain
