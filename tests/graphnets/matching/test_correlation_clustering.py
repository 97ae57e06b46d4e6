import pytest
import torch

from graphnets.matching.clustering import connected_components
from graphnets.matching.correlation import (
    adjacency,
    contract,
    correlation_clustering,
    correlation_objective,
    joined,
    move_devices,
)
from graphnets.matching.pairs import all_pairs, canonical_pairs, positive_pairs, same_user

NONE = torch.zeros(0, 2, dtype=torch.int64)


def partitions(n):
    """All of n devices, as labels that are numbered by first devices."""
    found = [[]]
    for _ in range(n):
        found = [[*p, k] for p in found for k in range(max(p, default=-1) + 2)]
    return torch.tensor(found)


ALL = {n: partitions(n) for n in range(1, 8)}


def optimum(n, pairs, weights, missing=0.0):
    """The best objective of all partitions, by brute force, and the partitions that have it."""
    matrix = torch.full((n, n), missing, dtype=torch.float64)
    matrix[pairs[:, 0], pairs[:, 1]] = weights.double()
    every = all_pairs(n)
    inside = ALL[n][:, every[:, 0]] == ALL[n][:, every[:, 1]]
    values = inside.double() @ matrix[every[:, 0], every[:, 1]]
    return float(values.max()), ALL[n][values == values.max()].tolist()


def sampled(n, seed, share=0.7):
    """Some pairs of n devices, with random weights."""
    g = torch.Generator().manual_seed(seed)
    pairs = all_pairs(n)
    pairs = pairs[torch.rand(len(pairs), generator=g) < share]
    return pairs, torch.randn(len(pairs), generator=g, dtype=torch.float64)


def test_there_are_as_many_partitions_as_bell_numbers():
    assert [len(ALL[n]) for n in range(1, 8)] == [1, 2, 5, 15, 52, 203, 877]


@pytest.mark.parametrize("n", range(1, 8))
@pytest.mark.parametrize("missing", [0.0, -0.3])
def test_never_better_than_the_optimum_and_often_equal(n, missing):
    reached = 0
    for seed in range(20):
        pairs, weights = sampled(n, seed)
        users = correlation_clustering(n, pairs, weights, missing)
        best, best_users = optimum(n, pairs, weights, missing)
        value = correlation_objective(users, pairs, weights, missing)
        assert value <= best + 1e-12
        assert value >= 0  # all devices alone
        reached += users.tolist() in best_users
    assert reached >= 15  # a heuristic, but a good one at this size


@pytest.mark.parametrize("seed", range(5))
def test_planted_users_are_found_where_all_weights_agree_with_them(seed):
    g = torch.Generator().manual_seed(seed)
    planted = torch.randint(0, 25, (60,), generator=g)
    pairs = all_pairs(60)
    weights = torch.rand(len(pairs), generator=g) + 0.1
    weights = weights.where(same_user(planted, pairs), -weights)
    users = correlation_clustering(60, pairs, weights)
    assert torch.equal(same_user(users, pairs), same_user(planted, pairs))
    assert correlation_objective(users, pairs, weights) == pytest.approx(
        float(weights.double().clamp(min=0).sum())
    )


def test_thousands_of_planted_users_are_found():
    g = torch.Generator().manual_seed(9)
    planted = torch.randint(0, 1500, (5000,), generator=g)
    others = torch.randint(0, 5000, (40_000, 2), generator=g)
    pairs = canonical_pairs(
        torch.cat([others[others[:, 0] != others[:, 1]], positive_pairs(planted)]), 5000
    )
    weights = torch.rand(len(pairs), generator=g) + 0.1
    weights = weights.where(same_user(planted, pairs), -weights)
    users = correlation_clustering(5000, pairs, weights)
    assert torch.equal(positive_pairs(users), positive_pairs(planted))


def moved_once(users):
    """All clusters that one move of one device, to any cluster or to a new one, makes."""
    found = []
    for device in range(len(users)):
        for label in [*users.unique().tolist(), int(users.max()) + 1]:
            found.append(users.clone())
            found[-1][device] = label
    return found


def assert_none_better(others, users, pairs, weights, missing):
    value = correlation_objective(users, pairs, weights, missing)
    best = max(correlation_objective(other, pairs, weights, missing) for other in others)
    assert best <= value + 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("missing", [0.0, -0.15])
def test_no_move_and_no_join_adds_anything(seed, missing):
    pairs, weights = sampled(18, seed, share=0.5)
    users = correlation_clustering(18, pairs, weights, missing)
    changed = moved_once(users)
    for a in range(int(users.max()) + 1):
        changed += [users.where(users != a, b) for b in range(a)]
    assert_none_better(changed, users, pairs, weights, missing)


@pytest.mark.parametrize("seed", range(6))
def test_moves_alone_go_on_until_none_adds_anything(seed):
    pairs, weights = sampled(18, seed, share=0.5)
    labels = [0] * 9 + [1] * 9
    assert move_devices(adjacency(18, pairs, weights + 0.2), labels, -0.2, 0.0)
    users = torch.tensor(labels)
    assert_none_better(moved_once(users), users, pairs, weights, -0.2)


def test_moves_mend_what_contraction_alone_gets_wrong():
    better = 0
    for seed in range(30):
        pairs, weights = sampled(7, seed, share=1.0)
        alone = torch.arange(7)
        contracted = correlation_objective(joined(alone, pairs, weights, 0.0, 0.0), pairs, weights)
        value = correlation_objective(correlation_clustering(7, pairs, weights), pairs, weights)
        assert value >= contracted - 1e-12
        better += value > contracted + 1e-9
    assert better > 0


def slow_contraction(n, pairs, weights, missing):
    """Greedy contraction by looking at all pairs of clusters for each join."""
    clusters = [{i} for i in range(n)]
    matrix = torch.full((n, n), missing, dtype=torch.float64)
    matrix[pairs[:, 0], pairs[:, 1]] = weights
    matrix[pairs[:, 1], pairs[:, 0]] = weights
    while len(clusters) > 1:
        gains = {
            (a, b): float(matrix[list(clusters[a])][:, list(clusters[b])].sum())
            for a in range(len(clusters))
            for b in range(a)
        }
        (a, b), gain = max(gains.items(), key=lambda item: item[1])
        if gain <= 0:
            break
        clusters[b] |= clusters.pop(a)
    return {frozenset(c) for c in clusters}


@pytest.mark.parametrize("missing", [0.0, -0.2])
@pytest.mark.parametrize("n", [2, 9, 20])
def test_the_heap_joins_what_a_search_of_all_clusters_joins(n, missing):
    for seed in range(5):
        pairs, weights = sampled(n, seed, share=0.6)
        joins = contract(adjacency(n, pairs, weights - missing), [1] * n, missing, 0.0)
        clusters = {i: {i} for i in range(n)}
        for kept, gone in joins:
            clusters[kept] |= clusters.pop(gone)
        found = {frozenset(c) for c in clusters.values()}
        assert found == slow_contraction(n, pairs, weights, missing)


def test_order_of_pairs_and_scale_of_weights_do_not_matter():
    pairs, weights = sampled(40, seed=3, share=0.2)
    users = correlation_clustering(40, pairs, weights, -0.1)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))
    assert torch.equal(users, correlation_clustering(40, pairs[order], weights[order], -0.1))
    assert torch.equal(users, correlation_clustering(40, pairs, weights * 2.0**30, -0.1 * 2.0**30))
    assert 1 < int(users.max()) < 39
    first = list(dict.fromkeys(users.tolist()))
    assert first == sorted(first)  # numbered by first devices


def test_positive_weights_alone_give_components_and_negative_ones_nothing():
    pairs, weights = sampled(50, seed=1, share=0.03)
    components = connected_components(50, pairs)
    assert torch.equal(correlation_clustering(50, pairs, weights.abs() + 0.01), components)
    assert correlation_clustering(50, pairs, -weights.abs()).tolist() == list(range(50))
    assert int(components.max()) < 49


def test_a_weight_for_missing_pairs_breaks_chains():
    chain = torch.tensor([[0, 1], [1, 2], [2, 3]])
    weights = torch.tensor([2.0, 1.0, 2.0])
    assert correlation_clustering(4, chain, weights).tolist() == [0, 0, 0, 0]
    assert correlation_clustering(4, chain, weights, missing=-1.0).tolist() == [0, 0, 1, 1]
    assert correlation_objective(torch.tensor([0, 0, 1, 1]), chain, weights, -1.0) == 4
    assert correlation_objective(torch.zeros(4, dtype=torch.int64), chain, weights, -1.0) == 2


def test_no_devices_no_pairs():
    assert correlation_clustering(0, NONE, torch.zeros(0)).tolist() == []
    assert correlation_clustering(3, NONE, torch.zeros(0), -1.0).tolist() == [0, 1, 2]
    assert correlation_objective(torch.arange(3), NONE, torch.zeros(0), -1.0) == 0
    with pytest.raises(ValueError, match="clusters: expected int64 of shape"):
        correlation_objective(torch.zeros(3), NONE, torch.zeros(0))


@pytest.mark.parametrize(
    ("weights", "missing", "error", "message"),
    [
        (torch.tensor([1, 2]), 0.0, TypeError, "weights: expected floating point"),
        (torch.zeros(3), 0.0, ValueError, r"weights: .*2 pairs, got shape \(3,\)"),
        (torch.tensor([0.0, torch.nan]), 0.0, ValueError, "weights: 1 of 2 are NaN"),
        (torch.tensor([0.0, 1.0]).logit(), 0.0, ValueError, "weights: .*clamp"),
        (torch.zeros(2), 0.5, ValueError, "missing: .*got 0.5"),
        (torch.zeros(2), -float("inf"), ValueError, "missing: .*got -inf"),
        (torch.zeros(2), float("nan"), ValueError, "missing: .*got nan"),
    ],
)
def test_wrong_weights_are_refused(weights, missing, error, message):
    pairs = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(error, match=message):
        correlation_clustering(3, pairs, weights, missing)
    with pytest.raises(error, match=message):
        correlation_objective(torch.zeros(3, dtype=torch.int64), pairs, weights, missing)
