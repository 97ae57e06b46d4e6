"""How far a metric can be trusted: percentile intervals over resampled users.

Pairs of one user, and pairs of one device, are dependent, so that intervals from resampled pairs
would be too short. Here users are drawn with replacement: a pair within user u then comes as often
as u, and a pair of u and v as often as u times v: the vertex bootstrap of T. A. B. Snijders,
S. P. Borgatti, Connections 22 (1999), without their pairs of a user and its own copy, which would
be of equal devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from graphnets.matching.cluster_metrics import Overlaps
from graphnets.matching.metrics import Ranking, Scores, positives
from graphnets.matching.pairs import checked_pairs, keys, same_user
from graphnets.matching.splits import numbered_users

Statistic = Callable[[Tensor], Mapping[str, float]]


class Interval(NamedTuple):
    """Where the middle share of a metric's draws lies."""

    low: float
    high: float
    undefined: int  # draws that were left out, since the metric is NaN there


def bootstrap(
    statistic: Statistic,
    users: Tensor,
    generator: torch.Generator,
    draws: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """The percentile interval of each metric over draws of users with replacement.

    A device whose user is not known is a user of its own. With few users, percentile intervals are
    somewhat short: B. Efron, R. J. Tibshirani, *An Introduction to the Bootstrap* (1993), chapter
    13. To compare two scorers, let `statistic` return the difference of their metrics, so that both
    are measured on the same users.

    Args:
        statistic: from how often each device comes, (n,) float64, to metrics by name; such as
            `pair_statistic` and `cluster_statistic` make.
        users: (n,) int64, -1 for unknown.
        generator: the same seed gives the same intervals.
        draws: how many.
        level: the share of draws that an interval holds, between 0 and 1.

    Raises:
        ValueError: an argument is not as described, or a metric is NaN in all draws.
    """
    if draws < 1 or not 0 < level < 1:
        raise ValueError(
            f"draws, level: expected at least 1 and a share between 0 and 1, got {draws} and "
            f"{level}"
        )
    unit = numbered_users(users)
    count = int(unit.max()) + 1
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        drawn = torch.randint(count, (count,), generator=generator)
        copies = torch.bincount(drawn, minlength=count).double()[unit]
        for name, value in statistic(copies).items():
            found.setdefault(name, []).append(float(value))
    return {name: interval(name, torch.tensor(v).double(), level) for name, v in found.items()}


def pair_statistic(
    users: Tensor,
    pairs: Tensor,
    scores: Tensor,
    missed: Tensor | None = None,
    threshold: float | None = None,
) -> Statistic:
    """Average precision of scored pairs, and P, R and F1 at a threshold, for `bootstrap`.

    Args:
        users: (n,) int64, -1 for unknown.
        pairs: (k, 2) int64, the candidates.
        scores: (k,) floating point.
        missed: (m, 2) int64, the true pairs that are no candidates; none if not given.
        threshold: pairs of at least this score are found; not given, average precision alone.

    Raises:
        TypeError, ValueError: an argument is not as described, or no pair is true.
    """
    n = len(users)
    missed = pairs[:0] if missed is None else checked_pairs(missed, n)
    labels = same_user(users, checked_pairs(pairs, n))
    ranking = Ranking.of(scores, labels)
    check_missed(users, pairs, missed)
    positives(labels, len(missed))
    devices = torch.cat([pairs[labels], missed])[:, 0]  # one for each true pair
    found = None if threshold is None else scores >= threshold

    def statistic(copies: Tensor) -> dict[str, float]:
        weights = copies[pairs].prod(1).where(~labels, copies[pairs[:, 0]])
        total = float(copies[devices].sum())
        metrics = {"average_precision": ranking.average_precision(total, weights)}
        if found is not None:
            true, all_found = float(weights[found & labels].sum()), float(weights[found].sum())
            metrics |= Scores.of_counts(true, all_found, total)._asdict()
        return metrics

    return statistic


def cluster_statistic(clusters: Tensor, users: Tensor) -> Statistic:
    """B-cubed and pair P, R and F1 of given clusters, for `bootstrap`.

    The clusters stay as they are, however users are drawn, and so does the B-cubed precision and
    recall of each device. Arguments and errors are those of `b_cubed`.
    """
    overlaps = Overlaps.of(clusters, users)

    def statistic(copies: Tensor) -> dict[str, float]:
        by_device, by_pair = overlaps.b_cubed(copies), overlaps.pairs(copies)
        return {f"b_cubed_{name}": value for name, value in by_device._asdict().items()} | {
            f"pair_{name}": value for name, value in by_pair._asdict().items()
        }

    return statistic


def check_missed(users: Tensor, pairs: Tensor, missed: Tensor) -> None:
    """Raise ValueError if a missed pair is not true, or is a candidate."""
    if not bool(same_user(users, missed).all()):
        i, j = missed[~same_user(users, missed)][0].tolist()
        raise ValueError(f"missed: expected pairs of one user's devices, ({i}, {j}) is not")
    if bool(torch.isin(keys(missed, len(users)), keys(pairs, len(users))).any()):
        raise ValueError("missed: expected pairs that are no candidates, got some that are")


def interval(name: str, values: Tensor, level: float) -> Interval:
    """The middle share `level` of the values (draws,) float64 that are not NaN.

    Raises:
        ValueError: all of them are NaN.
    """
    known = values[~values.isnan()]
    if not len(known):
        raise ValueError(
            f"statistic: {name!r} is NaN in all {len(values)} draws; there are too few users with "
            "several devices"
        )
    outside = (1 - level) / 2
    low, high = known.quantile(known.new_tensor([outside, 1 - outside])).tolist()
    return Interval(low, high, len(values) - len(known))
