"""When the people of synthetic logs visit pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnets.matching.synthetic.settings import Synthetic

START = 1_461_369_600  # s: 2016-04-23 00:00 UTC, a Saturday
DAY, HOUR = 86_400, 3600  # s
PEAKS = 2  # hours of the day around which a user is active
CONTINUED = 0.5  # of bursts: in the session of the burst before
GAP = 40.0  # s, the mean between visits of a session
LONGEST = 1500.0  # s, the longest such gap: under the 30 minutes that end a session


@dataclass(frozen=True, eq=False)
class Rhythms:
    """The hours and days of users and devices.

    Attributes:
        peak: (n_devices, PEAKS), hours of the user's day, a little shifted by the kind of device.
        zone: (n_users,), hours that a user is before UTC.
        indoors: (n_users,), how often a user prefers another day to one of the weekend.
        begin, length: (n_devices,), the days on which a device is in use.
    """

    peak: np.ndarray
    zone: np.ndarray
    indoors: np.ndarray
    begin: np.ndarray
    length: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, n_users: int, user: np.ndarray, mobile: np.ndarray, days: int
    ) -> Rhythms:
        """Draw the rhythms of users and of their devices (n,)."""
        n = len(user)
        shift = rng.normal(0, 1.5, (n_users, 2, PEAKS))[user, mobile.astype(np.int64)]
        length = np.ceil(days * np.sqrt(rng.random(n)))
        return cls(
            rng.uniform(7, 24, (n_users, PEAKS))[user] + shift,
            rng.choice([2, 3, 3, 3, 5, 7, 9], n_users),
            rng.random(n_users),
            np.floor(rng.random(n) * (days - length + 1)),
            length,
        )


def times_of(
    rng: np.random.Generator,
    rhythms: Rhythms,
    user: np.ndarray,
    device: np.ndarray,
    begins: np.ndarray,
    settings: Synthetic,
) -> np.ndarray:
    """Times in ms, whole seconds, of visits that are in the order of their devices.

    Args:
        rng: of all that is random.
        rhythms: of users and devices.
        user: (n_devices,).
        device: (k,) of each visit.
        begins: (k,) bool, whether a burst of visits begins.
        settings: `days` and `regular` are heeded.
    """
    new = np.diff(device, prepend=-1) != 0
    new |= begins & (rng.random(len(device)) >= CONTINUED)
    session = np.cumsum(new) - 1
    start = np.flatnonzero(new)
    opened = _session_starts(rng, rhythms, user, device[start], settings)
    gaps = 1 + np.minimum(rng.exponential(GAP, len(device)), LONGEST).astype(np.int64)
    passed = np.cumsum(gaps)
    time = opened[session] + passed - passed[start][session]
    return time * 1000


def _session_starts(
    rng: np.random.Generator,
    rhythms: Rhythms,
    user: np.ndarray,
    device: np.ndarray,
    settings: Synthetic,
) -> np.ndarray:
    """When each session starts, (k,) int64, s."""
    n, owner = len(device), user[device]
    days = np.floor(rng.random((2, n)) * rhythms.length[device]) + rhythms.begin[device]
    weekend = days[0] % 7 < 2
    avoided = weekend & (rng.random(n) < rhythms.indoors[owner])
    day = np.where(avoided, days[1], days[0])
    peak = rhythms.peak[device, rng.integers(0, PEAKS, n)]
    regular = rng.random(n) < settings.regular
    hour = np.where(regular, rng.normal(peak, 1.5), rng.uniform(7, 24, n)) - rhythms.zone[owner]
    return (START + day * DAY + hour * HOUR).astype(np.int64)
