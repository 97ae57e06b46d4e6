"""Scores of pairs of encoded devices: log-odds that both are one person's, for either order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphnets.matching.devices import Devices, matches
from graphnets.matching.surroundings import expanded, surroundings
from graphnets.mggnn import mlp

SURROUNDINGS = 6  # numbers that `surroundings` returns


class SharedTokens(nn.Module):
    """Log-odds from what two devices share and from their rhythms.

    The cosines of the devices' sparse vectors, one for each head of `TokenWeights`; what
    `surroundings` says of their mean and, in each further round, of the mean cosine of vectors to
    which those of neighbours are added; `rhythm_features`. The score is linear in the cosine's
    logarithm less its crowding, corrected by an MLP that starts at zero.

    Neighbours are sought among all devices that are scored together, so that with more devices at
    hand, labelled or not, a pair's score differs.

    Args:
        heads: of the weights.
        rounds: how often neighbours are added.
        hidden: width of the MLP.
    """

    RHYTHM = 7  # numbers that `rhythm_features` returns
    LARGEST = 5000  # devices: all their cosines are in memory

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
        known = [found, (found + 1e-3).log() / 3, rhythm_features(devices, pairs)]
        evidence = found.mean(1)
        if self.rounds:
            mean = self._all_cosines(devices, pairs, evidence)
            around = self._around(mean, devices.kinds)[pairs[:, 0], pairs[:, 1]]
            known.append(around)
            evidence = around[:, -SURROUNDINGS + 3]  # the logarithm less the crowding
        return self.slope * evidence + self.offset + self.correct(torch.cat(known, 1))[:, 0]

    def _all_cosines(self, devices: Devices, pairs: Tensor, known: Tensor) -> Tensor:
        """The mean cosines of all devices, (n, n); those of `pairs` (k, 2) are known (k,)."""
        n = len(devices)
        if n > self.LARGEST:
            raise ValueError(
                f"devices: {n} are too many for all their cosines; score at most {self.LARGEST} "
                "together, or train a matcher with rounds=0"
            )
        every = torch.combinations(torch.arange(n, device=pairs.device))
        if not torch.equal(every, pairs):
            known = cosines(devices, every).mean(1)
        one_way = known.new_zeros(n, n).index_put((every[:, 0], every[:, 1]), known)
        return one_way + one_way.T + torch.eye(n, dtype=known.dtype, device=known.device)

    def _around(self, mean: Tensor, kinds: Tensor) -> Tensor:
        """(n, n, 6 (rounds + 1)): surroundings of all pairs of devices, round by round."""
        found = [surroundings(mean, kinds)]
        for strength in self.strength:
            mean = expanded(mean, kinds, strength)
            found.append(surroundings(mean, kinds))
        return torch.cat(found, -1)


def cosines(devices: Devices, pairs: Tensor) -> Tensor:
    """Dot products of two devices' sparse vectors, (k, heads)."""
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
