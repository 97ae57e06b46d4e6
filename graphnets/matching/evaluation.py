"""How well a trained matcher does on logs of other people, from candidates to users."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.candidates import Candidates
from graphnets.matching.cluster_metrics import b_cubed, cluster_pair_scores
from graphnets.matching.correlation import correlation_clustering
from graphnets.matching.devices import Devices
from graphnets.matching.expansion import expanded
from graphnets.matching.lightning import PairMatcher
from graphnets.matching.logs import Logs
from graphnets.matching.metrics import Scores, average_precision, best_threshold, pair_scores
from graphnets.matching.neighbours import nearest
from graphnets.matching.pairs import positive_pairs, same_user
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.tasks import (
    TASKS,
    Decision,
    Task,
    task_logs,
    task_pair_count,
    task_pairs,
    task_positives,
    task_vocabulary,
)
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.vocabulary import Vocabulary

NEAREST = 18  # candidates of a device, of each source; as in the protocol of CIKM Cup 2016
ALL_PAIRS_UP_TO = 2_000_000  # of 2,000 devices: where there are more, candidates alone are scored
Which = Literal["auto", "all", "candidates"]


def evaluate(
    module: PairMatcher, logs: Logs, min_visits: int | None = None, scored: Which = "auto"
) -> dict[str, Any]:
    """Metrics of the tasks of `graphnets.matching.tasks`; nothing is trained.

    Pairs with a device whose user is not known are scored, and left out of all metrics.

    Args:
        module: trained, see `graphnets.matching.lightning.load_matcher`.
        logs: of people whose devices are known, `users`.
        min_visits: of a week; what the matcher was trained with when not given, 20 where an older
            checkpoint does not know.
        scored: "all" pairs, as published tables have it, or "candidates" alone: true pairs that are
            none are then missed in every metric; "auto" scores all pairs up to `ALL_PAIRS_UP_TO`.

    Returns:
        For each task the numbers of devices, pairs and true pairs, what was "scored" ("all" or
        "candidates"), average precision over these pairs, with precision, recall and F1 of what the
        checkpoint's decision calls true ("f1"), and the best F1 with a threshold chosen on these
        very pairs ("f1_optimistic"); "candidates": the same of candidate pairs alone, where true
        pairs that are no candidates are missed; "pairs_per_second", which counts everything from
        the logs to the scores but the search for candidates; and, if the checkpoint decides,
        "stages", see `stages`, and "users", what `linked` makes of the pairs. Of a task without a
        true pair only "devices", and "note", which says so.

    Raises:
        ValueError: no user has two devices, `scored` is none of these, or the logs' prefixes have
            other levels than those that the matcher was trained on.

    Warns:
        UserWarning: the matcher was trained on some of these devices; there are far fewer or more
            of them than its decisions were fitted to.
    """
    if scored not in get_args(Which):
        raise ValueError(f"scored: expected one of {get_args(Which)}, got {scored!r}")
    module.check_levels(logs.pages.prefixes.shape[1])
    module.eval()
    seen = module.trained_on(logs)
    if seen:
        warnings.warn(
            f"logs: the matcher was trained on {seen} of these {len(logs)} devices, and knows them",
            stacklevel=2,
        )
    least = module.min_visits if min_visits is None else min_visits
    found = {task: _task(module, logs, task, least, scored) for task in TASKS}
    if all("note" in metrics for metrics in found.values()):
        raise ValueError(f"logs: {found['A']['note']}")
    return found


@dataclass(frozen=True, eq=False)
class TaskScores:
    """A task's pairs with their scores.

    Attributes:
        logs: of the task's devices.
        n_pairs: that the task asks about.
        positives: how many of these are one user's.
        pairs: (k, 2) int64, all of them or the candidates.
        scores: (k,) float32.
        near: (k,) bool, whether they are candidates.
        scored: "all" or "candidates".
        seconds: from the logs to the scores, without the search for candidates.
    """

    logs: Logs
    n_pairs: int
    positives: int
    pairs: Tensor
    scores: Tensor
    near: Tensor
    scored: str
    seconds: float

    def metrics(self, chosen: Tensor, decision: Decision | None) -> dict[str, Any]:
        """Of pairs chosen by (k,) bool, those of unknown users left out; others are missed."""
        users = self.logs.users[self.pairs]
        kept = chosen & (users >= 0).all(1)
        scores, labels = self.scores[kept], same_user(self.logs.users, self.pairs[kept])
        missed = self.positives - int(labels.sum())
        found: dict[str, Any] = {
            "pairs": len(scores),
            "true_pairs": self.positives,
            "average_precision": average_precision(scores, labels, missed),
        }
        if decision is not None:
            called = decision.decide(scores, len(self.logs), self.n_pairs)
            true = int((called & labels).sum())
            found |= Scores.of_counts(true, int(called.sum()), self.positives)._asdict()
        if bool(labels.any()):
            best = best_threshold(scores, labels, missed)
            found["f1_optimistic"] = pair_scores(scores, labels, best, missed).f1
        return found


def _task(
    module: PairMatcher, logs: Logs, task: Task, min_visits: int, scored: Which
) -> dict[str, Any]:
    own = task_logs(logs, task, min_visits)
    if not len(task_positives(own, task)):
        note = f"task {task} has no pair of one user's devices among {len(own)}"
        return {"devices": len(own), "note": note}
    decision = module.decisions.get(task)
    if decision is not None and not decision.fits(len(own)):
        warnings.warn(
            f"logs: task {task} has {len(own)} devices, and the decision was fitted to sets of "
            f"{decision.devices}; scores that compare pairs with neighbours mean something else "
            "there, so that the threshold does not suit them",
            stacklevel=3,
        )
    known = task_vocabulary(logs, task, min_visits, module.frequencies)
    task_scores = score_task(module, own, task, known, scored)
    labels, near = same_user(own.users, task_scores.pairs), task_scores.near
    found = {
        "devices": len(own),
        "scored": task_scores.scored,
        **task_scores.metrics(torch.ones_like(near), decision),
        "pairs_per_second": len(near) / task_scores.seconds,
        "candidates": {
            "candidate_recall": int(labels[near].sum()) / task_scores.positives,
            **task_scores.metrics(near, decision),
        },
    }
    if decision is not None:
        weights = decision.weights(task_scores.scores, len(own), task_scores.n_pairs)
        clusters = linked(len(own), task_scores.pairs, weights, near)
        missed = task_scores.positives - int(labels.sum())
        ends = clusters[task_scores.pairs]
        found["stages"] = stages(labels, near, weights > 0, ends, missed)
        found["users"] = _users(own, clusters)
    return found


def score_task(
    module: PairMatcher, logs: Logs, task: Task, known: Vocabulary, scored: Which
) -> TaskScores:
    """The scores of a task's devices `logs`, by the log-odds of both matchers, if it has two."""
    n_pairs, positives = task_pair_count(logs, task), len(task_positives(logs, task))
    if scored == "auto":
        scored = "all" if n_pairs <= ALL_PAIRS_UP_TO else "candidates"
    started = time.perf_counter()
    devices = encode_devices(module.matcher, logs, known, module.token_vectors(known))
    seconds = time.perf_counter() - started
    near = candidates(logs, devices, task)
    pairs = task_pairs(logs, task) if scored == "all" else near.pairs
    started = time.perf_counter()
    scores = score_pairs(module.matcher, devices, pairs) + module.linear_scores(logs, pairs, task)
    seconds += time.perf_counter() - started
    chosen = near.contain(pairs)
    return TaskScores(logs, n_pairs, positives, pairs, scores, chosen, scored, seconds)


def linked(n_devices: int, pairs: Tensor, weights: Tensor, near: Tensor) -> Tensor:
    """The user of each device, (n_devices,) int64, by correlation clustering of candidate pairs.

    Those below the threshold speak against a user, and pairs that are no candidates are no link.

    Args:
        n_devices: how many devices there are.
        pairs: (k, 2) int64.
        weights: (k,), above 0 for what is called true, such as `Decision.weights`.
        near: (k,) bool, which pairs are candidates; others have no say.
    """
    return correlation_clustering(n_devices, pairs[near], weights[near])


def stages(
    labels: Tensor, near: Tensor, called: Tensor, clusters: Tensor, missed: int = 0
) -> dict[str, float]:
    """Which share of the true pairs is left after each stage, of those left by the one before.

    See `graphnets.matching.plot.plot_stages`. True pairs that clusters join though they are not
    called true are not among them; `cluster_pair_scores` counts these, too.

    Args:
        labels: (k,) bool, whether pairs are true, some of them.
        near: (k,) bool, whether they are candidates.
        called: (k,) bool, whether the matcher calls them true.
        clusters: (k, 2) int64, of both devices.
        missed: true pairs that are not among these.
    """
    masks = {
        "candidates": near,
        "called true": called,
        "one user": clusters.diff(dim=1)[:, 0] == 0,
    }
    left, found = labels, {"true pairs": 1.0}
    for name, mask in masks.items():
        left = left & mask
        found[name] = int(left.sum()) / (int(labels.sum()) + missed)
    return found


def candidates(logs: Logs, devices: Devices | None, task: Task, k: int = NEAREST) -> Candidates:
    """Each device's nearest by TF-IDF, and by the matcher's own vectors if it has any.

    Of either kind of devices that the task asks about, and once more by vectors to which those of a
    device's own neighbours are added.
    """
    kinds = ("same", "other") if task == "B" else ("other",)
    sparse = {"TF-IDF": TfIdf(words=True).fit(logs).transform(logs)}
    if devices is not None and devices.weights.shape[1]:
        sparse["shared tokens"] = mean_weights(devices)
    sources = {}
    for name, vectors in sparse.items():
        few = nearest(vectors, 3, logs.kinds, "same")
        more = expanded(vectors, few)
        for kind in kinds:
            sources[f"{name}, {kind}"] = nearest(vectors, k, logs.kinds, kind)
            sources[f"{name}, {kind}, expanded"] = nearest(more, k, logs.kinds, kind)
    if devices is not None and devices.vectors.shape[1]:
        unit = torch.nn.functional.normalize(devices.vectors, dim=1)
        sources |= {f"vectors, {kind}": nearest(unit, k, logs.kinds, kind) for kind in kinds}
    return Candidates.from_neighbours(sources)


def mean_weights(devices: Devices) -> sp.csr_array:
    """The mean over heads of the devices' weights of tokens, of unit rows, (n, n_tokens)."""
    mean = devices.weights.mean(1)
    row = devices.tokens.row
    norm = mean.new_zeros(len(devices)).index_add(0, row, mean.square()).sqrt()
    values = (mean / norm.clamp(min=1e-12)[row]).cpu().numpy()
    tokens, ptr = devices.tokens.values.cpu().numpy(), devices.tokens.ptr.cpu().numpy()
    width = int(tokens.max()) + 1 if len(tokens) else 1
    return sp.csr_array((values, tokens, ptr), shape=(len(devices), width))


def _users(logs: Logs, clusters: Tensor) -> dict[str, Any]:
    return {
        "clusters": int(clusters.max()) + 1,
        "true_users": len(logs.users[logs.users >= 0].unique()),
        "true_pairs": len(positive_pairs(logs.users)),
        "b_cubed": b_cubed(clusters, logs.users)._asdict(),
        "pairs": cluster_pair_scores(clusters, logs.users)._asdict(),
    }
