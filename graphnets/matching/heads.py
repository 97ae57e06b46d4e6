"""Scores of pairs of encoded devices: log-odds that both are one person's, for either order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from graphnets.matching.devices import Devices, matches
from graphnets.mggnn import mlp


class SharedTokens(nn.Module):
    """Log-odds from what two devices share and from their rhythms.

    The cosines of the devices' sparse vectors, one for each head of `TokenWeights`; of their
    activity by hours of the week and of the day; how much their spans overlap; their lengths and
    kinds. The score is a multiple of the mean cosine, corrected by an MLP that starts at zero.

    Args:
        heads: of the weights.
        hidden: width of the MLP.
    """

    RHYTHM = 7  # numbers that `rhythm_features` returns

    def __init__(self, heads: int, hidden: int = 32) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(5.0))
        self.offset = nn.Parameter(torch.tensor(-3.0))
        self.correct = mlp(2 * heads + self.RHYTHM, hidden, 1)
        last = self.correct[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, devices: Devices, pairs: Tensor) -> Tensor:
        """(k,) log-odds of pairs (k, 2)."""
        found = cosines(devices, pairs)
        known = torch.cat([found, (found + 1e-3).log() / 3, rhythm_features(devices, pairs)], 1)
        return self.slope * found.mean(1) + self.offset + self.correct(known)[:, 0]


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
