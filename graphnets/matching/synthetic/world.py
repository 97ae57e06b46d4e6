"""Synthetic logs, like those of CIKM Cup 2016, of any size."""

from __future__ import annotations

import numpy as np
import torch

from graphnets.matching.hashing import distinct, number_in_place
from graphnets.matching.logs import Logs
from graphnets.matching.synthetic.people import People
from graphnets.matching.synthetic.settings import Synthetic
from graphnets.matching.synthetic.visits import visits_of
from graphnets.matching.synthetic.web import SyntheticWeb
from graphnets.ragged import Ragged

CHUNK = 4096  # devices whose visits are drawn at a time


def synthetic_logs(n_devices: int, seed: int = 0, settings: Synthetic | None = None) -> Logs:
    """Logs of devices that do not exist, the same for the same arguments.

    Users have topics of interest, favourite domains, pages of their own, paths that they repeat and
    hours at which they do; each of their devices shows a part of that. The days are those of the
    cup, from 2016-04-23 on, in the users' time zones; times are whole seconds.

    With the default settings lengths are as in the cup (median 106, mean 197) and matching is about
    as hard, at any number of devices. By the cosine of TF-IDF over three prefixes, of 2,000
    (10,000) devices 70 % (68 %) of a device's partners are among its nearest 18, such neighbours
    are 74 % of the pairs, 9 % of them are pairs, and the best F1 is 0.39 (0.37). 1.5 % (2.0 %) of
    the pairs share no page.

    Args:
        n_devices: how many.
        seed: of all that is random.
        settings: what people are like; `Synthetic()` if not given.

    Returns:
        Logs in which every device has a user, and the kind 0 for desktop or 1 for mobile. Their
        pages have no names; `synthetic_world` gives their addresses too.

    Raises:
        ValueError: a number of devices that is negative.
    """
    return synthetic_world(n_devices, seed, settings or Synthetic())[0]


def synthetic_world(n_devices: int, seed: int, settings: Synthetic) -> tuple[Logs, SyntheticWeb]:
    """`synthetic_logs`, and the web whose addresses and titles `generate` writes."""
    if n_devices < 0:
        raise ValueError(f"n_devices: expected 0 or more, got {n_devices}")
    people = People.draw(np.random.default_rng([seed, 0]), n_devices, settings)
    chunks = [
        visits_of(
            np.random.default_rng([seed, 1, first]),
            people,
            np.arange(first, min(first + CHUNK, n_devices)),
            settings,
        )
        for first in range(0, n_devices, CHUNK)
    ]
    keys = np.concatenate([chunk.keys for chunk in chunks] or [np.zeros(0, np.int64)])
    time = np.concatenate([chunk.time for chunk in chunks] or [np.zeros(0, np.int64)])
    visited = distinct(keys)
    number_in_place(keys, visited)
    web = SyntheticWeb(visited, people.domains.topic)
    return Logs(
        web.pages(),
        Ragged.from_lengths(torch.from_numpy(people.visits), torch.from_numpy(keys)),
        torch.from_numpy(time),
        people.names(seed),
        torch.from_numpy(people.user),
        torch.from_numpy(people.mobile.astype(np.int64)),
        torch.zeros(n_devices, dtype=torch.int64),
        torch.arange(n_devices),
    ), web
