"""The people of synthetic logs: users, their interests and their devices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphnets.matching.synthetic.settings import Synthetic
from graphnets.matching.synthetic.times import Rhythms
from graphnets.matching.synthetic.web import salted

LEAST_TOPICS = 8
POPULAR = 50  # domains that everybody visits


@dataclass(frozen=True, eq=False)
class Domains:
    """The domains of the web, the most popular first.

    Attributes:
        topic: (n_domains,).
        by_topic: the domains in the order of their topics.
        popularity: (n_domains + 1,), cumulative in that order: 1, 1/2, 1/3 and so on.
        begin: (n_topics + 1,), where a topic begins there.
    """

    topic: np.ndarray
    by_topic: np.ndarray
    popularity: np.ndarray
    begin: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, n_devices: int, settings: Synthetic) -> Domains:
        """Draw the topics of domains."""
        n_topics = max(LEAST_TOPICS, round(settings.topics_per_device * n_devices))
        n = max(4 * n_topics, POPULAR, round(settings.domains_per_device * n_devices))
        topic = rng.permutation(np.arange(n) % n_topics)
        by_topic = np.argsort(topic, kind="stable")
        popularity = np.concatenate([[0.0], np.cumsum(1.0 / (1 + by_topic))])
        return cls(
            topic,
            by_topic,
            popularity,
            np.searchsorted(topic[by_topic], np.arange(n_topics + 1)),
        )

    def of_topics(self, rng: np.random.Generator, topics: np.ndarray) -> np.ndarray:
        """For each of `topics`, of any shape, a domain of that topic, popular ones more often."""
        begin, end = self.begin[topics], self.begin[topics + 1]
        low, high = self.popularity[begin], self.popularity[end]
        drawn = low + rng.random(topics.shape) * (high - low)
        place = np.searchsorted(self.popularity, drawn, "right") - 1
        return self.by_topic[np.clip(place, begin, end - 1)]


@dataclass(frozen=True, eq=False)
class People:
    """Users and their devices.

    Attributes:
        user, mobile, visits, logged_in: (n_devices,) of each device: whose it is, whether it is
            mobile, the length of its log, whether it visits personal pages.
        weights: (n_devices, favourites) rising to 1: how often a device visits which favourite.
        favourites: (n_users, favourites), domains.
        interests: (n_users, interests), topics.
        domains: of the web.
        rhythms: of users and devices.
    """

    user: np.ndarray
    mobile: np.ndarray
    visits: np.ndarray
    logged_in: np.ndarray
    weights: np.ndarray
    favourites: np.ndarray
    interests: np.ndarray
    domains: Domains
    rhythms: Rhythms

    @classmethod
    def draw(cls, rng: np.random.Generator, n: int, settings: Synthetic) -> People:
        """Draw n devices and their users."""
        user, n_users = _users(rng, n, settings)
        domains = Domains.draw(rng, n, settings)
        interests = rng.integers(0, len(domains.begin) - 1, (n_users, settings.interests))
        chosen = rng.integers(0, settings.interests, (n_users, settings.favourites))
        favourites = domains.of_topics(rng, np.take_along_axis(interests, chosen, 1))
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
            domains,
            Rhythms.draw(rng, n_users, user, mobile, settings.days),
        )

    def names(self, seed: int) -> list[str]:
        """Of the devices: 32 hexadecimal digits, as in the cup."""
        number = np.arange(len(self.user))
        first, second = salted(number, seed).tolist(), salted(number, seed + 1).tolist()
        return [f"{a:016x}{b:016x}" for a, b in zip(first, second)]


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
