"""The network that ships with the repository does what the README says of it."""

from pathlib import Path

import pytest

from ddm.checkpoints import load_pretrained
from ddm.classical import Classical
from ddm.comparison import compare
from ddm.mesh import load_mesh
from ddm.problems import poisson
from ddm.search import best_classical

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("number", [1, 4])
def test_fewer_iterations_than_the_methods_without_learning(number):
    """On meshes never trained on: at most half of plain RAS, fewer than the best tuned ORAS."""
    mesh = load_mesh(EXAMPLES / "meshes" / f"domain{number}.msh").refined(1)
    problem = poisson(mesh)
    net = load_pretrained("diffusion_2d")
    smoothed = Classical()
    runs = compare(
        problem, methods={"RAS": "ras", "smoothed": smoothed, "tuned": tuned, "MG-GNN": "mggnn"},
        net=net, rtol=1e-8,
    ).runs  # fmt: skip
    counts = {name: iterations(run) for name, run in runs.items()}
    learned = counts.pop("MG-GNN")
    assert runs["MG-GNN"].settings == "learned"
    assert learned <= 0.5 * counts["RAS"]
    assert learned < min(counts.values())


def iterations(run):
    assert run.stationary.converged
    return run.stationary.iterations


def tuned(bench):
    """ORAS with the best constant Robin weight and a smoothed coarse space."""
    return best_classical(bench, overlaps=(1,), between=(False,), smoothings=(1,)).method
