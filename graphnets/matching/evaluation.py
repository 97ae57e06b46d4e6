"""How well a trained matcher does on logs of other people, from candidates to users."""

from __future__ import annotations

import time
import warnings
from typing import Any

import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.candidates import Candidates
from graphnets.matching.cluster_metrics import b_cubed, cluster_pair_scores
from graphnets.matching.correlation import correlation_clustering
from graphnets.matching.devices import Devices
from graphnets.matching.expansion import expanded
from graphnets.matching.lightning import PairMatcher
from graphnets.matching.logs import Logs, week_slices
from graphnets.matching.metrics import Scores, average_precision, best_threshold, pair_scores
from graphnets.matching.neighbours import nearest
from graphnets.matching.pairs import positive_pairs, same_user
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.tasks import TASKS, Decision, Task, task_logs, task_pairs
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.vocabulary import Vocabulary, vocabulary

NEAREST = 18  # candidates of a device, of each source; as in the protocol of CIKM Cup 2016


def evaluate(module: PairMatcher, logs: Logs, min_visits: int = 20) -> dict[str, Any]:
    """Metrics of the tasks of `graphnets.matching.tasks`; nothing is trained.

    Args:
        module: trained, see `graphnets.matching.lightning.load_matcher`.
        logs: of people whose devices are known, `users`.
        min_visits: of a week.

    Returns:
        For each task the numbers of devices, pairs and true pairs, average precision over all
        pairs, with precision, recall and F1 of what the checkpoint's decision calls true ("f1"),
        and the best F1 with a threshold chosen on these very pairs ("f1_optimistic"); "candidates":
        the same of candidate pairs alone, where true pairs that are no candidates are missed;
        "pairs_per_second", which counts everything from the logs to the scores; and, if the
        checkpoint decides, "stages", see `stages`, and "users", what correlation clustering makes
        of the pairs. Of a task without a true pair only "devices", and "note", which says so.

    Raises:
        ValueError: no user has two devices.

    Warns:
        UserWarning: the matcher was trained on some of these devices; there are far fewer or more
            of them than its decisions were fitted to.
    """
    module.eval()
    seen = module.trained_on(logs)
    if seen:
        warnings.warn(
            f"logs: the matcher was trained on {seen} of these {len(logs)} devices, and knows them",
            stacklevel=2,
        )
    known = vocabulary(week_slices(logs, min_visits), module.frequencies)
    found = {task: _task(module, logs, task, known, min_visits) for task in TASKS}
    if all("note" in metrics for metrics in found.values()):
        raise ValueError(f"logs: {found['A']['note']}")
    return found


def _task(
    module: PairMatcher, logs: Logs, task: Task, known: Vocabulary, min_visits: int
) -> dict[str, Any]:
    own = task_logs(logs, task, min_visits)
    pairs = task_pairs(own, task)
    labels = same_user(own.users, pairs)
    if not bool(labels.any()):
        note = f"task {task} has no pair of one user's devices among {len(own)}"
        return {"devices": len(own), "note": note}
    started = time.perf_counter()
    devices = encode_devices(module.matcher, own, known, module.token_vectors(known))
    scores = score_pairs(module.matcher, devices, pairs) + module.linear_scores(own, pairs, task)
    seconds = time.perf_counter() - started
    near = candidates(own, devices, task)
    chosen = near.contain(pairs)
    missed = int(labels[~chosen].sum())
    decision = module.decisions.get(task)
    if decision is not None and not decision.fits(len(own)):
        warnings.warn(
            f"logs: task {task} has {len(own)} devices, and the decision was fitted to sets of "
            f"{decision.devices}; scores that compare pairs with neighbours mean something else "
            "there, so that the threshold does not suit them",
            stacklevel=3,
        )
    found = {
        "devices": len(own),
        **_metrics(scores, labels, decision, len(own), len(pairs)),
        "pairs_per_second": len(pairs) / seconds,
        "candidates": {
            "candidate_recall": float(chosen[labels].double().mean()),
            **_metrics(scores[chosen], labels[chosen], decision, len(own), len(pairs), missed),
        },
    }
    if decision is not None:
        called = torch.zeros_like(labels)
        called[chosen] = decision.decide(scores[chosen], len(own), len(pairs))
        weights = decision.weights(scores, len(own), len(pairs))
        clusters = correlation_clustering(len(own), pairs, weights)
        found["stages"] = stages(labels, chosen, called, clusters[pairs])
        found["users"] = _users(own, clusters)
    return found


def stages(labels: Tensor, near: Tensor, called: Tensor, clusters: Tensor) -> dict[str, float]:
    """Which share of the true pairs each stage finds; see `graphnets.matching.plot.plot_stages`.

    Args:
        labels: (k,) bool, whether pairs are true, some of them.
        near: (k,) bool, whether they are candidates.
        called: (k,) bool, whether they are candidates that the matcher calls true.
        clusters: (k, 2) int64, of both devices; they may join what no pair says.
    """
    found = {
        "candidates": near,
        "called true": called,
        "one user": clusters.diff(dim=1)[:, 0] == 0,
    }
    return {"true pairs": 1.0} | {
        name: float(mask[labels].double().mean()) for name, mask in found.items()
    }


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


def _metrics(
    scores: Tensor,
    labels: Tensor,
    decision: Decision | None,
    n_devices: int,
    n_pairs: int,
    missed: int = 0,
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "pairs": len(scores),
        "true_pairs": int(labels.sum()) + missed,
        "average_precision": average_precision(scores, labels, missed),
    }
    if decision is not None:
        chosen = decision.decide(scores, n_devices, n_pairs)
        true = int((chosen & labels).sum())
        result = Scores.of_counts(true, int(chosen.sum()), int(labels.sum()) + missed)
        found |= result._asdict()
    if bool(labels.any()):
        best = best_threshold(scores, labels, missed)
        found["f1_optimistic"] = pair_scores(scores, labels, best, missed).f1
    return found


def _users(logs: Logs, clusters: Tensor) -> dict[str, Any]:
    return {
        "clusters": int(clusters.max()) + 1,
        "true_users": len(logs.users.unique()),
        "true_pairs": len(positive_pairs(logs.users)),
        "b_cubed": b_cubed(clusters, logs.users)._asdict(),
        "pairs": cluster_pair_scores(clusters, logs.users)._asdict(),
    }
