"""The network that ships with the repository does what the README says of it."""

from pathlib import Path

import pytest

from ddm.comparison import compare
from ddm.learned import InterfaceNet
from ddm.mesh import load_mesh
from ddm.problems import poisson

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("number", [1, 4])
def test_fewer_iterations_than_the_methods_without_learning(number):
    """On meshes never trained on: at most half of plain RAS, fewer than the best tuned ORAS."""
    mesh = load_mesh(EXAMPLES / "meshes" / f"domain{number}.msh").refined(1)
    problem = poisson(mesh)
    net = InterfaceNet.load(EXAMPLES / "mggnn.safetensors")
    runs = compare(problem.A, problem.b, net, amg=False)
    counts = {name: run.stationary.iterations for name, run in runs.items()}
    learned = counts.pop("MG-GNN")
    assert learned <= 0.5 * counts["RAS"]
    assert learned < min(counts.values())
