"""What synthetic people and their web are like."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Synthetic:
    """What synthetic people and their web are like; shares are of 1.

    Attributes:
        topics_per_device, domains_per_device: how the web grows with the number of devices, so that
            matching is as hard at any size; every domain has a topic.
        interests: topics of a user.
        favourites: domains of a user, from the topics of interest.
        device_counts: the shares of users with 1, 2, ... devices.
        mobile: the share of devices that are mobile.
        median_visits, spread: of a device's number of visits, log-normal; spread of its logarithm.
        most_visits: of a device; the least are 2.
        burst: visits of one site in a row, on average.
        routine: the share of bursts that follow the user's own path through a favourite.
        favourite: those that wander about in a favourite.
        interest: those to another domain of a topic of interest. The rest are to popular sites,
            which everybody visits.
        skipped: the share of a user's favourites that one of the devices does not visit.
        personal: the share of visits in favourites that are to pages of the user alone.
        anonymous: the share of devices that visit no such page.
        apps: the share of domains that mobile devices visit by an app, which has a domain of its
            own with few pages.
        regular: the share of sessions at the user's hours; the others come at any time.
        days: between the first and the last visit.
    """

    topics_per_device: float = 0.02
    domains_per_device: float = 0.8
    interests: int = 3
    favourites: int = 10
    device_counts: tuple[float, ...] = (0.02, 0.25, 0.23, 0.25, 0.25)
    mobile: float = 0.5
    median_visits: float = 106.0
    spread: float = 1.135
    most_visits: int = 2000
    burst: float = 3.0
    routine: float = 0.14
    favourite: float = 0.36
    interest: float = 0.2
    skipped: float = 0.3
    personal: float = 0.08
    anonymous: float = 0.3
    apps: float = 0.3
    regular: float = 0.8
    days: int = 61

    def __post_init__(self) -> None:
        """Refuse what is not possible."""
        shares = ("mobile", "routine", "favourite", "interest", "skipped", "personal")
        for name in (*shares, "anonymous", "apps", "regular"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {getattr(self, name)}")
        if self.routine + self.favourite + self.interest > 1:
            raise ValueError("routine, favourite, interest: expected a sum of at most 1")
        least = dict.fromkeys(("interests", "favourites", "days", "burst", "median_visits"), 1)
        least |= {"spread": 0, "topics_per_device": 0, "domains_per_device": 0, "most_visits": 2}
        for name, bound in least.items():
            if not bound <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected {bound} or more, got {getattr(self, name)}")
        counts = self.device_counts
        if not all(0 <= share < math.inf for share in counts) or sum(counts) <= 0:
            raise ValueError(f"device_counts: expected shares, got {counts}")
