"""Matching devices on real logs: every matcher on people that it was not trained on.

    python benchmarks/matching_xdt.py --data xdt.npz [--methods linear ...] [--seeds 3]

Users are split in five folds; each method is trained on four and scores all pairs of the fifth, for
the tasks of `graphnets.matching.tasks`. Each fold's threshold comes from the scores of the four
others, each by the matcher that had not seen it, though it had been trained on this fold's labels,
as on those of all folds but one: all scores are of unseen users, the threshold is not free of
theirs. Tokens and their frequencies are those of all logs' weeks of at least 20 visits (0.998 of
all visits), for task A, too; no label of a test user is used for them. Scores are kept as they come
in OUT, so that a stopped run goes on.

Writes OUT/table.md; OUT/intervals.md, average precision and differences of it, with intervals over
resampled users; OUT/users.md, how well clusters of candidates agree with users, with intervals;
OUT/decisions.json, see `graphnets.matching.tasks.Decision`; OUT/curves.png; and, for the last of
the methods, OUT/stages.png, which share of the true pairs is left after each stage.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from resumable import machine, markdown_table, write_whole
from torch import Tensor
from tqdm import tqdm

from graphnets.matching.bootstrap import (
    Statistic,
    bootstrap,
    cluster_statistic,
    pair_statistic,
)
from graphnets.matching.evaluation import candidates, linked, stages
from graphnets.matching.features import PairFeatures
from graphnets.matching.lightning import PairMatcher, linear_matcher, train
from graphnets.matching.logs import Logs
from graphnets.matching.metrics import Scores, average_precision, best_threshold, pair_scores
from graphnets.matching.pairs import same_user
from graphnets.matching.plot import plot_precision_recall, plot_stages
from graphnets.matching.rhythm import rhythm
from graphnets.matching.splits import user_folds
from graphnets.matching.tasks import TASKS, Decision, Task, task_logs, task_pairs
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.training.lightning import LogsDataModule
from graphnets.matching.xdt import load_xdt

FOLDS = 5
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)  # of the hours' cosine, beside that of TF-IDF
NETWORKS: dict[str, dict[str, Any]] = {
    "shared tokens": {"width": 0, "heads": ["shared"]},
    "neighbours": {"width": 0, "heads": ["shared"], "rounds": 2},
    "HGNN, neighbours": {"width": 32, "heads": ["shared"], "rounds": 2, "dropout": 0.3},
    "HGNN, shared tokens": {"width": 32, "heads": ["shared"], "dropout": 0.3},
    "HGNN, cross-attention": {"width": 32, "heads": ["cross", "pooled"], "vectors": 32},
    "HGNN, pooled": {"width": 32, "heads": ["pooled"], "vectors": 32},
    "TGCE": {"network": "tgce", "vectors": 64},
}
PLAIN = ("TF-IDF", "TF-IDF and hours", "linear")
SUMS = {"neighbours and linear": ("neighbours", "linear")}
CROWDED = ("linear", "neighbours", "HGNN, neighbours", "neighbours and linear")
"""What compares a pair with the neighbours of both devices."""
METHODS = (*PLAIN, *NETWORKS, *SUMS)
COMPARED = (
    ("HGNN, cross-attention", "HGNN, pooled"),
    ("HGNN, cross-attention", "TGCE"),
    ("HGNN, cross-attention", "TF-IDF and hours"),
    ("neighbours and linear", "linear"),
    ("neighbours and linear", "TF-IDF and hours"),
)
TITLES: dict[Task, str] = {
    "A": "a desktop and a mobile device",
    "B": "weeks of logs",
    "B1": "weeks on devices of different kinds",
}
DRAWS = 1000  # of users, for intervals
USERS: tuple[Task, ...] = ("A", "B")  # tasks whose pairs make users

Found = dict[tuple[str, int, int], dict[Task, Tensor]]
"""Scores by task, of each method, fold and seed."""


class Protocol:
    """The logs, the split and the pairs of each task."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.logs = load_xdt(path)
        self.fold = user_folds(self.logs.users, FOLDS, 0, self.logs.kinds)
        self.task_logs: dict[Task, Logs] = {task: task_logs(self.logs, task) for task in TASKS}
        self._near: dict[tuple[Task, int], Tensor] = {}

    def of_fold(self, task: Task, fold: int, held_out: bool = True) -> Tensor:
        """The devices of a task whose users are in a fold, or in the others."""
        logs = self.task_logs[task]
        return ((self.fold[logs.sources] == fold) == held_out).nonzero()[:, 0]

    def pairs(self, task: Task, devices: Tensor) -> Tensor:
        """Pairs of some of a task's devices, by their numbers there."""
        return devices[task_pairs(self.task_logs[task].select(devices), task)]

    def near(self, task: Task, fold: int) -> Tensor:
        """Which of a fold's pairs are candidates, the nearest by TF-IDF, (k,) bool."""
        if (task, fold) not in self._near:
            own = self.task_logs[task].select(self.of_fold(task, fold))
            found = candidates(own, None, task).contain(task_pairs(own, task))
            self._near[task, fold] = found
        return self._near[task, fold]

    def labels(self, task: Task, pairs: Tensor) -> Tensor:
        """Whether pairs are one user's."""
        return same_user(self.task_logs[task].users, pairs)


def scores_of(
    protocol: Protocol, method: str, fold: int, seed: int, steps: int
) -> dict[Task, Tensor]:
    """Scores of a fold's pairs by a method that was trained on the other folds."""
    if method in NETWORKS:
        return _network(protocol, method, fold, seed, steps)
    return {task: _plain(protocol, task, method, fold) for task in TASKS}


def _network(
    protocol: Protocol, method: str, fold: int, seed: int, steps: int
) -> dict[Task, Tensor]:
    options = NETWORKS[method]
    torch.manual_seed(seed)
    data = LogsDataModule(
        str(protocol.path),
        FOLDS,
        fold,
        episodes=steps,
        seed=seed,
        vectors=options.get("vectors", 0),
        negatives=8 if "cross" in options.get("heads", ()) else 0,
        transductive=True,  # as for all methods here: see the page
    )
    module = PairMatcher(**options)
    train(module, data)
    found: dict[Task, Tensor] = {}
    for task in TASKS:
        devices = protocol.of_fold(task, fold)
        logs = protocol.task_logs[task].select(devices)
        found[task] = module.scores(logs, task_pairs(logs, task))
    return found


def _plain(protocol: Protocol, task: Task, method: str, fold: int) -> Tensor:
    logs = protocol.task_logs[task]
    train, test = (
        protocol.pairs(task, protocol.of_fold(task, fold, held_out)) for held_out in (False, True)
    )
    labels = protocol.labels(task, train)
    if method == "linear":
        known, other = (
            protocol.of_fold(task, fold, held_out) for held_out in (False, True)
        )  # neighbours are sought on either side alone, as for logs that come later
        matcher = linear_matcher(task).fit(*_features(protocol, task, known))
        return matcher(_features(protocol, task, other)[0]).float()
    vectors = TfIdf(words=True).fit(logs).transform(logs)
    hours = rhythm(logs, 168)

    def score(pairs: Tensor, weight: float) -> Tensor:
        a, b = pairs.T.numpy()
        cosine = torch.from_numpy((vectors[a] * vectors[b]).sum(1)).float()
        return cosine + weight * (hours[pairs[:, 0]] * hours[pairs[:, 1]]).sum(1)

    weight = 0.0
    if method == "TF-IDF and hours":
        weight = max(WEIGHTS, key=lambda w: average_precision(score(train, w), labels))
    return score(test, weight)


def _features(protocol: Protocol, task: Task, devices: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels of a task's pairs of some devices."""
    logs = protocol.task_logs[task].select(devices)
    pairs = task_pairs(logs, task)
    return PairFeatures(logs)(pairs), same_user(logs.users, pairs)


def kept_scores(
    protocol: Protocol, methods: Sequence[str], seeds: int, steps: int, out: Path
) -> Found:
    """Scores of each method, fold and seed, from files where an earlier run has left them."""
    runs = [
        (method, fold, seed)
        for seed in range(seeds)
        for method in methods
        if method not in SUMS
        for fold in range(FOLDS)
        if seed == 0 or method in NETWORKS
    ]
    found: Found = {}
    for method, fold, seed in tqdm(runs, desc="runs"):
        path = out / f"{method.replace(',', '').replace(' ', '_')}-{fold}-{seed}-{steps}.pt"
        if not path.exists():
            scores = scores_of(protocol, method, fold, seed, steps)
            partial = path.with_suffix(".partial")
            torch.save(scores, partial)
            partial.replace(path)
        found[method, fold, seed] = torch.load(path)
    for method, parts in SUMS.items():
        for seed in range(seeds):
            for fold in range(FOLDS):
                keys = [(part, fold, seed if part in NETWORKS else 0) for part in parts]
                if method in methods and all(key in found for key in keys):
                    found[method, fold, seed] = {
                        task: sum((found[key][task] for key in keys), torch.zeros(()))
                        for task in TASKS
                    }
    return found


def decision(
    protocol: Protocol, scores: Sequence[Tensor], task: Task, folds: Sequence[int], shift: bool
) -> Decision:
    """What the scores of some folds say about probabilities and a threshold."""
    devices = [protocol.of_fold(task, fold) for fold in folds]
    labels = [protocol.labels(task, protocol.pairs(task, some)) for some in devices]
    return Decision.fit(
        torch.cat([scores[fold] for fold in folds]),
        torch.cat(labels),
        sum(map(len, devices)),
        shift,
        len(folds),
    )


def _of_others(protocol: Protocol, scores: Sequence[Tensor], task: Task, fold: int) -> Decision:
    """What the scores of the other folds say."""
    others = [other for other in range(FOLDS) if other != fold]
    return decision(protocol, scores, task, others, shift=False)


def decided(protocol: Protocol, scores: Sequence[Tensor], task: Task, fold: int) -> Scores:
    """P, R and F1 on a fold, with what the other folds' scores say: folds are of one size."""
    devices = protocol.of_fold(task, fold)
    labels = protocol.labels(task, protocol.pairs(task, devices))
    found = _of_others(protocol, scores, task, fold).decide(scores[fold], len(devices), len(labels))
    true = int((found & labels).sum())
    return Scores.of_counts(true, int(found.sum()), int(labels.sum()))


def table(protocol: Protocol, found: Found) -> list[dict[str, Any]]:
    """A row for each method: means and deviations over folds and seeds."""
    rows = []
    for method in dict.fromkeys(key[0] for key in found):
        row: dict[str, Any] = {"method": method}
        seeds = sorted({seed for m, _, seed in found if m == method})
        for task in TASKS:
            precision, f1, best = [], [], []
            for seed in seeds:
                scores = [found[method, f, seed][task] for f in range(FOLDS)]
                for fold in range(FOLDS):
                    pairs = protocol.pairs(task, protocol.of_fold(task, fold))
                    labels = protocol.labels(task, pairs)
                    precision.append(average_precision(scores[fold], labels))
                    f1.append(decided(protocol, scores, task, fold).f1)
                    top = best_threshold(scores[fold], labels)
                    best.append(pair_scores(scores[fold], labels, top).f1)
            for name, values in (("AP", precision), ("F1", f1), ("F1*", best)):
                row[f"{task} {name}"] = _mean_and_deviation(values, len(seeds))
        rows.append(row)
    return rows


def _mean_and_deviation(values: list[float], seeds: int) -> str:
    """The mean over folds and seeds, and the deviation of the seeds' means if there are several."""
    means = torch.tensor(values).view(seeds, FOLDS).mean(1)
    text = f"{float(means.mean()):.3f}"
    return text if seeds == 1 else f"{text} ± {float(means.std()):.3f}"


def intervals(protocol: Protocol, found: Found, draws: int) -> list[dict[str, Any]]:
    """Rows of the average precision, and of differences on the same users, with 95 % intervals."""
    methods = list(dict.fromkeys(key[0] for key in found))
    compared = {f"{a} - {b}": (a, b) for a, b in COMPARED if a in methods and b in methods}
    rows: dict[str, dict[str, Any]] = {name: {"": name} for name in (*methods, *compared)}
    for task in TASKS:
        users = protocol.task_logs[task].users
        pairs = [protocol.pairs(task, protocol.of_fold(task, fold)) for fold in range(FOLDS)]
        parts = {
            method: [
                pair_statistic(users, pairs[fold], scores[task])
                for (name, fold, _), scores in found.items()
                if name == method
            ]
            for method in methods
        }
        statistic = partial(_means_and_differences, parts, compared)
        means = statistic(torch.ones(len(users), dtype=torch.float64))
        drawn = bootstrap(statistic, users, torch.Generator().manual_seed(0), draws)
        for name, (low, high, _) in drawn.items():
            rows[name][f"{task} AP"] = f"{means[name]:.3f} ({low:.3f} to {high:.3f})"
    return list(rows.values())


def _means_and_differences(
    parts: Mapping[str, Sequence[Statistic]],
    compared: Mapping[str, tuple[str, str]],
    copies: Tensor,
) -> dict[str, float]:
    """The mean over folds and seeds for each method, and its differences."""
    means = {
        method: sum(part(copies)["average_precision"] for part in some) / len(some)
        for method, some in parts.items()
    }
    return means | {name: means[a] - means[b] for name, (a, b) in compared.items()}


def curves(protocol: Protocol, found: Found, task: Task = "B1") -> Figure:
    """Precision by recall over the pairs of all folds, by the first seed.

    Folds have matchers of their own, so that scores are compared as log-odds, each by what the
    scores of the other folds say.
    """
    devices = [protocol.of_fold(task, fold) for fold in range(FOLDS)]
    pairs = [protocol.pairs(task, some) for some in devices]
    labels = torch.cat([protocol.labels(task, some) for some in pairs])
    scored = {}
    for method in dict.fromkeys(key[0] for key in found):
        scores = [found[method, fold, 0][task] for fold in range(FOLDS)]
        scored[method] = (
            torch.cat(
                [
                    _of_others(protocol, scores, task, fold).weights(
                        scores[fold], len(devices[fold]), len(pairs[fold])
                    )
                    for fold in range(FOLDS)
                ]
            ),
            labels,
        )
    return plot_precision_recall(scored, title=TITLES[task])


class Joined(NamedTuple):
    """What users a fold's pairs make, by the first seed.

    Attributes:
        pairs: (k, 2) int64 of the fold's devices.
        near: (k,) bool, whether they are candidates: nearest by TF-IDF.
        weights: (k,), above 0 where the other folds' threshold calls them true.
        clusters: (number of devices,) int64.
    """

    pairs: Tensor
    near: Tensor
    weights: Tensor
    clusters: Tensor


def joined(protocol: Protocol, found: Found, method: str, task: Task, fold: int) -> Joined:
    """The users that a method finds in a fold."""
    own = protocol.task_logs[task].select(protocol.of_fold(task, fold))
    pairs, near = task_pairs(own, task), protocol.near(task, fold)
    scores = [found[method, f, 0][task] for f in range(FOLDS)]
    chosen = _of_others(protocol, scores, task, fold)
    weights = chosen.weights(scores[fold], len(own), len(pairs))
    return Joined(pairs, near, weights, linked(len(own), pairs, weights, near))


def shares_found(protocol: Protocol, found: Found, method: str, task: Task) -> dict[str, float]:
    """`stages` of a method, mean over the folds."""
    rows = []
    for fold in range(FOLDS):
        users = protocol.task_logs[task].users[protocol.of_fold(task, fold)]
        pairs, near, weights, clusters = joined(protocol, found, method, task, fold)
        rows.append(stages(same_user(users, pairs), near, weights > 0, clusters[pairs]))
    return {name: sum(row[name] for row in rows) / FOLDS for name in rows[0]}


def users_found(protocol: Protocol, found: Found, draws: int) -> list[dict[str, Any]]:
    """Rows of how well clusters agree with users, over all folds, with 95 % intervals.

    F1 of pairs that share a cluster, and of B-cubed; beside them the mean recall of the candidates,
    which alone have a say.
    """
    rows = []
    for method in dict.fromkeys(key[0] for key in found):
        row: dict[str, Any] = {"method": method}
        for task in USERS:
            users = protocol.task_logs[task].users
            clusters, recalls = torch.empty_like(users), []
            for fold in range(FOLDS):
                devices = protocol.of_fold(task, fold)
                one = joined(protocol, found, method, task, fold)
                clusters[devices] = one.clusters + fold * len(users)
                recalls.append(float(one.near[same_user(users[devices], one.pairs)].float().mean()))
            statistic = cluster_statistic(clusters, users)
            means = statistic(torch.ones(len(users), dtype=torch.float64))
            drawn = bootstrap(statistic, users, torch.Generator().manual_seed(0), draws)
            row[f"{task} candidate recall"] = f"{sum(recalls) / FOLDS:.3f}"
            for title, name in (("pair F1", "pair_f1"), ("B-cubed F1", "b_cubed_f1")):
                low, high, _ = drawn[name]
                row[f"{task} {title}"] = f"{means[name]:.3f} ({low:.3f} to {high:.3f})"
        rows.append(row)
    return rows


def run(
    data: Path, methods: Sequence[str], seeds: int, steps: int, out: Path, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Score, write and return the table."""
    out.mkdir(parents=True, exist_ok=True)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    protocol = Protocol(data)
    found = kept_scores(protocol, methods, seeds, steps, out)
    rows = table(protocol, found)
    write_whole(out / "table.md", markdown_table(list(rows[0]), rows, machine()))
    within = intervals(protocol, found, draws)
    write_whole(out / "intervals.md", markdown_table(list(within[0]), within, machine()))
    users = users_found(protocol, found, draws)
    write_whole(out / "users.md", markdown_table(list(users[0]), users, machine()))
    curves(protocol, found).savefig(out / "curves.png", dpi=120)
    last = list(dict.fromkeys(key[0] for key in found))[-1]
    plot_stages(shares_found(protocol, found, last, "B1")).savefig(out / "stages.png", dpi=120)
    decisions = {}
    for method in dict.fromkeys(key[0] for key in found):
        scores = [found[method, fold, 0] for fold in range(FOLDS)]
        shift = method not in CROWDED
        decisions[method] = {
            task: asdict(decision(protocol, [s[task] for s in scores], task, range(FOLDS), shift))
            for task in TASKS
        }
    write_whole(out / "decisions.json", json.dumps(decisions, indent=1))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="an xdt.npz")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="episodes of training")
    parser.add_argument("--out", type=Path, default=Path("runs/matching_xdt"))
    options = parser.parse_args(arguments)
    rows = run(options.data, options.methods, options.seeds, options.steps, options.out)
    print(markdown_table(list(rows[0]), rows, machine()))


if __name__ == "__main__":
    main()
