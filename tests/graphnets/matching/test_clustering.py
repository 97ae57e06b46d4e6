import itertools

import pytest
import torch

from graphnets.matching.clustering import cap_degrees, connected_components, numbered_by_first
from graphnets.matching.pairs import all_pairs, canonical_pairs

NONE = torch.zeros(0, 2, dtype=torch.int64)


def random_pairs(n, k, seed):
    g = torch.Generator().manual_seed(seed)
    pairs = torch.randint(0, n, (k, 2), generator=g)
    return canonical_pairs(pairs[pairs[:, 0] != pairs[:, 1]], n), g


def one_by_one(pairs, scores, cap):
    """The greedy rule with nothing but a dictionary of degrees."""
    degree, kept = {}, set()
    for _, place in sorted((-float(s), p) for p, s in enumerate(scores)):
        i, j = pairs[place].tolist()
        if degree.get(i, 0) < cap and degree.get(j, 0) < cap:
            degree[i], degree[j] = degree.get(i, 0) + 1, degree.get(j, 0) + 1
            kept.add(place)
    return [p in kept for p in range(len(pairs))]


@pytest.mark.parametrize("cap", [1, 2, 5])
@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 20), (40, 150), (60, 63)])
def test_pairs_are_kept_from_the_best_on(n, k, cap):
    pairs, g = random_pairs(n, k, seed=k)
    pairs = pairs[torch.randperm(len(pairs), generator=g)]
    scores = torch.randint(0, 9, (len(pairs),), generator=g).float()  # many are equal
    kept = cap_degrees(pairs, scores, cap)
    assert kept.tolist() == one_by_one(pairs, scores, cap)
    degree = torch.bincount(pairs[kept].flatten(), minlength=n)
    assert int(degree.max()) <= cap
    full = (degree[pairs[~kept]] == cap).any(1)  # nothing more could be kept
    assert bool(full.all())


def test_a_cap_above_all_degrees_keeps_all_pairs():
    pairs = all_pairs(6)
    assert bool(cap_degrees(pairs, torch.zeros(15), 5).all())
    assert cap_degrees(NONE, torch.zeros(0), 1).tolist() == []


@pytest.mark.parametrize("seed", range(8))
def test_greedy_pairs_have_half_of_the_best_score_at_least(seed):
    g = torch.Generator().manual_seed(seed)
    pairs = all_pairs(5)
    scores = torch.rand(10, generator=g)
    for cap in (1, 2):
        best = 0.0
        for chosen in itertools.product([False, True], repeat=10):
            chosen = torch.tensor(chosen)
            if int(torch.bincount(pairs[chosen].flatten(), minlength=1).max()) <= cap:
                best = max(best, float(scores[chosen].sum()))
        assert float(scores[cap_degrees(pairs, scores, cap)].sum()) >= best / 2


def reachable(n, pairs):
    """The first device that each one can be reached from, by spreading the smaller number."""
    label = list(range(n))
    for _ in range(n):
        for i, j in pairs.tolist():
            label[i] = label[j] = min(label[i], label[j])
    return label


@pytest.mark.parametrize(("n", "k"), [(0, 0), (1, 0), (4, 0), (2, 1), (30, 20), (50, 60)])
def test_components_are_what_can_be_reached(n, k):
    pairs = random_pairs(n, k, seed=n)[0] if k else NONE
    users = connected_components(n, pairs)
    first = reachable(n, pairs)
    numbers = {device: number for number, device in enumerate(dict.fromkeys(first))}
    assert users.tolist() == [numbers[device] for device in first]
    assert users.dtype == torch.int64


def test_clusters_are_numbered_by_their_first_devices():
    assert numbered_by_first(torch.tensor([7, 2, 7, 9, 2])).tolist() == [0, 1, 0, 2, 1]
    assert numbered_by_first(torch.tensor([9, 2, 7, 9])).tolist() == [0, 1, 2, 0]
    assert numbered_by_first(torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_wrong_pairs_and_scores_are_refused():
    pairs = torch.tensor([[0, 1], [1, 2]])
    with pytest.raises(ValueError, match="pairs: expected devices from 0 to 1"):
        connected_components(2, pairs)
    with pytest.raises(ValueError, match="each pair once"):
        cap_degrees(pairs[[0, 0]], torch.zeros(2), 1)
    with pytest.raises(ValueError, match=r"cap: .*got nan"):
        cap_degrees(pairs, torch.zeros(2), float("nan"))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"cap: .*got 0"):
        cap_degrees(pairs, torch.zeros(2), 0)
    with pytest.raises(ValueError, match=r"scores: .*2 pairs, got shape \(3,\)"):
        cap_degrees(pairs, torch.zeros(3), 1)
    with pytest.raises(ValueError, match="scores: 1 of 2 are NaN"):
        cap_degrees(pairs, torch.tensor([0, torch.nan]), 1)
    with pytest.raises(TypeError, match="scores: expected floating point"):
        cap_degrees(pairs, torch.tensor([1, 2]), 1)
