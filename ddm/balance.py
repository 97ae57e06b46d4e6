"""Which process trains on which mesh: at each step all of them get about the same work.

Processes wait for the slowest at every step, so that meshes of mixed sizes, dealt at random, cost
the time of the largest. Here a step gets meshes of neighbouring costs: sorted by cost, cut into
groups of one a process, and the groups shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch.distributed as dist
from torch.utils.data import Dataset, DistributedSampler

SPREAD = 0.05
"""Costs are blurred by this share before they are sorted, so that groups change from epoch to
epoch."""


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

    Args:
        costs: (n,) of the samples, at least 0, such as `stored_costs`.
        num_replicas, rank: number of processes, and which of them this is; None asks
            torch.distributed, and is one process without it.
        shuffle: whether steps come in random order; else by falling cost.
        seed: the same in all processes.

    Raises:
        ValueError: no costs, or some that are negative or not finite; a rank out of range.
    """

    def __init__(
        self,
        costs: Sequence[float] | np.ndarray,
        *,
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
        missing = -len(order) % self.num_replicas
        order = np.concatenate([order, np.resize(order[::-1], missing)])  # the cheapest, again
        groups = order.reshape(-1, self.num_replicas)
        if self.shuffle:
            groups = rng.permuted(rng.permutation(groups), axis=1)
        return groups

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
