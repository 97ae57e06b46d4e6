"""Samples by cost: every one of them in each epoch, and steps that keep all processes busy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddm.balance import BalancedSampler, stored_costs
from ddm.data import MeshDataset, Recipe, generate

MESHES = sorted((Path(__file__).parents[2] / "examples" / "meshes").glob("*.msh"))
COSTS = np.exp(np.random.default_rng(0).uniform(np.log(400), np.log(40_000), 101))


def samplers(size: int, costs: Any = COSTS, **options) -> list[BalancedSampler]:
    return [BalancedSampler(costs, num_replicas=size, rank=r, **options) for r in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_has_every_sample_and_as_many_steps_for_each_process(size, shuffle):
    found = [list(s) for s in samplers(size, shuffle=shuffle)]
    steps = -(-len(COSTS) // size)
    assert [len(part) for part in found] == [steps] * size
    assert len(samplers(size)[0]) == steps
    times = np.bincount(np.concatenate(found), minlength=len(COSTS))
    assert times.min() == 1
    assert times.sum() == size * steps
    # Those that fill up are the cheapest.
    twice = np.flatnonzero(times == 2)
    assert (COSTS[twice] <= np.quantile(COSTS, 0.2)).all()


def test_processes_wait_less_than_with_samples_dealt_at_random():
    for size in (2, 8):
        ours = samplers(size)[0].waiting()
        dealt = np.random.default_rng(1).permutation(len(COSTS))[: len(COSTS) // size * size]
        groups = COSTS[dealt].reshape(-1, size)
        random = 1 - groups.sum() / (size * groups.max(axis=1).sum())
        assert ours < 0.2 * random
        assert random > 0.25
    # Blurred costs differ by up to 10 %, those of neighbours in the order hardly more.
    step = COSTS[samplers(2)[0].steps()]
    assert np.median(step.max(axis=1) / step.min(axis=1)) < 1.15


def test_epochs_differ_and_repeat():
    first, second = samplers(2)[0], samplers(2)[0]
    one = first.steps()
    np.testing.assert_array_equal(one, second.steps())
    first.set_epoch(1)
    two = first.steps()
    assert (one != two).any()

    def groups(steps) -> set[tuple[int, ...]]:
        return {tuple(sorted(step)) for step in steps.tolist()}

    assert groups(one) != groups(two)  # not the same meshes side by side
    assert (samplers(2, seed=1)[0].steps() != one).any()
    by_cost = samplers(2, shuffle=False)[0].steps()
    assert (np.diff(COSTS[by_cost].max(axis=1)) <= 0).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_curriculum_lets_samples_in_by_their_costs(size):
    sampler = samplers(size, growth=2.0)[0]
    first = COSTS[sampler.steps()]
    tenth, half = np.quantile(COSTS, (0.15, 0.7))  # costs are blurred, steps have several
    assert first[: len(first) // 20 + 1].max() <= tenth
    assert first.max() <= half
    assert first[: len(first) // 2].max() < first.max()
    sampler.set_epoch(1)
    second = COSTS[sampler.steps()]
    assert first.max() < second.max() < COSTS.max() * 1.0001
    assert first.mean() < second.mean() < COSTS.mean()
    sampler.set_epoch(2)
    everything = samplers(size)[0]
    everything.set_epoch(2)
    np.testing.assert_array_equal(sampler.steps(), everything.steps())
    assert len(first) == len(everything.steps())


@pytest.mark.parametrize("size", [1, 2])
def test_a_curriculum_lets_kinds_in_by_turns(size):
    stages = np.arange(len(COSTS)) % 3
    sampler = samplers(size, growth=1.0, stages=stages)[0]
    steps = stages[sampler.steps()]
    assert (steps[: len(steps) // 5] == 0).all()
    assert {0, 1, 2} == set(steps.ravel().tolist())
    assert (steps == 0).mean() > 0.5 > 0.2 > (steps == 2).mean()
    assert (steps.min(axis=1) != steps.max(axis=1)).sum() <= 3  # processes are at the same kind
    sampler.set_epoch(1)
    assert set(np.unique(sampler.steps(), return_counts=True)[1].tolist()) <= {1, 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"growth": -1.0}, "growth: expected a number of epochs of at least 0, got -1.0"),
        ({"growth": np.inf}, "growth: expected a number of epochs"),
        ({"growth": 1.0, "shuffle": False}, "growth: a curriculum needs shuffle=True"),
        ({"growth": 1.0, "stages": [1]}, r"stages: expected one of each of the 2 costs, got .*1,"),
    ],
)
def test_bad_curricula(options, message):
    with pytest.raises(ValueError, match=message):
        BalancedSampler([1.0, 2.0], **options)


def test_fewer_samples_than_processes():
    assert [list(s) for s in samplers(4, costs=[3.0])] == [[0]] * 4
    assert samplers(4, costs=[3.0])[0].waiting() == 0
    assert samplers(3, costs=[0.0, 0.0])[0].waiting() == 0


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([], r"costs: expected \(n,\) with n >= 1"),
        ([[1.0]], r"costs: expected \(n,\) with n >= 1, got shape \(1, 1\)"),
        ([1.0, np.nan], "costs: expected finite values of at least 0"),
        ([1.0, -1.0], "costs: expected finite values of at least 0"),
    ],
)
def test_bad_costs(costs, message):
    with pytest.raises(ValueError, match=message):
        BalancedSampler(costs)


def test_a_rank_out_of_range_is_refused():
    with pytest.raises(ValueError, match="rank"):
        BalancedSampler([1.0], num_replicas=2, rank=2)


def test_costs_are_the_entries_of_the_matrices(tmp_path):
    recipe = Recipe(count=2, files=tuple(map(str, MESHES[:2])), subdomain=(30, 60))
    list(generate(recipe, tmp_path))
    dataset = MeshDataset(recipe, tmp_path)
    costs = stored_costs(dataset.paths)
    assert costs.tolist() == [dataset[0].A.nnz, dataset[1].A.nnz]
    dataset.paths[1].write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"000001\.npz is damaged.*delete it"):
        stored_costs(dataset.paths)
    with pytest.raises(FileNotFoundError):
        stored_costs([tmp_path / "none.npz"])
