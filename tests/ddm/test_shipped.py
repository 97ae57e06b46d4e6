"""The network that ships with the repository gains on the method that it corrects."""

from pathlib import Path

import pytest

from ddm.checkpoints import load_pretrained
from ddm.comparison import compare
from ddm.mesh import load_mesh
from ddm.problems import poisson
from ddm.setup import set_up

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("number", [1, 4])
def test_fewer_iterations_than_ras_and_than_its_start(number):
    """On meshes never trained on: at most half of plain RAS."""
    mesh = load_mesh(EXAMPLES / "meshes" / f"domain{number}.msh").refined(1)
    net = load_pretrained("diffusion_2d")

    def start(bench):
        """The classical method that the network corrects."""
        setup = set_up(bench.problem, bench.owner(bench.subdomain), **net.options)
        return setup.classical(net.theta)

    methods = {"RAS": "ras", "start": start, "MG-GNN": "mggnn"}
    runs = compare(poisson(mesh), methods=methods, net=net, subdomain=64, rtol=1e-8).runs
    counts = {name: iterations(run) for name, run in runs.items()}
    assert runs["MG-GNN"].settings == "learned"
    assert counts["MG-GNN"] <= 0.5 * counts["RAS"]
    assert counts["MG-GNN"] <= counts["start"]


def iterations(run):
    assert run.stationary.converged
    return run.stationary.iterations
