"""What is in some logs, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from graphnets.matching.logs import Logs


@dataclass(frozen=True)
class Description:
    """Counts of some logs; printed, a small table.

    Attributes:
        devices, users, visits: how many.
        unknown: devices whose user is not known.
        pairs: of devices of one user.
        pages: that are visited.
        lengths: the least, the quartiles and the greatest number of visits of a device.
        mean_length: their mean.
        begin, end: the first and the last visit, UTC; None where there is none.
    """

    devices: int
    users: int
    unknown: int
    pairs: int
    visits: int
    pages: int
    lengths: tuple[float, ...]
    mean_length: float
    begin: datetime | None
    end: datetime | None

    def __str__(self) -> str:
        """A line for each of them."""
        rows = [
            ("devices", f"{self.devices:,}"),
            ("users", f"{self.users:,}, of {self.devices - self.unknown:,} devices"),
            ("pairs", f"{self.pairs:,}"),
            ("visits", f"{self.visits:,}"),
            ("pages", f"{self.pages:,}"),
            (
                "visits of a device",
                f"{' / '.join(f'{length:,.0f}' for length in self.lengths) or 'none'}"
                f" (least, quartiles, most), mean {self.mean_length:,.1f}",
            ),
            ("from", f"{self.begin:%Y-%m-%d %H:%M} UTC" if self.begin else "never"),
            ("to", f"{self.end:%Y-%m-%d %H:%M} UTC" if self.end else "never"),
        ]
        return "\n".join(f"{name:<20}{value}" for name, value in rows)


def describe(logs: Logs) -> Description:
    """Count devices, users, pairs, visits and pages: `print(describe(logs))`."""
    known = logs.users[logs.users >= 0]
    counts = known.unique(return_counts=True)[1]
    lengths = logs.page.lengths.double()
    quantiles = torch.linspace(0, 1, 5, dtype=torch.float64)
    visited = torch.zeros(len(logs.pages), dtype=torch.bool)
    visited[logs.page.values] = True
    return Description(
        len(logs),
        len(counts),
        len(logs) - len(known),
        int((counts * (counts - 1) // 2).sum()),
        len(logs.time),
        int(visited.sum()),
        tuple(lengths.quantile(quantiles).tolist()) if len(logs) else (),
        float(lengths.mean()) if len(logs) else 0.0,
        _moment(int(logs.time.min())) if len(logs.time) else None,
        _moment(int(logs.time.max())) if len(logs.time) else None,
    )


def _moment(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000, UTC)
