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
from graphnets.matching.pairs import all_pairs, positive_pairs
from graphnets.matching.vocabulary import Frequencies, Vocabulary, vocabulary
from sparsetorch.checks import check_count

Task = Literal["A", "B", "B1"]
TASKS: tuple[Task, ...] = ("A", "B", "B1")


def task_logs(logs: Logs, task: Task, min_visits: int = 20) -> Logs:
    """The devices of a task: those with a visit, or weeks of at least `min_visits`."""
    if task == "A":
        return logs.select((logs.page.lengths > 0).nonzero()[:, 0])
    return week_slices(logs, min_visits)


def task_pairs(logs: Logs, task: Task) -> Tensor:
    """The pairs (k, 2) of a task's devices."""
    return _asked(logs, task, all_pairs(len(logs)))


def task_positives(logs: Logs, task: Task) -> Tensor:
    """Those of `task_pairs` that are one user's, (k, 2), found without all pairs."""
    return _asked(logs, task, positive_pairs(logs.users))


def task_pair_count(logs: Logs, task: Task) -> int:
    """The number of `task_pairs`, without them."""
    sizes = logs.kinds.unique(return_counts=True)[1]
    of_one_kind = 0 if task == "B" else int((sizes * (sizes - 1) // 2).sum())
    return len(logs) * (len(logs) - 1) // 2 - of_one_kind


def task_vocabulary(
    logs: Logs, task: Task, min_visits: int = 20, known: Frequencies | None = None
) -> Vocabulary:
    """The tokens of a task's devices, counted in weeks, as those of a matcher's training are.

    Whole logs (A) count in weeks of any number of visits: what devices share that are never used
    much would be lost among weeks of `min_visits`. A step from one week to the next is in neither.

    Args:
        logs: whole logs, of which `task_logs` makes the devices.
        task, min_visits: as there.
        known: frequencies of other devices' logs; see `vocabulary`.
    """
    return vocabulary(week_slices(logs, 1 if task == "A" else min_visits), known)


def _asked(logs: Logs, task: Task, pairs: Tensor) -> Tensor:
    if task == "B":
        return pairs
    first, second = logs.kinds[pairs].unbind(1)
    return pairs[first != second]


@dataclass(frozen=True)
class Decision:
    """From scores to probabilities and to a threshold, for any number of devices.

    The threshold is that of the highest F1 on the pairs that it was fitted to, or a probability of
    one half if that is lower: the best one is half the F1 (Z. Lipton, C. Elkan, B. Naryanaswamy,
    ECML 2014). Each pair is decided on by itself: where none is as probable, none is called true.

    The more devices, the smaller the share of true pairs among all. What stays is how many true
    partners a device has on average, so that probabilities are shifted to the share that follows,
    and the threshold with them. Scores that compare a pair with the neighbours of both devices fall
    by themselves where there are more devices; for them there is no shift, but they mean the same
    only among about as many devices: see `fits`.

    Attributes:
        slope, offset: of Platt's scaling.
        prior: the share of true pairs among those that it was fitted to.
        partners: true pairs for each device there.
        threshold: the lowest score of a pair called true there.
        shift: whether probabilities are shifted.
        devices: of a set that it was fitted to, on average; 0 where that is not known.
    """

    slope: float
    offset: float
    prior: float
    partners: float
    threshold: float
    shift: bool = True
    devices: int = 0

    def __post_init__(self) -> None:
        """Take plain numbers: a checkpoint with NumPy's in it would not be read."""
        for name in ("slope", "offset", "prior", "partners", "threshold"):
            object.__setattr__(self, name, float(getattr(self, name)))
        object.__setattr__(self, "shift", bool(self.shift))
        object.__setattr__(self, "devices", check_count("devices", self.devices, "devices", 0))

    @classmethod
    def fit(
        cls, scores: Tensor, labels: Tensor, n_devices: int, shift: bool = True, sets: int = 1
    ) -> Decision:
        """From scores (k,) of pairs of people that the matcher was not trained on, and labels.

        `n_devices` are those of all `sets`, within which the pairs are.
        """
        platt = PlattScaling.fit(scores, labels)
        true = int(labels.sum())
        return cls(
            platt.slope,
            platt.offset,
            true / len(labels),
            true / n_devices,
            best_threshold(scores, labels),
            shift,
            round(n_devices / sets),
        )

    def fits(self, n_devices: int) -> bool:
        """Whether scores among so many devices mean what they meant where it was fitted."""
        return self.shift or not self.devices or 1 / 3 <= n_devices / self.devices <= 3

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
        """Which pairs to call true, (k,) bool.

        Arguments are those of `probabilities`.
        """
        return self.weights(scores, n_devices, n_pairs) > 0

    def weights(self, scores: Tensor, n_devices: int, n_pairs: int) -> Tensor:
        """Log-odds less those of the threshold: weights for clustering, above 0 for true pairs.

        Arguments are those of `probabilities`.
        """
        odds = self.probabilities(scores, n_devices, n_pairs).logit(1e-9)
        # In the precision of the scores, of which the threshold is one.
        threshold = torch.tensor(self.threshold, dtype=scores.dtype).double()
        least = PlattScaling(self.slope, self.offset).log_odds(threshold)
        return odds - min(float(least), 0.0) + 1e-6
