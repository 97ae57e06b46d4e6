import math

import pytest
import torch

from graphnets.matching.bootstrap import bootstrap, cluster_statistic, pair_statistic
from graphnets.matching.cluster_metrics import b_cubed, cluster_pair_scores
from graphnets.matching.metrics import average_precision, pair_scores
from graphnets.matching.pairs import all_pairs, keys, positive_pairs, same_user


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def problem():
    """Users of 30 devices, one of them unknown; scored candidates; true pairs that are none."""
    users = torch.arange(30) // 3
    users[7] = -1
    pairs = all_pairs(30)
    kept = torch.rand(len(pairs), generator=seeded(1)) < 0.6
    missed = pairs[~kept & same_user(users, pairs)]
    pairs = pairs[kept]
    scores = same_user(users, pairs) + torch.randn(len(pairs), generator=seeded(2))
    return users, pairs, scores.round(decimals=1), missed


def copied(users, pairs, scores, missed, times):
    """Scores and labels of a data set in which users come several times, pair by pair."""
    copies = [(i, c) for i, t in enumerate(times.tolist()) for c in range(int(t))]
    place = {int(k): s for k, s in zip(keys(pairs, len(users)), scores.tolist())}
    gone = set(keys(missed, len(users)).tolist())
    found, labels, lost = [], [], 0
    for a, (i, c) in enumerate(copies):
        for j, d in copies[a + 1 :]:
            same = bool(users[i] == users[j] >= 0) or i == j
            if same and c != d:
                continue  # a user and its own copy
            key = min(i, j) * len(users) + max(i, j)
            if key in place:
                found.append(place[key])
                labels.append(same)
            lost += key in gone
    return torch.tensor(found), torch.tensor(labels), lost


def test_weights_are_those_of_a_data_set_with_copies_of_users(problem):
    users, pairs, scores, missed = problem
    drawn = torch.randint(0, 3, (11,), generator=seeded(4))
    times = drawn[users.where(users >= 0, 10)].double()
    found, labels, lost = copied(users, pairs, scores, missed, times)
    assert lost > 0
    metrics = dict(pair_statistic(users, pairs, scores, missed, threshold=0.8)(times))
    assert metrics.pop("average_precision") == pytest.approx(average_precision(found, labels, lost))
    assert metrics == pytest.approx(pair_scores(found, labels, 0.8, lost)._asdict())


def test_users_once_each_are_the_metrics_themselves(problem):
    users, pairs, scores, missed = problem
    once = torch.ones(30, dtype=torch.float64)
    labels = same_user(users, pairs)
    metrics = pair_statistic(users, pairs, scores, missed)(once)
    assert list(metrics) == ["average_precision"]
    assert metrics["average_precision"] == pytest.approx(
        average_precision(scores, labels, len(missed))
    )
    clusters = torch.randint(0, 12, (30,), generator=seeded(3))
    found = cluster_statistic(clusters, users)(once)
    by_device, by_pair = b_cubed(clusters, users), cluster_pair_scores(clusters, users)
    assert list(found.values()) == pytest.approx([*by_device, *by_pair])
    assert list(found) == [f"{a}_{b}" for a in ("b_cubed", "pair") for b in by_pair._fields]


def test_the_seed_decides(problem):
    users, pairs, scores, missed = problem
    statistic = pair_statistic(users, pairs, scores, missed, threshold=0.8)
    first = bootstrap(statistic, users, seeded(1), draws=50)
    assert first == bootstrap(statistic, users, seeded(1), draws=50)
    assert first != bootstrap(statistic, users, seeded(2), draws=50)
    assert set(first) == {"average_precision", "precision", "recall", "f1"}
    wide = bootstrap(statistic, users, seeded(1), draws=50, level=0.99)
    for name, (low, high, undefined) in first.items():
        assert wide[name].low <= low < high <= wide[name].high
        assert undefined == 0


def test_the_interval_of_a_mean_over_users_is_that_of_theory():
    users = torch.arange(400)
    values = torch.randn(400, generator=seeded(5), dtype=torch.float64)
    low, high, _ = bootstrap(
        lambda copies: {"mean": float((copies * values).mean())}, users, seeded(6), draws=4000
    )["mean"]
    deviation = float(values.std(correction=0)) / 20
    assert low == pytest.approx(float(values.mean()) - 1.96 * deviation, abs=0.1 * deviation)
    assert high == pytest.approx(float(values.mean()) + 1.96 * deviation, abs=0.1 * deviation)


def population(g):
    """Thirty users of one to seven devices, some easier to recognise than others: scored pairs."""
    users = torch.repeat_interleave(torch.randint(1, 8, (30,), generator=g))
    center = torch.randn(30, 8, generator=g) * 2 * torch.rand(30, 1, generator=g)
    x = torch.nn.functional.normalize(center[users] + torch.randn(len(users), 8, generator=g))
    pairs = all_pairs(len(users))
    return users, pairs, (x @ x.T)[pairs[:, 0], pairs[:, 1]]


def test_draws_of_users_vary_as_fresh_users_do_and_draws_of_pairs_do_not():
    g = seeded(9)
    fresh, by_users, by_pairs = [], [], []
    for repetition in range(240):
        users, pairs, scores = population(g)
        labels = same_user(users, pairs)
        fresh.append(average_precision(scores, labels))
        if repetition % 20:
            continue
        low, high, _ = bootstrap(pair_statistic(users, pairs, scores), users, g, 80, 0.68)[
            "average_precision"
        ]
        by_users.append((high - low) / 2)
        drawn = torch.randint(0, len(pairs), (25, len(pairs)), generator=g)
        values = torch.tensor([average_precision(scores[d], labels[d]) for d in drawn])
        by_pairs.append(float(values.std()))
    deviation = float(torch.tensor(fresh).std())
    assert sum(by_users) / 12 == pytest.approx(deviation, rel=0.25)
    assert sum(by_pairs) / 12 < 0.6 * deviation


def test_devices_of_one_user_come_together():
    users = torch.tensor([5, -1, 5, -1, 2, 5])
    seen = []

    def statistic(copies):
        seen.append(copies.tolist())
        return {"devices": float(copies.sum())}

    bootstrap(statistic, users, seeded(), draws=200)
    assert all(c[0] == c[2] == c[5] for c in seen)
    assert all(c[0] + c[1] + c[3] + c[4] == 4 for c in seen)  # four users, drawn four times
    assert any(c[1] != c[3] for c in seen)  # two unknown users are two


def test_draws_without_a_true_pair_are_left_out_and_counted():
    users = torch.tensor([0, 0, 1, 2])
    pairs = all_pairs(4)
    statistic = pair_statistic(users, pairs, -torch.arange(6.0))
    found = bootstrap(statistic, users, seeded(), draws=1000)["average_precision"]
    assert (found.low, found.high) == (1.0, 1.0)
    assert found.undefined == pytest.approx(1000 * (2 / 3) ** 3, abs=60)
    with pytest.raises(ValueError, match="'x' is NaN in all 3 draws"):
        bootstrap(lambda copies: {"x": math.nan}, users, seeded(), draws=3)


def test_wrong_arguments_are_refused(problem):
    users, pairs, scores, missed = problem
    statistic = pair_statistic(users, pairs, scores)
    for draws, level in ((0, 0.9), (10, 0), (10, 1)):
        with pytest.raises(ValueError, match=f"got {draws} and {level}"):
            bootstrap(statistic, users, seeded(), draws, level)
    with pytest.raises(ValueError, match="users: expected int64 of shape"):
        bootstrap(statistic, users[:0], seeded())
    with pytest.raises(ValueError, match=r"missed: .*\(0, 3\) is not"):
        pair_statistic(users, pairs, scores, torch.tensor([[0, 3]]))
    with pytest.raises(ValueError, match=r"missed: .*no candidates"):
        pair_statistic(users, pairs, scores, pairs[same_user(users, pairs)][:1])
    with pytest.raises(ValueError, match="pairs: expected each pair once"):
        pair_statistic(users, pairs[[0, 0]], scores[:2])
    with pytest.raises(ValueError, match="recall is not defined"):
        pair_statistic(torch.arange(30), pairs, scores)
    assert len(positive_pairs(users)) > len(missed) > 0
