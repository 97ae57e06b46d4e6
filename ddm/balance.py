"""Which process trains on which mesh: at each step all of them get about the same work.

Processes wait for the slowest at every step, so that meshes of mixed sizes, dealt at random, cost
the time of the largest. Here a step gets meshes of neighbouring costs: sorted by cost, cut into
groups of one a process, and the groups shuffled. A curriculum begins with the small or the simple
ones, and lets the others in as training goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

SPREAD = 0.05
"""Costs are blurred by this share before they are sorted, so that groups change from epoch to
epoch."""
FIRST = 0.1
"""The share of the samples that a curriculum begins with."""


def stored_costs(paths: Sequence[str | Path]) -> np.ndarray:
    """Number of stored entries of each matrix that `ddm.data.generate` wrote, (len(paths),).

    Products, factorizations and message passing all take about that much.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file holds no such matrix.
    """
    costs = np.empty(len(paths))
    for k, path in enumerate(paths):
        try:
            with np.load(path) as file:
                costs[k] = file["indptr"][-1]
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, EOFError, IndexError, BadZipFile) as error:
            raise ValueError(
                f"paths: {path} is damaged, or no mesh of ddm.data ({error}); delete it, and it is "
                "generated again"
            ) from error
    return costs


class BalancedSampler(DistributedSampler[int]):
    """The samples of one process, so that all processes have nearly equal costs at each step.

    An epoch has every sample once; where their number is no multiple of the processes', a few of
    those nearest in cost are taken twice, so that all processes make as many steps. Like
    `torch.utils.data.DistributedSampler`, which balances nothing; `set_epoch` changes the order.

    With a curriculum (Bengio, Louradour, Collobert and Weston, ICML 2009) the first steps draw from
    a tenth of the samples, the lowest stages, and the share grows linearly to all. Epochs have as
    many steps as without, so that early samples come several times in the first ones.

    Args:
        costs: (n,) of the samples, at least 0, such as `stored_costs`.
        growth: epochs until a curriculum has all samples; 0 is none.
        stages: (n,), of a curriculum: steps have samples of one stage where they can; None takes
            the costs for stages, so that the cheap ones come first.
        num_replicas, rank: number of processes, and which of them this is; None asks
            torch.distributed, and is one process without it.
        shuffle: whether steps come in random order; else by falling cost.
        seed: the same in all processes.

    Raises:
        ValueError: no costs, or some that are negative or not finite; a negative growth, or one
            without shuffling; stages of another shape; a rank out of range.
    """

    def __init__(
        self,
        costs: Sequence[float] | np.ndarray,
        *,
        growth: float = 0.0,
        stages: Sequence[float] | np.ndarray | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        self.costs = np.asarray(costs, dtype=float)
        if self.costs.ndim != 1 or len(self.costs) == 0:
            raise ValueError(f"costs: expected (n,) with n >= 1, got shape {self.costs.shape}")
        if not (np.isfinite(self.costs).all() and (self.costs >= 0).all()):
            raise ValueError("costs: expected finite values of at least 0")
        if not (math.isfinite(growth) and growth >= 0):
            raise ValueError(f"growth: expected a number of epochs of at least 0, got {growth!r}")
        if growth and not shuffle:
            raise ValueError("growth: a curriculum needs shuffle=True")
        self.growth = growth
        self.stages = None if stages is None else np.asarray(stages)
        if self.stages is not None and self.stages.shape != self.costs.shape:
            raise ValueError(
                f"stages: expected one of each of the {len(self.costs)} costs, got shape "
                f"{self.stages.shape}"
            )
        alone = not (dist.is_available() and dist.is_initialized())
        super().__init__(
            _Range(len(self.costs)),
            num_replicas=1 if num_replicas is None and alone else num_replicas,
            rank=0 if rank is None and alone else rank,
            shuffle=shuffle,
            seed=seed,
        )

    def steps(self) -> np.ndarray:
        """The sample of each process at each step of this epoch, (steps, processes)."""
        # The same numbers in all processes.
        rng = np.random.default_rng([self.seed, self.epoch])
        blur = rng.uniform(-SPREAD, SPREAD, len(self.costs)) if self.shuffle else 0.0
        order = np.argsort(-self.costs * (1 + blur), kind="stable")
        if self.growth and self.stages is not None:
            order = order[np.argsort(-self.stages[order], kind="stable")]
        missing = -len(order) % self.num_replicas
        order = np.concatenate([order, np.resize(order[::-1], missing)])  # the cheapest, again
        groups = order.reshape(-1, self.num_replicas)
        if self.shuffle:
            turns = rng.permutation(len(groups))
            groups = rng.permuted(groups[self._admitted(turns)], axis=1)
        return groups

    def _admitted(self, turns: np.ndarray) -> np.ndarray:
        """Turns of groups by falling stage, brought among those that the curriculum has let in."""
        if not self.growth:
            return turns
        last = len(turns) - 1
        passed = (self.epoch + np.arange(len(turns)) / len(turns)) / self.growth
        share = np.minimum(FIRST + (1 - FIRST) * passed, 1.0)
        return last - (share * (last - turns)).astype(np.int64)

    def __iter__(self) -> Iterator[int]:
        return iter(self.steps()[:, self.rank].tolist())

    def waiting(self) -> float:
        """The share of this epoch's processor time that is spent waiting for the slowest process.

        1 minus the total cost over that of the largest of each step times the processes.
        """
        costs = self.costs[self.steps()]
        time = float(costs.max(axis=1).sum()) * self.num_replicas
        return 1 - float(costs.sum()) / time if time else 0.0


class _Range(Dataset[int]):
    """As many samples as there are costs."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size
