"""The people of synthetic logs and what they visit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnets.matching.synthetic_settings import Synthetic
from graphnets.matching.synthetic_times import Rhythms, times_of
from graphnets.matching.synthetic_web import HUBS, ITEMS, PERSONAL, PERSONAL_PAGES, salted

LEAST_TOPICS = 8
POPULAR = 50  # domains that everybody visits
LARGEST = 4_000  # items of the most popular domain
SCREENS = 4  # pages of an app
FRONT = 0.8  # of bursts begin on the front page
ROUTINE, FAVOURITE, INTEREST, OTHER = range(4)  # kinds of bursts


@dataclass(frozen=True)
class People:
    """Users, their devices and the domains they choose from.

    Attributes:
        user, mobile, visits, logged_in: (n_devices,) of each device: whose it is, whether it is
            mobile, the length of its log, whether it visits personal pages.
        weights: (n_devices, favourites) rising to 1: how often a device visits which favourite.
        favourites: (n_users, favourites), domains.
        interests: (n_users, interests), topics.
        topic_of_domain: (n_domains,), the most popular domain first.
        by_topic: the domains in the order of their topics.
        popularity: (n_domains + 1,), cumulative in that order.
        topic_begin: (topics + 1,), where a topic begins there.
        rhythms: of users and devices.
    """

    user: np.ndarray
    mobile: np.ndarray
    visits: np.ndarray
    logged_in: np.ndarray
    weights: np.ndarray
    favourites: np.ndarray
    interests: np.ndarray
    topic_of_domain: np.ndarray
    by_topic: np.ndarray
    popularity: np.ndarray
    topic_begin: np.ndarray
    rhythms: Rhythms

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, settings: Synthetic) -> People:
        """Draw n devices and their users."""
        user, n_users = _users(rng, n, settings)
        n_topics = max(LEAST_TOPICS, round(settings.topics_per_device * n))
        n_domains = max(4 * n_topics, POPULAR, round(settings.domains_per_device * n))
        topic = rng.permutation(np.arange(n_domains) % n_topics)
        by_topic = np.argsort(topic, kind="stable")
        popularity = np.concatenate([[0.0], np.cumsum(1.0 / (1 + by_topic))])
        topic_begin = np.searchsorted(topic[by_topic], np.arange(n_topics + 1))
        interests = rng.integers(0, n_topics, (n_users, settings.interests))
        chosen = rng.integers(0, settings.interests, (n_users, settings.favourites))
        topics = np.take_along_axis(interests, chosen, 1)
        favourites = _domains(rng, topics, by_topic, popularity, topic_begin)
        mobile = rng.random(n) < settings.mobile
        length = np.exp(rng.normal(np.log(settings.median_visits), settings.spread, n))
        return cls(
            user,
            mobile,
            np.clip(np.rint(length), 2, settings.most_visits).astype(np.int64),
            rng.random(n) >= settings.anonymous,
            _weights(rng, n, settings),
            favourites,
            interests,
            topic,
            by_topic,
            popularity,
            topic_begin,
            Rhythms.draw(rng, n_users, user, mobile, settings.days),
        )

    def names(self, seed: int) -> list[str]:
        """Of the devices: 32 hexadecimal digits, as in the cup."""
        number = np.arange(len(self.user))
        first, second = salted(number, seed).tolist(), salted(number, seed + 1).tolist()
        return [f"{a:016x}{b:016x}" for a, b in zip(first, second)]


@dataclass(frozen=True)
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


def _users(rng: np.random.Generator, n: int, settings: Synthetic) -> tuple[np.ndarray, int]:
    """The user of each of n devices, in any order, and how many users there are."""
    shares = np.array(settings.device_counts) / sum(settings.device_counts)
    counts = 1 + rng.choice(len(shares), size=n, p=shares)  # more users than are needed
    user = np.repeat(np.arange(n), counts)[:n]
    return rng.permutation(user), int(user[-1]) + 1 if n else 0


def _weights(rng: np.random.Generator, n: int, settings: Synthetic) -> np.ndarray:
    """How often each device visits each favourite: a user's order, with the device's own taste."""
    common = 1.0 / (1 + np.arange(settings.favourites))
    taste = rng.gamma(1.0, size=(n, settings.favourites))
    taste[rng.random(taste.shape) < settings.skipped] = 1e-12  # never zero in all
    cumulative = np.cumsum(common * taste, 1)
    return cumulative / cumulative[:, -1:]


def _domains(
    rng: np.random.Generator,
    topics: np.ndarray,
    by_topic: np.ndarray,
    popularity: np.ndarray,
    topic_begin: np.ndarray,
) -> np.ndarray:
    """For each of `topics` a domain of that topic, the popular ones more often."""
    low, high = popularity[topic_begin[topics]], popularity[topic_begin[topics + 1]]
    place = np.searchsorted(popularity, low + rng.random(topics.shape) * (high - low), "right") - 1
    return by_topic[np.clip(place, topic_begin[topics], topic_begin[topics + 1] - 1)]


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
    domain[at] = _domains(
        rng,
        people.interests[user[at], column],
        people.by_topic,
        people.popularity,
        people.topic_begin,
    )
    at = np.flatnonzero(kind == OTHER)
    domain[at] = _zipf(rng, np.full(len(at), POPULAR), steep=4.0)
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
    user = people.user[device]
    size = HUBS + (LARGEST / np.sqrt(1 + domain)).astype(np.int64)
    item = _zipf(rng, size)
    item[(place == 0) & (rng.random(len(item)) < FRONT)] = 0
    # a user's path through the hubs of a site: all of them are on it, the order is the user's
    path = salted(user * len(people.topic_of_domain) + domain, 20)
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
    domain = domain + by_app * len(people.topic_of_domain)  # the app's
    return domain * ITEMS + item
