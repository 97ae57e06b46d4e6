"""Scores of pairs of encoded devices: log-odds that both are one person's, for either order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from graphnets.matching.devices import Devices, matches
from graphnets.matching.surroundings import Place, expanded, place, surroundings
from graphnets.mggnn import mlp
from graphnets.ragged import blocks

SURROUNDINGS = 6  # numbers that `surroundings` returns
PAIRS_AT_ONCE = 1 << 16  # scored
LOOKUPS = 1 << 20  # tokens looked up at once in those of other devices


class SharedTokens(nn.Module):
    """Log-odds from what two devices share and from their rhythms.

    The cosines of the devices' sparse vectors, one for each head of `TokenWeights`; what
    `surroundings` says of their mean and, in each further round, of the mean cosine of vectors to
    which those of neighbours are added; `rhythm_features`. The score is linear in the cosine's
    logarithm less its crowding, corrected by an MLP that starts at zero.

    Neighbours are sought among all devices that are scored together, so that with more devices at
    hand, labelled or not, a pair's score differs. With `rounds` all cosines of n devices are in
    memory, about `BYTES_A_PAIR` n^2 bytes for two rounds: 0.2 GB for 2,000 devices, 1 GB for 5,000,
    4 GB for 10,000; and they take as long as all pairs, however few are scored.

    Args:
        heads: of the weights.
        rounds: how often neighbours are added.
        hidden: width of the MLP.
    """

    RHYTHM = 7  # numbers that `rhythm_features` returns
    BYTES_A_PAIR = 40  # for each pair of devices, either way round, with two rounds
    LARGEST = 10_000  # devices: all their cosines are in memory

    def __init__(self, heads: int, rounds: int = 0, hidden: int = 32) -> None:
        super().__init__()
        self.rounds = rounds
        self.slope = nn.Parameter(torch.tensor(4.0 if rounds else 5.0))
        self.offset = nn.Parameter(torch.tensor(-3.0))
        self.strength = nn.Parameter(torch.ones(rounds)) if rounds else ()
        around = SURROUNDINGS * (rounds + 1) if rounds else 0
        self.correct = mlp(2 * heads + around + self.RHYTHM, hidden, 1)
        last = self.correct[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, devices: Devices, pairs: Tensor) -> Tensor:
        """(k,) log-odds of pairs (k, 2)."""
        found = cosines(devices, pairs)
        around = self._places(devices, pairs, found) if self.rounds else []
        scored = [
            self._log_odds(devices, some, cosine, around)
            for some, cosine in zip(pairs.split(PAIRS_AT_ONCE), found.split(PAIRS_AT_ONCE))
        ]
        return torch.cat(scored)

    def _log_odds(
        self, devices: Devices, pairs: Tensor, found: Tensor, around: list[Place]
    ) -> Tensor:
        """Of pairs (k, 2) with cosines (k, heads), and the places of all devices in each round."""
        known = [found, (found + 1e-3).log() / 3, rhythm_features(devices, pairs)]
        evidence = found.mean(1)
        if around:
            known += [surroundings(round, devices.kinds, pairs) for round in around]
            evidence = known[-1][:, 3]  # the logarithm less the crowding
        return self.slope * evidence + self.offset + self.correct(torch.cat(known, 1))[:, 0]

    def _places(self, devices: Devices, pairs: Tensor, known: Tensor) -> list[Place]:
        """Where all devices are among each other, before and after each round."""
        mean = self._all_cosines(devices, pairs, known)
        found = [place(mean, devices.kinds)]
        for strength in self.strength:
            mean = expanded(mean, devices.kinds, strength)
            found.append(place(mean, devices.kinds))
        return found

    def _all_cosines(self, devices: Devices, pairs: Tensor, known: Tensor) -> Tensor:
        """The mean cosines of all devices, (n, n); those of `pairs` (k, 2) are known (k, heads)."""
        n = len(devices)
        if n > self.LARGEST:
            gigabytes = self.BYTES_A_PAIR * n**2 / 1e9
            raise ValueError(
                f"devices: all cosines of {n} would take {gigabytes:.2g} GB; score at most "
                f"{self.LARGEST} devices together, or train a matcher with rounds=0, which looks "
                "at the pairs alone"
            )
        upper = torch.ones(n, n, dtype=torch.bool, device=pairs.device).triu(1)
        if len(pairs) == n * (n - 1) // 2 and torch.equal(upper.nonzero(), pairs):
            mean = known.mean(1)
        else:
            rows = blocks(torch.full((n,), n), PAIRS_AT_ONCE)
            mean = mean_cosines(
                devices, (_pairs_of_rows(some.to(pairs.device), n) for some in rows)
            )
        one_way = mean.new_zeros(n, n).masked_scatter(upper, mean)
        return one_way + one_way.T + torch.eye(n, dtype=mean.dtype, device=mean.device)


def _pairs_of_rows(rows: Tensor, n: int) -> Tensor:
    """The pairs of some devices, one after another, with all that come after them, (k, 2)."""
    found = (torch.arange(n, device=rows.device) > rows[:, None]).nonzero()
    found[:, 0] += rows[0]
    return found


def cosines(devices: Devices, pairs: Tensor) -> Tensor:
    """Dot products of two devices' sparse vectors, (k, heads), block by block of pairs."""
    w = devices.weights
    found = [_cosines(devices, some) for some in _blocks(devices, pairs)]
    return torch.cat([w.new_zeros(0, w.shape[1]), *found])


def mean_cosines(devices: Devices, parts: Iterable[Tensor]) -> Tensor:
    """The means over heads of the `cosines` of pairs that come in parts, (k,), held alone."""
    found = [cosines(devices, pairs).mean(1) for pairs in parts]
    return torch.cat([devices.weights.new_zeros(0), *found])


def _blocks(devices: Devices, pairs: Tensor) -> Iterator[Tensor]:
    """The pairs, in blocks that look up about `LOOKUPS` tokens."""
    fewer = devices.tokens.lengths[pairs].amin(1).cpu()
    for block in blocks(fewer + 1, LOOKUPS):
        yield pairs[int(block[0]) : int(block[-1]) + 1]


def _cosines(devices: Devices, pairs: Tensor) -> Tensor:
    found = matches(devices.tokens, pairs)
    w = devices.weights
    products = w.index_select(0, found.first.values) * w.index_select(0, found.second.values)
    return w.new_zeros(len(pairs), w.shape[1]).index_add(0, found.first.row, products)


def rhythm_features(devices: Devices, pairs: Tensor) -> Tensor:
    """When and how much two devices are used, (k, 7), the same for either order.

    Cosines of activity by hour of the week and by hour of the day; what part of the shorter span
    of time overlaps; whether they are of one kind; logarithms of the fewer and the more visits; how
    far the spans are apart, in weeks.
    """
    a, b = pairs.unbind(1)
    week = devices.rhythm
    day = week.unflatten(1, (7, 24)).sum(1)
    day = day / day.norm(dim=1, keepdim=True).clamp(min=1e-9)
    begin = torch.maximum(devices.span[a, 0], devices.span[b, 0])
    end = torch.minimum(devices.span[a, 1], devices.span[b, 1])
    lengths = (devices.span[:, 1] - devices.span[:, 0]).clamp(min=1)
    shared = (end - begin).clamp(min=0) / torch.minimum(lengths[a], lengths[b])
    visits = (devices.visits + 1).double().log() / 8
    columns = [
        (week[a] * week[b]).sum(1),
        (day[a] * day[b]).sum(1),
        shared,
        devices.kinds[a] == devices.kinds[b],
        torch.minimum(visits[a], visits[b]),
        torch.maximum(visits[a], visits[b]),
        ((begin - end).clamp(min=0) / 168).clamp(max=10) / 10,
    ]
    return torch.stack([column.to(week.dtype) for column in columns], 1)


class Pooled(nn.Module):
    """Log-odds from one vector a device: an MLP of the product of both, after BatchNorm.

    The head of TGCE (Huang et al., CIKM 2021), and of HGNN without cross-attention.
    """

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Sequential(
            nn.Linear(width, 64), nn.ReLU(), nn.Dropout(dropout),
            nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1),
        )  # fmt: skip

    def forward(self, devices: Devices, pairs: Tensor) -> Tensor:
        """(k,) log-odds of pairs (k, 2)."""
        v = self.norm(devices.vectors)
        return self.head(v[pairs[:, 0]] * v[pairs[:, 1]])[:, 0]
