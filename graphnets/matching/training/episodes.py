"""Training samples: some windows of some people's logs, and pairs of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from graphnets.matching.logs import DAY, Logs, windows
from graphnets.matching.pairs import all_pairs, checked_pairs, same_user
from sparsetorch.checks import check_count


@dataclass(frozen=True, eq=False)
class Episode:
    """Devices and pairs of them whose answer is known.

    Attributes:
        logs: of the devices, none empty.
        pairs: (k, 2) int64.
        labels: (k,) float32, 1 for one person's.
        weights: (k,) float32, for means over all pairs of the devices where some are left out.
    """

    logs: Logs
    pairs: Tensor
    labels: Tensor
    weights: Tensor


class PairEpisodes(Dataset[Episode]):
    """Given pairs, each once an epoch, in batches that share devices: each is encoded once.

    The pairs of one device stay together, and devices come in an order drawn anew for each epoch.

    Args:
        logs: of all devices.
        pairs: (k, 2) int64.
        labels: (k,) bool.
        batch: pairs an episode.
        seed: of the orders.
        once: False gives each pair copies of its devices, which costs as much more as devices have
            pairs, and changes nothing else but the statistics of a BatchNorm. TGCE's code does so;
            for comparisons.
    """

    def __init__(
        self,
        logs: Logs,
        pairs: Tensor,
        labels: Tensor,
        batch: int = 256,
        seed: int = 0,
        once: bool = True,
    ) -> None:
        checked_pairs(pairs, len(logs))
        if labels.shape != (len(pairs),) or labels.dtype != torch.bool:
            raise ValueError(
                f"labels: expected bool of shape ({len(pairs)},), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}"
            )
        self.batch = check_count("batch", batch, "pair")
        self.logs, self.pairs, self.labels = logs, pairs, labels
        self.seed, self.once, self.epoch = seed, once, 0
        self._drawn: tuple[int, Tensor, Tensor] | None = None  # epoch, its pairs, their order

    def __len__(self) -> int:
        """Episodes an epoch."""
        return -(-len(self.pairs) // self.batch)

    def __getitem__(self, i: int) -> Episode:
        """Episode i of this epoch."""
        chosen = self._order()[i * self.batch : (i + 1) * self.batch]
        pairs = self.pairs[chosen]
        if self.once:
            devices, local = pairs.unique(return_inverse=True)
            logs = self.logs.select(devices)
        else:
            devices, local = pairs.flatten(), torch.arange(2 * len(pairs)).view(-1, 2)
            begin, end = self.logs.time.aminmax()
            logs = windows(
                self.logs, devices, begin.expand(len(devices)), (end + 1).expand(len(devices))
            )
        weights = torch.ones(len(chosen))
        return Episode(logs, local, self.labels[chosen].float(), weights)

    def _order(self) -> Tensor:
        """Of the pairs in this epoch, (k,) int64; found once: it takes longer than an episode."""
        drawn = self._drawn
        if drawn is None or drawn[0] != self.epoch or drawn[1] is not self.pairs:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            place = torch.randperm(len(self.logs), generator=generator)
            order = place[self.pairs[:, 0]].argsort(stable=True)
            drawn = self._drawn = (self.epoch, self.pairs, order)
        return drawn[2]


class WindowEpisodes(Dataset[Episode]):
    """Windows of devices' logs, drawn anew for each episode, and all pairs of them.

    A window of a random length, anywhere in a device's log, is a device of its own: few people with
    long logs give many different samples. Episode i of epoch e depends on (seed, e, i) alone, so
    that a run that was stopped goes on with the same ones.

    Args:
        logs: of devices whose users are known.
        count: episodes an epoch.
        users: people an episode.
        per_user: windows of each.
        days: shortest and longest window.
        min_visits: a window with fewer visits is drawn again, and left out after ten tries.
        negatives: largest number of pairs of different people for each pair of one person; others
            are left out at random and the rest weigh more. 0 for all.
        seed: of all draws.

    Raises:
        ValueError: a user is not known, a number is out of range, or there are not two people with
            so many visits; of an episode, that there is no window of two people with so many.
    """

    def __init__(
        self,
        logs: Logs,
        count: int = 50,
        users: int = 24,
        per_user: int = 5,
        days: tuple[float, float] = (2.0, 14.0),
        min_visits: int = 20,
        negatives: int = 0,
        seed: int = 0,
    ) -> None:
        unknown = (logs.users < 0).nonzero()
        if len(unknown):
            raise ValueError(
                f"logs: the user of device {logs.names[int(unknown[0])]!r} is not known; select "
                "those that are"
            )
        if not 0 < days[0] <= days[1] < math.inf:
            raise ValueError(
                f"days: expected the shortest and the longest window, above 0, got {days}"
            )
        self.logs, self.days, self.seed, self.epoch = logs, days, seed, 0
        self.count = check_count("count", count, "episode")
        self.users = check_count("users", users, "person")
        self.per_user = check_count("per_user", per_user, "windows", least=2)
        self.min_visits = check_count("min_visits", min_visits, "visit")
        self.negatives = check_count("negatives", negatives, "pairs", least=0)
        long = logs.page.lengths >= min_visits
        self.people = [
            (long & (logs.users == user)).nonzero()[:, 0] for user in logs.users[long].unique()
        ]
        if len(self.people) < 2:
            raise ValueError(
                f"logs: {len(self.people)} people have {min_visits} visits on one device; pairs "
                "need two people at least"
            )

    def __len__(self) -> int:
        """Episodes an epoch."""
        return self.count

    def __getitem__(self, i: int) -> Episode:
        """Episode i of this epoch."""
        number = (self.seed * 1_000_003 + self.epoch) * 1_000_003 + i
        generator = torch.Generator().manual_seed(number % 2**63)
        chosen = torch.randperm(len(self.people), generator=generator)[: self.users]
        devices = torch.cat([self._devices(self.people[k], generator) for k in chosen.tolist()])
        drawn = self._windows(devices, generator)
        if len(drawn.users.unique()) < 2:
            raise ValueError(
                f"logs: of {len(devices)} windows of {self.days[0]:g} to {self.days[1]:g} days "
                f"only {len(drawn)} have {self.min_visits} visits; take longer ones or fewer "
                "visits, and see whether times are in milliseconds"
            )
        return self._with_pairs(drawn, generator)

    def _devices(self, own: Tensor, generator: torch.Generator) -> Tensor:
        """`per_user` devices of a person, each of them about as often."""
        order = torch.randperm(len(own), generator=generator)
        return own[order].repeat(-(-self.per_user // len(own)))[: self.per_user]

    def _windows(self, devices: Tensor, generator: torch.Generator) -> Logs:
        first = self.logs.time[self.logs.page.ptr[:-1][devices]]
        last = self.logs.time[self.logs.page.ptr[1:][devices] - 1]
        begin, end = torch.zeros_like(first), torch.zeros_like(first)
        missing = torch.arange(len(devices))
        shortest, longest = self.days
        for _ in range(10):
            drawn = torch.rand(2, len(missing), generator=generator, dtype=torch.float64)
            length = (shortest + (longest - shortest) * drawn[0]) * DAY
            room = (last[missing] - first[missing] + DAY - length).clamp(min=0)
            begin[missing] = (first[missing] - DAY // 2 + room * drawn[1]).long()
            end[missing] = begin[missing] + length.long()
            counts = windows(self.logs, devices[missing], begin[missing], end[missing]).page.lengths
            missing = missing[counts < self.min_visits]
            if not len(missing):
                break
        found = windows(self.logs, devices, begin, end)
        return found.select((found.page.lengths >= self.min_visits).nonzero()[:, 0])

    def _with_pairs(self, logs: Logs, generator: torch.Generator) -> Episode:
        pairs = all_pairs(len(logs))
        labels = same_user(logs.users, pairs)
        weights = torch.ones(len(pairs))
        wanted = self.negatives * max(int(labels.sum()), 1)
        negative = (~labels).nonzero()[:, 0]
        if self.negatives and len(negative) > wanted:
            left = negative[torch.randperm(len(negative), generator=generator)[:wanted]]
            weights[left] = len(negative) / wanted
            kept = torch.cat([labels.nonzero()[:, 0], left]).sort().values
            pairs, labels, weights = pairs[kept], labels[kept], weights[kept]
        return Episode(logs, pairs, labels.float(), weights)
