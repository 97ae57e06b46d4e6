"""What the people of synthetic logs visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnets.matching.synthetic.people import POPULAR, People
from graphnets.matching.synthetic.settings import Synthetic
from graphnets.matching.synthetic.times import times_of
from graphnets.matching.synthetic.web import HUBS, ITEMS, PERSONAL, PERSONAL_PAGES, salted

LARGEST = 4_000  # items of the most popular domain
SCREENS = 4  # pages of an app
FRONT = 0.8  # of bursts begin on the front page
STEEP = 4.0  # how much more often the first of the popular domains are visited
ROUTINE, FAVOURITE, INTEREST, OTHER = range(4)  # kinds of bursts


@dataclass(frozen=True, eq=False)
class Visits:
    """Visits of some devices, one after another: keys of pages, and times in ms."""

    keys: np.ndarray
    time: np.ndarray


def visits_of(
    rng: np.random.Generator, people: People, devices: np.ndarray, settings: Synthetic
) -> Visits:
    """Draw the visits of some devices (k,): bursts of visits to one site, in sessions."""
    device = np.repeat(devices, people.visits[devices])
    first = np.diff(device, prepend=-1) != 0
    begins = first | (rng.random(len(device)) < 1 / settings.burst)
    burst = np.cumsum(begins) - 1
    start = np.flatnonzero(begins)
    place = np.arange(len(device)) - start[burst]

    owner = device[start]
    kind = _kinds(rng, len(start), settings)
    domain = _sites(rng, people, owner, kind)
    keys = _pages(rng, people, device, kind[burst], domain[burst], place, settings)
    time = times_of(rng, people.rhythms, people.user, device, begins, settings)
    order = np.lexsort((time, device))
    return Visits(keys[order], time[order])


def _kinds(rng: np.random.Generator, n: int, settings: Synthetic) -> np.ndarray:
    shares = np.cumsum([settings.routine, settings.favourite, settings.interest])
    return np.searchsorted(shares, rng.random(n), "right")


def _sites(
    rng: np.random.Generator, people: People, device: np.ndarray, kind: np.ndarray
) -> np.ndarray:
    """The domain of each burst."""
    user = people.user[device]
    which = (people.weights[device] < rng.random((len(device), 1))).sum(1)
    domain = people.favourites[user, which]
    at = np.flatnonzero(kind == INTEREST)
    column = rng.integers(0, people.interests.shape[1], len(at))
    domain[at] = people.domains.of_topics(rng, people.interests[user[at], column])
    at = np.flatnonzero(kind == OTHER)
    domain[at] = _zipf(rng, np.full(len(at), POPULAR), STEEP)
    return domain


def _zipf(rng: np.random.Generator, size: np.ndarray, steep: float = 1.0) -> np.ndarray:
    """Numbers from 0 to size - 1 (k,), number i with probability nearly proportional to 1/(i+1).

    Steeper than that for `steep` > 1.
    """
    number = np.exp(rng.random(len(size)) ** steep * np.log(size + 1)) - 1
    return np.minimum(number, size - 1).astype(np.int64)


def _pages(
    rng: np.random.Generator,
    people: People,
    device: np.ndarray,
    kind: np.ndarray,
    domain: np.ndarray,
    place: np.ndarray,
    settings: Synthetic,
) -> np.ndarray:
    """The key of the page of each visit."""
    user, n_domains = people.user[device], len(people.domains.topic)
    size = HUBS + (LARGEST / np.sqrt(1 + domain)).astype(np.int64)
    item = _zipf(rng, size)
    item[(place == 0) & (rng.random(len(item)) < FRONT)] = 0
    # a user's path through the hubs of a site: all of them are on it, the order is the user's
    path = salted(user * n_domains + domain, 20)
    begin = (path % np.uint64(HUBS)).astype(np.int64)
    step = (1 + path // np.uint64(HUBS) % np.uint64(HUBS - 1)).astype(np.int64)
    item = np.where(kind == ROUTINE, (begin + step * place) % HUBS, item)
    has_app = (domain >= POPULAR) & (
        salted(domain, 21) % np.uint64(1000) < np.uint64(1000 * settings.apps)
    )
    by_app = has_app & people.mobile[device]
    item = np.where(by_app, item % SCREENS, item)
    own = (
        (kind == FAVOURITE) & people.logged_in[device] & (rng.random(len(kind)) < settings.personal)
    )
    page = _zipf(rng, np.full(len(kind), PERSONAL_PAGES))
    item = np.where(own, PERSONAL + user * PERSONAL_PAGES + page, item)
    domain = domain + by_app * n_domains  # the app's
    return domain * ITEMS + item
