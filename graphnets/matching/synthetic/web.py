"""The web of synthetic logs: a tree of domains, sections and pages, with titles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from graphnets.matching.hashing import (
    distinct,
    mixed,
    number_in_place,
    numbered_prefixes,
    prefix_hashes,
)
from graphnets.matching.logs import Pages
from graphnets.ragged import Ragged

ITEMS = 1 << 34  # of a domain: a page's key is domain * ITEMS + item
HUBS = 11  # the first items of a domain: its front page and those of its sections
PERSONAL = 1 << 33  # items from here are pages of one user
PERSONAL_PAGES = 8  # of a user in a domain
LEVELS = 4
TITLE_WORDS = 12  # at most
VOCABULARY = 300  # words of a topic


def salted(values: np.ndarray, salt: int) -> np.ndarray:
    """Hashes of int64 values, others for another salt; uint64."""
    return mixed(values.astype(np.uint64) ^ mixed(np.array([salt], np.uint64)))


@dataclass(frozen=True, eq=False)
class SyntheticWeb:
    """Pages by their keys (n,) int64, sorted, and the topic of each domain."""

    keys: np.ndarray
    topic_of_domain: np.ndarray

    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each page the parts of its address, (n, 4) uint64 hashes, and how many it has, (n,).

        A front page is `domain`, a section's `domain/section`, others `domain/section/page` or
        `domain/section/folder?page`, and those of a user `domain/section/user?page`.
        """
        domain, item = self.keys // ITEMS, self.keys % ITEMS
        own = item >= PERSONAL
        user, which = np.divmod(item - PERSONAL, PERSONAL_PAGES)
        section = np.where(item < HUBS, item, salted(self.keys, 1) % np.uint64(HUBS - 1) + 1)
        folded = salted(self.keys, 2) % np.uint64(2) == 1
        parts = np.stack(
            [
                salted(domain, 3),
                salted(np.where(own, HUBS, section), 4),
                np.where(own, salted(user, 5), salted(np.where(folded, item // 8, self.keys), 6)),
                np.where(own, salted(which, 7), salted(item, 8)),
            ],
            1,
        )
        depth = np.select([item == 0, item < HUBS, own | folded], [1, 2, 4], 3)
        return parts, depth

    def titles(self) -> Ragged:
        """The words of each page's title as hashes, viewed as int64; four pages of ten have none.

        Half of the words are of the topic of the domain, the others of all topics.
        """
        n = len(self.keys)
        count = salted(self.keys, 9) % np.uint64(TITLE_WORDS - 2) + np.uint64(3)
        count[salted(self.keys, 10) % np.uint64(10) < 4] = 0
        lengths = count.astype(np.int64)
        row = np.repeat(np.arange(n), lengths)
        place = np.arange(len(row)) - np.repeat(lengths.cumsum() - lengths, lengths)
        draw = salted(self.keys[row] * TITLE_WORDS + place, 11)
        share = (draw >> np.uint64(11)).astype(np.float64) / 2**53
        word = (VOCABULARY**share - 1).astype(np.int64)
        topic = 1 + self.topic_of_domain[self.keys[row] // ITEMS % len(self.topic_of_domain)]
        topic[draw % np.uint64(2) == 0] = 0
        hashes = salted(topic * VOCABULARY + word, 12).view(np.int64)
        return Ragged.from_lengths(torch.from_numpy(lengths), torch.from_numpy(hashes))

    def pages(self) -> Pages:
        """The pages as `load_cikm` would give them, but for the numbers of prefixes and words."""
        parts, depth = self.parts()
        there = np.arange(LEVELS) < depth[:, None]
        titles = self.titles()
        lengths = depth + titles.lengths.numpy()
        words = np.empty(int(lengths.sum()), np.int64)
        begin = lengths.cumsum() - lengths
        place = (begin[:, None] + np.arange(LEVELS))[there]
        words[place] = parts[there].view(np.int64)
        rest = np.ones(len(words), bool)
        rest[place] = False
        words[rest] = titles.values.numpy()
        number_in_place(words, distinct(words))
        return Pages(
            torch.from_numpy(numbered_prefixes(prefix_hashes(parts).view(np.int64), depth)),
            Ragged.from_lengths(torch.from_numpy(lengths), torch.from_numpy(words)),
        )
