"""The networks that ship with the repository gain on the methods that they correct."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddm.checkpoints import load_pretrained
from ddm.choice import prepared
from ddm.comparison import compare
from ddm.mesh import load_mesh
from ddm.problems import poisson, random_problem
from ddm.rates import iterations_to_reduce
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


@pytest.mark.usefixtures("gmsh")
@pytest.mark.parametrize(
    ("kind", "name", "n", "at_most"),
    [
        ("diffusion", "diffusion_2d", 1_500, 0.8),
        ("poisson_mixed", "diffusion_2d", 1_500, 0.8),
        ("diffusion_mixed", "diffusion_2d", 1_500, 0.85),
        ("anisotropic", "diffusion_2d_algebraic", 1_500, 0.8),
        ("diffusion_3d", "diffusion_3d", 2_500, 0.95),
        ("poisson_mixed_3d", "diffusion_3d", 2_500, 0.95),
        ("elasticity", "elasticity_2d", 1_500, 0.9),
    ],
)
def test_each_network_gains_on_its_class(kind, name, n, at_most):
    """Stationary iterations of what it learned over its start's, on five problems of its class."""
    quotients = []
    for seed in range(66_000_001, 66_000_006):
        problem = random_problem(kind, seed, n)
        if name.endswith("algebraic"):
            problem = replace(problem, positions=None, mesh=None)
        setup, net, unseen = prepared(problem, name)
        assert net.config == load_pretrained(name).config
        assert not unseen
        with torch.no_grad():
            ours = iterations_to_reduce(setup.learned(net), 1e-8)
            start = iterations_to_reduce(setup.classical(net.theta), 1e-8)
        quotients.append(ours / start)
    assert sum(quotients) / 5 <= at_most, quotients


def iterations(run):
    assert run.stationary.converged
    return run.stationary.iterations
