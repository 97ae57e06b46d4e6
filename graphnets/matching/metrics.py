"""How well scores tell the pairs of one user from the others: curves, thresholds, P, R and F1.

A true pair that never became a candidate has no score, and yet counts: it is `missed`, below every
threshold, in the recall of all functions here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor


class Scores(NamedTuple):
    """Precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float

    @classmethod
    def of(cls, precision: float, recall: float) -> Scores:
        """With the F1 of a precision and a recall, which is 0 where both are."""
        total = precision + recall
        return cls(precision, recall, 2 * precision * recall / total if total else 0.0)

    @classmethod
    def of_counts(cls, true: float, found: float, positives: float) -> Scores:
        """From the numbers of true pairs among those found, of pairs found, and of true pairs.

        Precision is 0 where nothing is found, as with `zero_division=0` of scikit-learn; recall
        and F1 are NaN where nothing is to be found.
        """
        recall = true / positives if positives else float("nan")
        return cls.of(true / found if found else 0.0, recall)


class PrecisionRecall(NamedTuple):
    """Precision and recall of the pairs with a score of at least each threshold."""

    thresholds: Tensor  # (t,) rising, in the dtype of the scores
    precision: Tensor  # (t,) float64
    recall: Tensor  # (t,) float64, falling


def precision_recall(scores: Tensor, labels: Tensor, missed: float = 0) -> PrecisionRecall:
    """Precision and recall at every threshold that makes a difference.

    Pairs of equal score are found together. Equivalent to
    `sklearn.metrics.precision_recall_curve` without its last point, (1, 0), which no threshold has.

    Args:
        scores: (k,) floating point; higher is more alike.
        labels: (k,) bool, whether both devices of a pair are one user's.
        missed: number of true pairs that have no score.

    Raises:
        TypeError: scores are not floating point, or labels not bool.
        ValueError: shapes differ, a score is NaN, missed is negative, or no pair is true.
    """
    ranking = Ranking.of(scores, labels)
    positives = ranking.positives(missed)
    true, found = ranking.counts()
    return PrecisionRecall(
        ranking.thresholds.flip(0), (true / found).flip(0), (true / positives).flip(0)
    )


def average_precision(scores: Tensor, labels: Tensor, missed: float = 0) -> float:
    """The area under the steps of precision over recall, `sum_t (R_t - R_(t-1)) P_t`.

    Equivalent to `sklearn.metrics.average_precision_score` of the pairs and, below them, of the
    missed ones, which are never found. Arguments and errors are those of `precision_recall`.
    """
    ranking = Ranking.of(scores, labels)
    return ranking.average_precision(ranking.positives(missed))


def pair_scores(scores: Tensor, labels: Tensor, threshold: float, missed: float = 0) -> Scores:
    """Precision, recall and F1 of the pairs with a score of at least `threshold`.

    Precision is 0 where there are none. Arguments and errors are those of `precision_recall`.
    """
    check(scores, labels)
    found = scores >= threshold
    return Scores.of_counts(
        int((found & labels).sum()), int(found.sum()), positives(labels, missed)
    )


def best_threshold(scores: Tensor, labels: Tensor, missed: float = 0) -> float:
    """The threshold of the highest F1, and of several the highest; to be chosen on validation data.

    It is one of the scores. On the pairs that it was chosen on its F1 is optimistic. Arguments and
    errors are those of `precision_recall`.

    Raises:
        ValueError: no pair with a score is true, so that no threshold is better than another.
    """
    ranking = Ranking.of(scores, labels)
    if not bool(labels.any()):
        raise ValueError(
            f"labels: none of {len(labels)} pairs is true, so that every threshold has an F1 of 0; "
            "choose it on pairs some of which are"
        )
    true, found = ranking.counts()
    return float(ranking.thresholds[(2 * true / (found + ranking.positives(missed))).argmax()])


@dataclass(frozen=True, eq=False)
class Ranking:
    """Pairs from the highest score to the lowest, sorted once for many weightings of them.

    Attributes:
        order: (k,) int64, numbers of the pairs.
        labels: (k,) bool in this order, whether they are true.
        ends: (t,) int64, the places where pairs of one score end.
        thresholds: (t,) falling, these scores.
    """

    order: Tensor
    labels: Tensor
    ends: Tensor
    thresholds: Tensor

    @classmethod
    def of(cls, scores: Tensor, labels: Tensor) -> Ranking:
        """The pairs with these scores (k,) floating point and labels (k,) bool.

        Raises:
            TypeError, ValueError: as `precision_recall`.
        """
        check(scores, labels)
        ranked, order = scores.detach().sort(descending=True, stable=True)
        last = torch.ones_like(labels)
        last[:-1] = ranked[1:] != ranked[:-1]
        ends = last.nonzero()[:, 0]
        return cls(order, labels[order], ends, ranked[ends])

    def positives(self, missed: float = 0) -> float:
        """The number of true pairs, with those that have no score.

        Raises:
            ValueError: there is none, or `missed` is negative.
        """
        return positives(self.labels, missed)

    def counts(self, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """For each threshold the true pairs found and all pairs found, (t,) float64.

        weights: (k,) float64 how often each pair counts, in the order that the scores came in.
        """
        ones = torch.ones(len(self.order), dtype=torch.float64, device=self.order.device)
        weight = ones if weights is None else weights[self.order]
        return (weight * self.labels).cumsum(0)[self.ends], weight.cumsum(0)[self.ends]

    def average_precision(self, positives: float, weights: Tensor | None = None) -> float:
        """`average_precision` with weights as in `counts`; NaN where nothing is to be found."""
        true, found = self.counts(weights)
        steps = true.diff(prepend=true.new_zeros(1))
        area = steps * true / found.where(found > 0, 1)
        return float(area.sum()) / positives if positives else float("nan")


def positives(labels: Tensor, missed: float) -> float:
    """The number of true pairs: those labelled so, and those missed.

    Raises:
        ValueError: there is none, or `missed` is negative or not finite.
    """
    if not (isfinite(missed) and missed >= 0):
        raise ValueError(f"missed: expected a number of pairs of at least 0, got {missed}")
    count = int(labels.sum()) + missed
    if not count:
        raise ValueError(
            f"labels: none of {len(labels)} pairs is true and none is missed, so that recall is "
            "not defined; measure on users that have several devices"
        )
    return count


def check(scores: Tensor, labels: Tensor) -> None:
    """Raise TypeError or ValueError unless these are scores and labels of the same pairs."""
    if not scores.is_floating_point():
        raise TypeError(f"scores: expected floating point, got {scores.dtype}")
    if labels.dtype != torch.bool:
        raise TypeError(f"labels: expected bool, got {labels.dtype}; labels > 0 makes them so")
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(
            f"scores, labels: expected one of each for every pair, both of shape (k,), got shapes "
            f"{tuple(scores.shape)} and {tuple(labels.shape)}"
        )
    if bool(scores.isnan().any()):
        raise ValueError(
            f"scores: {int(scores.isnan().sum())} of {len(scores)} are NaN; a pair that has no "
            "score is to be left out and counted in missed, if it is true"
        )
