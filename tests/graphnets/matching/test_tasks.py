import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.pairs import same_user
from graphnets.matching.tasks import Decision, task_logs, task_pairs


def test_tasks_differ_in_devices_and_pairs():
    logs = drawn_logs()
    whole, weeks = task_logs(logs, "A"), task_logs(logs, "B", min_visits=5)
    assert len(whole) == len(logs)
    assert len(weeks) > len(logs)
    assert len(task_pairs(weeks, "B")) == len(weeks) * (len(weeks) - 1) // 2
    cross = weeks.kinds[task_pairs(weeks, "B1")]
    assert bool((cross[:, 0] != cross[:, 1]).all())
    assert len(task_pairs(whole, "A")) == 9 * 9  # devices of either kind


def gaussians(n_true, n_false, seed=0):
    g = torch.Generator().manual_seed(seed)
    scores = torch.cat(
        [
            torch.randn(n_true, generator=g, dtype=torch.float64) + 3,
            torch.randn(n_false, generator=g, dtype=torch.float64),
        ]
    )
    labels = torch.arange(n_true + n_false) < n_true
    return scores, labels


def test_probabilities_follow_the_number_of_devices():
    # One true pair a device; of 4 times the devices, 16 times the pairs.
    scores, labels = gaussians(200, 20_000)
    decision = Decision.fit(scores, labels, n_devices=200)
    more, of_more = gaussians(800, 320_000, seed=1)
    found = decision.probabilities(more, 800, len(more))
    assert float(found.sum()) == pytest.approx(800, rel=0.15)
    still = Decision.fit(scores, labels, n_devices=200, shift=False)
    assert float(still.probabilities(more, 800, len(more)).sum()) > 1500  # as if it had stayed
    chosen = decision.decide(more, 800, len(more))
    true = int((chosen & of_more).sum())
    f1 = 2 * true / (int(chosen.sum()) + 800)
    best = max(
        2 * int((of_more & (more >= t)).sum()) / (int((more >= t).sum()) + 800)
        for t in torch.linspace(0, 6, 61)
    )
    assert f1 > best - 0.01


def test_weights_are_positive_for_the_pairs_called_true():
    scores, labels = gaussians(50, 500)
    decision = Decision.fit(scores, labels, 50)
    chosen = decision.decide(scores, 50, len(scores))
    assert torch.equal(decision.weights(scores, 50, len(scores)) > 0, chosen)


def test_strangers_are_called_strangers():
    scores, labels = gaussians(50, 500)
    for shift in (True, False):
        decision = Decision.fit(scores, labels, 50, shift)
        assert not bool(decision.decide(scores[~labels].sort().values[:400], 29, 406).any())
        found = decision.decide(scores, 50, len(scores))
        if not shift:  # each pair by itself
            alone = torch.cat([decision.decide(score[None], 2, 1) for score in scores])
            assert torch.equal(alone, found)
            assert torch.equal(found, scores >= decision.threshold)


def test_no_threshold_is_above_one_half():
    scores = torch.cat([torch.full((9,), 5.0), torch.linspace(-5, -2, 60)])
    decision = Decision.fit(scores, scores > 0, 12, shift=False)  # any between -2 and 5 is as good
    few = torch.tensor([4.0, 2.0, 1.0, -1.0, -3.0])
    probabilities = decision.probabilities(few, 12, 66)
    assert torch.equal(decision.decide(few, 12, 66), probabilities >= 0.5)


def test_scores_among_neighbours_suit_as_many_devices():
    scores, labels = gaussians(50, 500)
    decision = Decision.fit(scores, labels, 100, shift=False, sets=4)
    assert decision.devices == 25
    assert decision.partners == 0.5
    assert [decision.fits(n) for n in (8, 9, 25, 75, 76)] == [False, True, True, True, False]
    assert Decision.fit(scores, labels, 100).fits(10_000)


def test_labels_of_users():
    logs = drawn_logs()
    pairs = task_pairs(logs, "B")
    assert int(same_user(logs.users, pairs).sum()) == 6 * 3
