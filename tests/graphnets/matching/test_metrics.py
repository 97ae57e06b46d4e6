import math

import pytest
import torch

from graphnets.matching.metrics import (
    Scores,
    average_precision,
    best_threshold,
    pair_scores,
    precision_recall,
)


def tied(k, seed, share=0.3):
    """Scores of which many are equal, and labels of which the first is true."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, max(k // 3, 1), (k,), generator=g).double() / 7
    labels = torch.rand(k, generator=g) < share
    labels[0] = True
    return scores, labels


def brute_force(scores, labels, missed):
    """Precision and recall at every distinct score, by counting in Python."""
    s, y = scores.tolist(), labels.tolist()
    positives = sum(y) + missed
    curve = []
    for t in sorted(set(s)):
        found = [b for a, b in zip(s, y) if a >= t]
        curve.append((t, sum(found) / len(found), sum(found) / positives))
    return curve


@pytest.mark.parametrize("k", [1, 2, 3, 10, 63, 200])
@pytest.mark.parametrize("missed", [0, 4])
def test_curve_and_average_precision_are_those_of_counting(k, missed):
    scores, labels = tied(k, seed=k)
    curve = brute_force(scores, labels, missed)
    thresholds, precision, recall = precision_recall(scores, labels, missed)
    found = torch.stack([thresholds, precision, recall], 1)
    torch.testing.assert_close(found, torch.tensor(curve).double(), rtol=1e-6, atol=0)
    area, before = 0.0, 0.0
    for _, p, r in reversed(curve):
        area += (r - before) * p
        before = r
    assert average_precision(scores, labels, missed) == pytest.approx(area, rel=1e-12)


def test_the_example_of_scikit_learn():
    scores, labels = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]) > 0
    assert average_precision(scores, labels) == pytest.approx(0.8333333333333333)
    thresholds, precision, recall = precision_recall(scores, labels)
    assert thresholds.dtype == scores.dtype
    torch.testing.assert_close(thresholds, torch.tensor([0.1, 0.35, 0.4, 0.8]))
    torch.testing.assert_close(precision, torch.tensor([0.5, 2 / 3, 0.5, 1]).double())
    assert recall.tolist() == [1, 1, 0.5, 0.5]


def test_missed_pairs_count_as_pairs_that_come_last_and_are_never_found():
    scores, labels = tied(40, seed=1)
    thresholds, precision, recall = precision_recall(scores, labels)
    lower = precision_recall(scores, labels, missed=9)
    true = int(labels.sum())
    assert lower.precision.tolist() == precision.tolist()
    torch.testing.assert_close(lower.recall, recall * true / (true + 9))
    assert float(lower.recall.max()) < 1
    assert lower.thresholds.tolist() == thresholds.tolist()


def test_average_precision_is_the_share_of_true_pairs_where_all_scores_are_equal():
    labels = torch.arange(50) % 5 == 0
    assert average_precision(torch.zeros(50), labels) == pytest.approx(0.2)
    # -0 and 0 are equal, and infinite scores are scores
    assert average_precision(torch.tensor([-0.0, 0.0]), torch.tensor([True, False])) == 0.5
    infinite = torch.tensor([math.inf, math.inf, -math.inf])
    assert average_precision(infinite, torch.tensor([True, False, True])) == pytest.approx(7 / 12)


def test_average_precision_of_random_scores_comes_near_the_share_of_true_pairs():
    g = torch.Generator().manual_seed(0)
    labels = torch.rand(200_000, generator=g) < 0.06
    assert average_precision(torch.rand(200_000, generator=g), labels) == pytest.approx(
        0.06, abs=0.003
    )


@pytest.mark.parametrize("missed", [0, 11])
@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_is_better_than_the_best(seed, missed):
    scores, labels = tied(60, seed)
    best = best_threshold(scores, labels, missed)
    found = pair_scores(scores, labels, best, missed)
    others = {t: pair_scores(scores, labels, t, missed).f1 for t in scores.unique().tolist()}
    assert found.f1 == max(others.values())
    assert best == max(t for t, f1 in others.items() if f1 == found.f1)
    assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))


def test_the_best_threshold_of_float32_scores_finds_its_pair():
    scores, labels = torch.tensor([0.1, 0.7, 0.3]), torch.tensor([False, True, False])
    assert pair_scores(scores, labels, best_threshold(scores, labels)) == Scores(1.0, 1.0, 1.0)


def test_nothing_found_and_nothing_to_find():
    scores, labels = torch.tensor([0.1, 0.2]), torch.tensor([True, False])
    assert pair_scores(scores, labels, 0.5) == Scores(0.0, 0.0, 0.0)
    none = torch.zeros(0)
    assert average_precision(none, none > 0, missed=3) == 0
    assert pair_scores(none, none > 0, 0.5, missed=3) == Scores(0.0, 0.0, 0.0)
    assert len(precision_recall(none, none > 0, missed=3).thresholds) == 0
    with pytest.raises(ValueError, match="recall is not defined"):
        average_precision(scores, torch.tensor([False, False]))
    with pytest.raises(ValueError, match="none of 2 pairs is true, so that every threshold"):
        best_threshold(scores, torch.tensor([False, False]), missed=1)


@pytest.mark.parametrize(
    ("scores", "labels", "missed", "error", "message"),
    [
        (torch.tensor([1, 2]), torch.tensor([True, False]), 0, TypeError, "scores: .*int64"),
        (torch.zeros(2), torch.tensor([1, 0]), 0, TypeError, "labels: expected bool"),
        (torch.zeros(2), torch.tensor([True]), 0, ValueError, r"shapes \(2,\) and \(1,\)"),
        (torch.zeros(1, 1), torch.tensor([[True]]), 0, ValueError, "shape"),
        (torch.tensor([math.nan, 0]), torch.tensor([True, True]), 0, ValueError, "1 of 2 are NaN"),
        (torch.zeros(1), torch.tensor([True]), -1, ValueError, "missed: .*got -1"),
        (torch.zeros(1), torch.tensor([True]), math.nan, ValueError, "missed: .*got nan"),
    ],
)
def test_wrong_scores_are_refused(scores, labels, missed, error, message):
    for function in (average_precision, precision_recall, best_threshold):
        with pytest.raises(error, match=message):
            function(scores, labels, missed)
    with pytest.raises(error, match=message):
        pair_scores(scores, labels, 0.0, missed)
