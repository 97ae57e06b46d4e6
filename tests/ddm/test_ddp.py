"""Training in two processes is training in one on the same meshes: gradients and weights agree."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ddp_training import STEPS, Ordered, data, fit, module, run
from processes import run_together

from ddm.balance import BalancedSampler, stored_costs
from ddm.data import MeshDataset

MESHES = tuple(
    str(path) for path in sorted((Path(__file__).parents[2] / "examples" / "meshes").glob("*.msh"))
)
SIZE = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """Meshes that are made before the processes start."""
    target = str(tmp_path_factory.mktemp("meshes"))
    data(target, MESHES[:4]).prepare_data()
    return target


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory) -> list[dict]:
    """What each process reports."""
    reports = tmp_path_factory.mktemp("reports")
    return run_together(
        run, SIZE, reports, folder, MESHES[:4], preload=["ddp_training"], start=False
    )


@pytest.fixture(scope="module")
def single(folder) -> dict:
    """One process that adds up the gradients of the meshes of all processes."""
    source = data(folder, MESHES[:4], Ordered)
    costs = stored_costs(MeshDataset(source.recipes["training"], folder).paths)
    sampler = BalancedSampler(costs, num_replicas=SIZE, rank=0)
    source.order = tuple(int(k) for k in sampler.steps().ravel())
    return fit(module(), source, accumulate_grad_batches=SIZE)


def test_the_sampler_is_the_balanced_one(results, single):
    assert [r["sampler"] for r in results] == ["BalancedSampler"] * SIZE
    assert [r["steps"] for r in results] == [STEPS] * SIZE
    dealt = np.stack([r["meshes"] for r in results], axis=1).ravel()
    assert dealt.tolist() == single["meshes"]
    assert len(set(dealt.tolist())) > 2


@pytest.mark.parametrize("rank", range(SIZE))
def test_gradients_are_means_over_the_processes(results, single, rank):
    assert len(results[rank]["gradients"]) == len(single["gradients"]) == STEPS
    for got, want in zip(results[rank]["gradients"], single["gradients"]):
        assert got.keys() == want.keys()
        for name, gradient in want.items():
            assert gradient.abs().max() > 0, name
            torch.testing.assert_close(got[name], gradient, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("rank", range(SIZE))
def test_weights_agree_after_some_steps(results, single, rank):
    start = dict(module().net.named_parameters())
    for name, weight in single["weights"].items():
        assert (weight - start[name]).abs().max() > 1e-5, name
        torch.testing.assert_close(results[rank]["weights"][name], weight, rtol=1e-4, atol=1e-6)


def test_validation_is_the_mean_over_all_processes(results, single):
    for name in ("val/factor", "val/ratio", "val/iterations"):
        assert results[0]["metrics"][name] == results[1]["metrics"][name]
        assert results[0]["metrics"][name] == pytest.approx(single["metrics"][name], rel=1e-3)
