import itertools

import pytest
import torch

from graphnets.matching.cluster_metrics import Overlaps, b_cubed, cluster_pair_scores
from graphnets.matching.metrics import Scores


def drawn(n, seed):
    g = torch.Generator().manual_seed(seed)
    clusters = torch.randint(0, max(n // 2, 1), (n,), generator=g) * 3
    users = torch.randint(-1, max(n // 2, 1), (n,), generator=g)
    users[:2] = 0
    return clusters, users


def device_scores(clusters, users):
    """B-cubed by its definition, one device after another."""
    c, u = clusters.tolist(), users.tolist()
    known = [i for i in range(len(u)) if u[i] >= 0]
    precision, recall = [], []
    for i in known:
        cluster = [j for j in known if c[j] == c[i]]
        user = [j for j in known if u[j] == u[i]]
        both = len(set(cluster) & set(user))
        precision.append(both / len(cluster))
        recall.append(both / len(user))
    return sum(precision) / len(known), sum(recall) / len(known)


def pair_counts(clusters, users):
    c, u = clusters.tolist(), users.tolist()
    pairs = list(itertools.combinations([i for i in range(len(u)) if u[i] >= 0], 2))
    found = {(i, j) for i, j in pairs if c[i] == c[j]}
    true = {(i, j) for i, j in pairs if u[i] == u[j]}
    return len(found & true), len(found), len(true)


@pytest.mark.parametrize("n", [2, 3, 7, 40, 150])
def test_scores_of_clusters_are_those_of_their_definitions(n):
    clusters, users = drawn(n, seed=n)
    precision, recall = device_scores(clusters, users)
    expected = (precision, recall, 2 * precision * recall / (precision + recall))
    assert tuple(b_cubed(clusters, users)) == pytest.approx(expected)
    both, found, true = pair_counts(clusters, users)
    expected = Scores.of(both / found if found else 0.0, both / true)
    assert tuple(cluster_pair_scores(clusters, users)) == pytest.approx(tuple(expected))


def test_the_ends_of_both_measures():
    users = torch.tensor([4, 4, 4, 7, 7, 9])
    assert b_cubed(users, users) == cluster_pair_scores(users, users) == Scores(1.0, 1.0, 1.0)
    alone = torch.arange(6)
    assert tuple(b_cubed(alone, users)) == pytest.approx((1, 1 / 2, 2 / 3))  # 3 users, 6 devices
    assert cluster_pair_scores(alone, users) == Scores(0.0, 0.0, 0.0)
    one = torch.zeros(6, dtype=torch.int64)
    assert tuple(b_cubed(one, users)) == pytest.approx((14 / 36, 1, 28 / 50))  # 9 + 4 + 1
    assert tuple(cluster_pair_scores(one, users)) == pytest.approx((4 / 15, 1, 8 / 19))


def test_devices_of_unknown_users_change_nothing():
    clusters, users = drawn(60, seed=3)
    known = users >= 0
    assert b_cubed(clusters, users) == b_cubed(clusters[known], users[known])
    assert cluster_pair_scores(clusters, users) == cluster_pair_scores(
        clusters[known], users[known]
    )


def test_copies_of_a_user_are_pairs_with_others_but_not_with_one_another():
    clusters, users = drawn(20, seed=5)
    users = users.clamp(min=0)
    times = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(0))[users]
    origin = torch.repeat_interleave(times)  # the device that each copy is of
    copy = torch.cat([torch.arange(t) for t in times.tolist()])
    true = found = positives = 0
    for a, b in itertools.combinations(range(len(origin)), 2):
        i, j = origin[[a, b]].tolist()
        if users[i] == users[j] and copy[a] != copy[b]:
            continue
        found += bool(clusters[i] == clusters[j])
        positives += bool(users[i] == users[j])
        true += bool(clusters[i] == clusters[j] and users[i] == users[j])
    scores = Overlaps.of(clusters, users).pairs(times.double())
    assert tuple(scores) == pytest.approx(tuple(Scores.of(true / found, true / positives)))


@pytest.mark.parametrize(
    ("clusters", "users", "message"),
    [
        ([0.0], [0], "clusters: expected int64"),
        ([0], [[0]], "users: expected int64"),
        ([0, 1], [0], "clusters: expected those of 1 devices"),
        ([-1, 0], [0, 0], "clusters: .*at least 0, got -1"),
        ([0, 1], [-1, -1], "users: none of 2"),
    ],
)
def test_wrong_clusters_are_refused(clusters, users, message):
    for function in (b_cubed, cluster_pair_scores):
        with pytest.raises(ValueError, match=message):
            function(torch.tensor(clusters), torch.tensor(users))


def test_no_devices_and_no_pairs_are_refused():
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="none of 0 devices"):
        b_cubed(none, none)
    with pytest.raises(ValueError, match="none has two devices"):
        cluster_pair_scores(torch.tensor([0, 0]), torch.tensor([0, 1]))
