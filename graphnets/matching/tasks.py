"""The tasks of the cross-device logs: which devices, which pairs of them, and how sure to be.

A: whole logs, a desktop with a mobile device. B: weeks of logs, all pairs. B1: weeks, pairs of
different kinds of devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from graphnets.matching.calibration import PlattScaling, shift_prior
from graphnets.matching.logs import Logs, week_slices
from graphnets.matching.metrics import best_threshold
from graphnets.matching.pairs import all_pairs

Task = Literal["A", "B", "B1"]
TASKS: tuple[Task, ...] = ("A", "B", "B1")


def task_logs(logs: Logs, task: Task, min_visits: int = 20) -> Logs:
    """The devices of a task: those with a visit, or weeks of at least `min_visits`."""
    if task == "A":
        return logs.select((logs.page.lengths > 0).nonzero()[:, 0])
    return week_slices(logs, min_visits)


def task_pairs(logs: Logs, task: Task) -> Tensor:
    """The pairs (k, 2) of a task's devices."""
    pairs = all_pairs(len(logs))
    if task == "B":
        return pairs
    first, second = logs.kinds[pairs].unbind(1)
    return pairs[first != second]


@dataclass(frozen=True)
class Decision:
    """From scores to probabilities and to a threshold, for any number of devices.

    The more devices, the smaller the share of true pairs among all. What stays is how many true
    partners a device has on average, so that probabilities are shifted to the share that follows,
    and the threshold is the one with the highest expected F1. No label of the pairs that are
    decided on is looked at. Scores that compare a pair with the neighbours of both devices fall by
    themselves where there are more devices; for them there is no shift.

    Attributes:
        slope, offset: of Platt's scaling.
        prior: the share of true pairs among those that it was fitted to.
        partners: true pairs for each device there.
        threshold: with the highest F1 there.
        shift: whether probabilities are shifted.
    """

    slope: float
    offset: float
    prior: float
    partners: float
    threshold: float
    shift: bool = True

    @classmethod
    def fit(cls, scores: Tensor, labels: Tensor, n_devices: int, shift: bool = True) -> Decision:
        """From scores (k,) of pairs of people that the matcher was not trained on, and labels."""
        platt = PlattScaling.fit(scores, labels)
        true = int(labels.sum())
        return cls(
            platt.slope,
            platt.offset,
            true / len(labels),
            true / n_devices,
            best_threshold(scores, labels),
            shift,
        )

    def probabilities(self, scores: Tensor, n_devices: int, n_pairs: int) -> Tensor:
        """That pairs are true, (k,) float64.

        Args:
            scores: (k,), of all pairs, or of candidates among them.
            n_devices: of the task.
            n_pairs: all pairs of these devices that the task asks about.
        """
        found = PlattScaling(self.slope, self.offset)(scores.double())
        if not self.shift:
            return found
        share = min(max(self.partners * n_devices / max(n_pairs, 1), 1e-9), 0.999)
        return shift_prior(found, self.prior, share)

    def decide(self, scores: Tensor, n_devices: int, n_pairs: int) -> Tensor:
        """Which pairs to call true, (k,) bool: those above the threshold of highest expected F1.

        Arguments are those of `probabilities`.
        """
        return expected_best(self.probabilities(scores, n_devices, n_pairs))

    def weights(self, scores: Tensor, n_devices: int, n_pairs: int) -> Tensor:
        """Log-odds less those of the least probable pair called true: weights for clustering.

        Arguments are those of `probabilities`.
        """
        odds = self.probabilities(scores, n_devices, n_pairs).logit(1e-9)
        chosen = expected_best(odds.sigmoid())
        return odds - odds[chosen].min() + 1e-3 if bool(chosen.any()) else odds


def expected_best(probabilities: Tensor) -> Tensor:
    """The most probable pairs, as many as make the expected F1 highest, (k,) bool.

    Expected true pairs over the mean of the pairs found and the pairs expected to be true.
    """
    if not len(probabilities):
        return torch.zeros(0, dtype=torch.bool)
    ranked, order = probabilities.sort(descending=True)
    found = torch.arange(1, len(ranked) + 1, dtype=ranked.dtype)
    best = int((2 * ranked.cumsum(0) / (found + ranked.sum())).argmax())
    chosen = torch.zeros(len(ranked), dtype=torch.bool)
    chosen[order[: best + 1]] = True
    return chosen
