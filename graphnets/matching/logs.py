"""Logs of many devices: which page each one visited, and when."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from graphnets.ragged import Ragged

HOUR = 3_600_000  # ms
DAY = 24 * HOUR
WEEK = 7 * DAY
YEARS = 30  # no log is as long


@dataclass(frozen=True, eq=False)
class Pages:
    """What is known of each distinct page, by ids alone.

    Attributes:
        prefixes: (n_pages, levels) int64; column l is the id of the URL's first l + 1 parts, domain
            first, so that equal ids are equal prefixes; -1 from the level that a URL does not have.
        words: for each page the ids, repeated or not, of the words of its title and of the parts of
            its address; their vocabulary is one, and not that of the prefixes.
        names: of the pages, for people to read; empty where they are not known.
    """

    prefixes: Tensor
    words: Ragged
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if self.prefixes.ndim != 2 or self.prefixes.dtype != torch.int64:
            raise ValueError(
                f"prefixes: expected int64 of shape (n_pages, levels), got {self.prefixes.dtype} "
                f"of shape {tuple(self.prefixes.shape)}"
            )
        if len(self.words) != len(self.prefixes):
            raise ValueError(
                f"words: expected those of {len(self.prefixes)} pages, got {len(self.words)}"
            )
        if self.names and len(self.names) != len(self.prefixes):
            raise ValueError(
                f"names: expected {len(self.prefixes)} of them or none, got {len(self.names)}"
            )

    def __len__(self) -> int:
        """The number of pages."""
        return len(self.prefixes)


@dataclass(frozen=True, eq=False)
class Logs:
    """The visits of n devices, one device after another, each from the oldest to the newest.

    Attributes:
        pages: what is visited.
        page: for each device the pages of its visits, as rows of `pages`.
        time: (n_visits,) int64, milliseconds since 1970 (UTC), in the order of `page.values`.
        names: (n,) of the devices, unique.
        users: (n,) int64, whose a device is; -1 where it is not known.
        kinds: (n,) int64, the kind of device, such as 0 for desktop and 1 for mobile.
        periods: (n,) int64; where a device stands for one period of a log, as in `week_slices`, the
            number of that period, else 0.
        sources: (n,) int64; slices of one device have the same source.
    """

    pages: Pages
    page: Ragged
    time: Tensor
    names: Sequence[str]
    users: Tensor
    kinds: Tensor
    periods: Tensor
    sources: Tensor

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together, and visits that go back in time."""
        n, visits = len(self.page), len(self.page.values)
        if self.time.shape != (visits,) or self.time.dtype != torch.int64:
            raise ValueError(
                f"time: expected int64 of shape ({visits},), one for each visit, got "
                f"{self.time.dtype} of shape {tuple(self.time.shape)}"
            )
        if visits and not 0 <= int(self.page.values.min()) <= int(self.page.values.max()) < len(
            self.pages
        ):
            raise ValueError(
                f"page: expected rows of pages from 0 to {len(self.pages) - 1}, got "
                f"{int(self.page.values.min())} to {int(self.page.values.max())}"
            )
        if len(self.names) != n or len(set(self.names)) != n:
            raise ValueError(
                f"names: expected {n} that differ, got {len(self.names)}, "
                f"{len(set(self.names))} of which differ"
            )
        for name in ("users", "kinds", "periods", "sources"):
            found = getattr(self, name)
            if found.shape != (n,) or found.dtype != torch.int64:
                raise ValueError(
                    f"{name}: expected int64 of shape ({n},), got {found.dtype} of shape "
                    f"{tuple(found.shape)}"
                )
        back = (self.time.diff() < 0) & (self.page.row.diff() == 0)
        if bool(back.any()):
            device = int(self.page.row[1:][back][0])
            raise ValueError(
                f"time: device {self.names[device]!r} goes back in time; Logs.from_visits sorts"
            )

    @classmethod
    def from_visits(
        cls,
        pages: Pages,
        device: Tensor,
        page: Tensor,
        time: Tensor,
        names: Sequence[str],
        users: Tensor | None = None,
        kinds: Tensor | None = None,
    ) -> Self:
        """Logs from visits in any order.

        Args:
            pages: what is visited.
            device, page, time: (n_visits,) int64, of each visit; visits of one device at the same
                time keep their order. Times are milliseconds: seconds would all be in January 1970.
            names: (n,) of the devices; one without a visit has an empty log.
            users, kinds: (n,) int64; -1, not known, and 0 when not given.

        Raises:
            ValueError: lengths or dtypes do not fit, or a device or page does not exist.

        Warns:
            UserWarning: times span more than `YEARS` years, as where seconds and milliseconds mix.
        """
        for name, values in (("device", device), ("page", page), ("time", time)):
            if values.shape != device.shape or values.ndim != 1 or values.dtype != torch.int64:
                raise ValueError(
                    f"{name}: expected int64 of shape ({len(device)},), one for each visit, got "
                    f"{values.dtype} of shape {tuple(values.shape)}"
                )
        if len(time) and int(time.max()) - int(time.min()) > YEARS * 365 * DAY:
            warnings.warn(
                f"time: visits span {(int(time.max()) - int(time.min())) // (365 * DAY)} years; "
                "are some in seconds or microseconds? Times are milliseconds since 1970",
                stacklevel=2,
            )
        n = len(names)
        by_time = time.argsort(stable=True)
        order = by_time[device[by_time].argsort(stable=True)]
        rows = torch.arange(n)
        return cls(
            pages,
            Ragged.from_rows(device[order], page[order], n),
            time[order],
            names,
            torch.full((n,), -1) if users is None else users,
            torch.zeros(n, dtype=torch.int64) if kinds is None else kinds,
            torch.zeros(n, dtype=torch.int64),
            rows,
        )

    def __len__(self) -> int:
        """The number of devices."""
        return len(self.page)

    def select(self, devices: Tensor) -> Self:
        """The logs of some devices, by their numbers (k,) int64, in that order; pages stay whole.

        Raises:
            ValueError: a number does not exist or comes twice.
        """
        page, positions = self.page.select(devices)
        numbers: list[int] = devices.tolist()
        return type(self)(
            self.pages,
            page,
            self.time[positions],
            [self.names[d] for d in numbers],
            self.users[devices],
            self.kinds[devices],
            self.periods[devices],
            self.sources[devices],
        )


def windows(logs: Logs, devices: Tensor, begin: Tensor, end: Tensor) -> Logs:
    """What devices did in windows of time, each window a device of its own.

    Args:
        logs: of the devices.
        devices: (k,) int64, may repeat.
        begin, end: (k,) int64, milliseconds; a visit at `begin` is in, one at `end` is not.

    Returns:
        Logs of k devices, some perhaps empty, in this order; `periods` is the window's number, and
        `sources` its device's.
    """
    page, positions = logs.page.select(devices)
    time = logs.time[positions]
    kept = (time >= begin[page.row]) & (time < end[page.row])
    return Logs(
        logs.pages,
        Ragged.from_rows(page.row[kept], page.values[kept], len(devices)),
        time[kept],
        [f"{logs.names[d]}/{k}" for k, d in enumerate(devices.tolist())],
        logs.users[devices],
        logs.kinds[devices],
        torch.arange(len(devices)),
        logs.sources[devices],
    )


def week_slices(logs: Logs, min_visits: int = 20) -> Logs:
    """Each device's weeks as devices of their own, if they have at least `min_visits` visits.

    Weeks are counted from the epoch, a Thursday. The names get the week's number behind a slash;
    `periods` is that number and `sources` are those of `logs`.
    """
    week = logs.time // WEEK
    key = torch.stack([logs.page.row, week], 1)
    found, slice_of, counts = key.unique(dim=0, return_inverse=True, return_counts=True)
    kept = counts >= min_visits
    number = torch.where(kept, kept.cumsum(0) - 1, -1)[slice_of]
    device, period = found[kept].unbind(1)
    visits = number >= 0
    return Logs(
        logs.pages,
        Ragged.from_rows(number[visits], logs.page.values[visits], len(device)),
        logs.time[visits],
        [f"{logs.names[d]}/{w}" for d, w in zip(device.tolist(), period.tolist())],
        logs.users[device],
        logs.kinds[device],
        period,
        logs.sources[device],
    )


def fingerprints(logs: Logs) -> Tensor:
    """(n,) int64, the same for devices with the same visits; 0 for empty logs."""
    visit = (logs.time * 6364136223846793005) ^ (
        logs.pages.prefixes[logs.page.values].sum(1) * 1442695040888963407
    )
    visit = (visit ^ (visit >> 29)) * -4417276706812531889
    return torch.zeros(len(logs), dtype=torch.int64).index_add(0, logs.page.row, visit)
