"""Candidate pairs: those that some source finds near, and how near each source finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphnets.matching.neighbours import Neighbours
from graphnets.matching.pairs import canonical_pairs, checked_pairs, keys, same_user

Score = Callable[[Tensor], Tensor]
POOL = 4  # false pairs looked at for each that is wanted


@dataclass(frozen=True, eq=False)
class Candidates:
    """The union of the neighbours that several sources find.

    Attributes:
        n_devices: of which these are pairs.
        sources: names of the sources.
        pairs: (k, 2) int64, sorted, the smaller number first, each once.
        rank: (k, n_sources, 2) int64; how many neighbours of the first device a source finds nearer
            than the second device, and the other way round; -1 where it is not among them.
        score: (k, n_sources) float32; NaN where a source finds neither near the other.
    """

    n_devices: int
    sources: tuple[str, ...]
    pairs: Tensor
    rank: Tensor
    score: Tensor

    @classmethod
    def from_neighbours(cls, found: Mapping[str, Neighbours]) -> Self:
        """The union over sources, by name.

        Raises:
            ValueError: there is no source, or they have different numbers of devices.
        """
        sizes = {name: len(near.index) for name, near in found.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"found: expected neighbours of the same devices, got {sizes}")
        n = next(iter(sizes.values()))
        lists = [_directed(near) for near in found.values()]
        pairs = canonical_pairs(torch.cat([ends for ends, _, _ in lists]), n)
        rank = torch.full((len(pairs), len(lists), 2), -1)
        score = torch.full((len(pairs), len(lists)), torch.nan)
        for s, (ends, place, near) in enumerate(lists):
            row = torch.searchsorted(keys(pairs, n), keys(ends.sort(1).values, n))
            rank[row, s, (ends[:, 0] > ends[:, 1]).long()] = place
            score[row, s] = near
        return cls(n, tuple(found), pairs, rank, score)

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.pairs)

    def nearest(self, k: int, source: str | None = None) -> Tensor:
        """Which pairs are among the k nearest of either device, (n_pairs,) bool.

        Args:
            k: neighbours of a device.
            source: by which one; by any when None.

        Raises:
            ValueError: there is no such source.
        """
        rank = self.rank if source is None else self.rank[:, [self._number(source)]]
        return ((rank >= 0) & (rank < k)).flatten(1).any(1)

    def select(self, mask: Tensor) -> Self:
        """Some of the pairs, by (n_pairs,) bool."""
        return type(self)(
            self.n_devices, self.sources, self.pairs[mask], self.rank[mask], self.score[mask]
        )

    def contain(self, pairs: Tensor) -> Tensor:
        """Which of some canonical pairs (p, 2) are candidates, (p,) bool."""
        wanted = keys(checked_pairs(pairs, self.n_devices), self.n_devices)
        return torch.isin(wanted, keys(self.pairs, self.n_devices))

    def recall(self, positives: Tensor, kinds: Tensor) -> dict[str, float]:
        """The share of positive pairs that are candidates: of all, of one kind and across kinds.

        Args:
            positives: (p, 2) int64, all pairs that one user's devices make.
            kinds: (n_devices,) int64.

        Returns:
            Of "all", "same_kind" and "cross_kind" pairs; NaN where there is none.
        """
        found = self.contain(positives).double()
        cross = kinds[positives].diff(dim=1).squeeze(1) != 0
        return {
            "all": float(found.mean()),
            "same_kind": float(found[~cross].mean()),
            "cross_kind": float(found[cross].mean()),
        }

    def table(self, positives: Tensor, ks: tuple[int, ...]) -> list[dict[str, str | int | float]]:
        """For each source, and the union of all, what its k nearest hold of the positive pairs.

        Returns:
            Rows with "source", "k", "pairs", "recall" (of positive pairs) and "precision" (of
            candidates); NaN where there is nothing to take a share of.
        """
        rows = []
        for source in (*self.sources, None):
            for k in ks:
                chosen = self.select(self.nearest(k, source))
                hits = int(chosen.contain(positives).sum())
                rows.append(
                    {
                        "source": source or "union",
                        "k": k,
                        "pairs": len(chosen),
                        "recall": hits / len(positives) if len(positives) else float("nan"),
                        "precision": hits / len(chosen) if len(chosen) else float("nan"),
                    }
                )
        return rows

    def _number(self, source: str) -> int:
        if source not in self.sources:
            raise ValueError(f"source: expected one of {self.sources}, got {source!r}")
        return self.sources.index(source)


def _directed(near: Neighbours) -> tuple[Tensor, Tensor, Tensor]:
    """(device, its neighbour) (m, 2), the neighbour's rank and its score."""
    row, place = (near.index >= 0).nonzero().unbind(1)
    return torch.stack([row, near.index[row, place]], 1), place, near.score[row, place]


def hard_pairs(
    candidates: Candidates,
    users: Tensor,
    negatives: int = 3,
    seed: int = 0,
    score: Score | None = None,
    hardest: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Pairs to train on: all true candidates, and false ones for each, which are near, too.

    The protocol of CIKM Cup 2016's GBUL (M. C. Phan et al., SIGIR 2017), which TGCE took over.
    With a score, a share of the false ones are those that it finds most alike, of four times as
    many as are wanted in all.

    Args:
        candidates: of training devices.
        users: (n_devices,) int64.
        negatives: false pairs for each true one, if there are so many.
        seed: of the draw.
        score: from pairs (m, 2) to how alike a matcher finds them, (m,).
        hardest: this share, from 0 to 1.

    Returns:
        Pairs (k, 2), sorted, and labels (k,) bool.

    Raises:
        ValueError: no candidate is true, or `hardest` is no share.
    """
    if not 0 <= hardest <= 1:
        raise ValueError(f"hardest: expected a share from 0 to 1, got {hardest}")
    labels = same_user(users, candidates.pairs)
    true, false = labels.nonzero()[:, 0], (~labels).nonzero()[:, 0]
    if not len(true):
        raise ValueError(f"candidates: none of {len(labels)} pairs is one user's")
    drawn = false[torch.randperm(len(false), generator=torch.Generator().manual_seed(seed))]
    wanted = min(negatives * len(true), len(false))
    top = drawn[:0]
    if score is not None:
        pool = drawn[: POOL * wanted]
        top = pool[score(candidates.pairs[pool]).topk(round(hardest * wanted)).indices]
    others = drawn[~torch.isin(drawn, top)][: wanted - len(top)]
    kept = torch.cat([true, top, others]).sort().values
    return candidates.pairs[kept], labels[kept]
