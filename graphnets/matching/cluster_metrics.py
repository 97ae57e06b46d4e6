"""How well clusters of devices agree with users: B-cubed and pairs.

Devices whose user is not known are left out: nothing can be said of them, right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from graphnets.matching.metrics import Scores


def b_cubed(clusters: Tensor, users: Tensor) -> Scores:
    """B-cubed precision, recall and their F1, which count each device once.

    The precision of a device is the share of its cluster that is its user's, its recall the share
    of its user that is in its cluster; both count the device itself, so that a device alone has
    precision 1. Means over the devices whose user is known, as if the others did not exist.
    A. Bagga, B. Baldwin, LREC workshop on linguistic coreference (1998); E. Amigó, J. Gonzalo,
    J. Artiles, F. Verdejo, Information Retrieval 12 (2009).

    Args:
        clusters: (n,) int64, numbers of the clusters, at least 0.
        users: (n,) int64, -1 for unknown.

    Raises:
        ValueError: shapes or dtypes do not fit, a cluster is negative, or no user is known.
    """
    return Overlaps.of(clusters, users).b_cubed()


def cluster_pair_scores(clusters: Tensor, users: Tensor) -> Scores:
    """Precision, recall and F1 of all pairs of devices that share a cluster.

    A user of k devices counts k (k - 1) / 2 times, one of a single device not at all; precision
    is 0 where all clusters are single devices. Devices whose user is not known are left out.
    Arguments and errors are those of `b_cubed`.

    Raises:
        ValueError: no user has two devices.
    """
    scores = Overlaps.of(clusters, users).pairs()
    if scores.recall != scores.recall:
        raise ValueError(
            "users: none has two devices, so that recall is not defined; b_cubed counts single ones"
        )
    return scores


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The parts that a cluster and a user share, counted once for many weightings of users.

    Attributes:
        cluster, user: (m,) int64 of each part, numbered from 0 without gaps.
        count: (m,) float64, its number of devices.
        device: (m,) int64, one of them.
    """

    cluster: Tensor
    user: Tensor
    count: Tensor
    device: Tensor

    @classmethod
    def of(cls, clusters: Tensor, users: Tensor) -> Overlaps:
        """Of clusters (n,) and users (n,), both int64, among devices whose user is known.

        Raises:
            ValueError: as `b_cubed`.
        """
        check(clusters, users)
        known = (users >= 0).nonzero()[:, 0]
        key = torch.stack([clusters[known], users[known]], 1)
        parts, part_of, count = key.unique(dim=0, return_inverse=True, return_counts=True)
        device = known.new_empty(len(parts)).scatter_(0, part_of, known)
        cluster, user = (part.unique(return_inverse=True)[1] for part in parts.unbind(1))
        return cls(cluster, user, count.double(), device)

    def b_cubed(self, copies: Tensor | None = None) -> Scores:
        """`b_cubed`; each device counts `copies` (n,) float64 times in the two means."""
        weight = self.count * self._copies(copies)
        precision = self.count / sums(self.cluster, self.count)[self.cluster]
        recall = self.count / sums(self.user, self.count)[self.user]
        total = weight.sum()
        return Scores.of(
            float((weight * precision).sum() / total), float((weight * recall).sum() / total)
        )

    def pairs(self, copies: Tensor | None = None) -> Scores:
        """`cluster_pair_scores` if user u came `copies[u]` times, by devices (n,) float64.

        A pair within u then counts as often, a pair of u and v `copies[u] * copies[v]` times.
        Recall is NaN where there is no true pair.
        """
        times = self._copies(copies)
        true = (times * self.count * (self.count - 1) / 2).sum()
        size = sums(self.user, self.count)[self.user]
        positives = (times * self.count * (size - 1) / 2).sum()
        weight = times * self.count
        across = (sums(self.cluster, weight).square().sum() - weight.square().sum()) / 2
        return Scores.of_counts(float(true), float(true + across), float(positives))

    def _copies(self, copies: Tensor | None) -> Tensor:
        return torch.ones_like(self.count) if copies is None else copies[self.device]


def sums(group: Tensor, values: Tensor) -> Tensor:
    """Of the values (m,) in each group, by the groups (m,) int64 from 0."""
    return torch.bincount(group, values)


def check(clusters: Tensor, users: Tensor) -> None:
    """Raise ValueError unless these are clusters and users of devices, some of them known."""
    for name, found in (("clusters", clusters), ("users", users)):
        if found.ndim != 1 or found.dtype != torch.int64:
            raise ValueError(
                f"{name}: expected int64 of shape (n,), got {found.dtype} of shape "
                f"{tuple(found.shape)}"
            )
    if len(clusters) != len(users):
        raise ValueError(
            f"clusters: expected those of {len(users)} devices, as users, got {len(clusters)}"
        )
    if len(clusters) and int(clusters.min()) < 0:
        raise ValueError(
            f"clusters: expected numbers of at least 0, got {int(clusters.min())}; a device "
            "without a cluster is one of its own"
        )
    if not bool((users >= 0).any()):
        raise ValueError(f"users: none of {len(users)} devices has one that is known")
