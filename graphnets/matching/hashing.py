"""Words of text as 64-bit numbers, and such numbers as ids, many at a time.

A vocabulary of tens of millions of strings does not fit in a dictionary, and does as 64-bit hashes:
8 bytes each. Two of n words share a hash with probability n^2 / 2^65, 4e-5 for the 36 million of
CIKM Cup 2016. A word's hash is the sum, modulo 2^64, of a random number for each of its bytes in
its place (tabulation hashing: J. L. Carter, M. N. Wegman, J. Comput. System Sci. 18 (1979)).
"""

from __future__ import annotations

from functools import cache

import numpy as np

CHUNK = 1 << 21  # values that are numbered at a time


def mixed(values: np.ndarray) -> np.ndarray:
    """A fixed bijection of 64-bit numbers that looks random: the output step of SplitMix64.

    Any shape, uint64. Source: G. L. Steele, D. Lea, C. H. Flood, OOPSLA 2014.
    """
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@cache
def _table(places: int) -> np.ndarray:
    return mixed(np.arange(places * 256, dtype=np.uint64))


def hashed_runs(data: np.ndarray, separator: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hashes of the runs of bytes between separators.

    Args:
        data: (n,) uint8.
        separator: (n,) bool, true in the last place.

    Returns:
        Of each run, empty ones too: where it ends, (k,) int64, its length, (k,) int64, and its
        hash, (k,) uint64.
    """
    ends = np.flatnonzero(separator)
    starts = np.concatenate([[0], ends + 1])[:-1]
    lengths = ends - starts
    place = np.arange(len(data)) - np.repeat(starts, lengths + 1)
    places = 1 << int(lengths.max(initial=1)).bit_length()
    terms = _table(places)[place * 256 + data]
    terms[ends] = 0
    return ends, lengths, np.add.reduceat(terms, starts) if len(starts) else terms


def prefix_hashes(parts: np.ndarray) -> np.ndarray:
    """(n, levels) uint64 of each page's first part, first two parts, and so on, by those of parts.

    Args:
        parts: (n, levels) uint64, of each page; any number behind the last part.
    """
    prefixes = np.empty_like(parts)
    prefix = np.zeros(len(parts), np.uint64)
    for level in range(parts.shape[1]):
        prefix = mixed(prefix) + parts[:, level]
        prefixes[:, level] = prefix
    return prefixes


def numbered_prefixes(prefixes: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Hashes of prefixes, (n, levels) int64, become ids, and -1 from level `depth` (n,) on."""
    beyond = depth[:, None] <= np.arange(prefixes.shape[1])
    prefixes[beyond] = 0
    number_in_place(prefixes.reshape(-1), distinct(prefixes.reshape(-1)))
    prefixes[beyond] = -1
    return prefixes


def distinct(values: np.ndarray) -> np.ndarray:
    """`np.unique(values)` of (n,), in memory for the distinct ones and a chunk."""
    parts, pending = [values[:0]], 0
    for start in range(0, len(values), CHUNK):
        parts.append(_sorted_distinct(values[start : start + CHUNK].copy()))
        pending += len(parts[-1])
        if pending > max(len(parts[0]), CHUNK):
            parts, pending = [_sorted_distinct(np.concatenate(parts))], 0
    return _sorted_distinct(np.concatenate(parts))


def _sorted_distinct(values: np.ndarray) -> np.ndarray:
    """`np.unique`, which hashes from NumPy 2.3 on and takes ten times as long; sorts in place."""
    values.sort()
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return values[new]


def number_in_place(values: np.ndarray, vocabulary: np.ndarray) -> None:
    """Each of `values` (n,), all in the sorted `vocabulary`, becomes its place there."""
    for start in range(0, len(values), CHUNK):
        chunk = values[start : start + CHUNK]
        order = chunk.argsort()  # look-ups in order stay in the cache
        chunk[order] = np.searchsorted(vocabulary, chunk[order])
