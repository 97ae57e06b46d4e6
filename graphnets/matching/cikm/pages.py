"""urls.csv and titles.csv of CIKM Cup 2016: what is known of the visited pages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graphnets.matching.hashing import (
    distinct,
    hashed_runs,
    number_in_place,
    numbered_prefixes,
    prefix_hashes,
)
from graphnets.matching.logs import Pages
from graphnets.matching.text_blocks import (
    NEWLINE,
    GrowingArray,
    Progress,
    byte_blocks,
    line_error,
)
from graphnets.ragged import Ragged

RETURN, COMMA = 13, 44
URL_SEPARATORS, TITLE_SEPARATORS = b"/?", b" "
LINES = 1 << 18  # lines that are put in place at a time


def read_pages(
    fids: np.ndarray,
    urls: Path,
    titles: Path | None,
    levels: int,
    progress: Progress | None = None,
) -> Pages:
    """What is known of the pages `fids` (n,) int64, sorted; lines of other pages are skipped.

    Raises:
        ValueError: a line is not as `load_cikm` says.
    """
    prefixes = _Prefixes(len(fids), levels)
    sources = [_read(urls, URL_SEPARATORS, fids, prefixes, progress)]
    if titles is not None:
        sources.append(_read(titles, TITLE_SEPARATORS, fids, None, progress))
    return Pages(
        torch.from_numpy(numbered_prefixes(prefixes.hashes, prefixes.depth)),
        _joined(sources, len(fids)),
    )


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Lines of tokens: row (k,) of the page and length (k,) of each line, and hashes of tokens."""

    row: np.ndarray
    length: np.ndarray
    hashes: np.ndarray


class _Prefixes:
    """The hashes of the first parts of each page's address."""

    def __init__(self, n: int, levels: int) -> None:
        self.hashes = np.zeros((n, levels), np.int64)
        self.depth = np.zeros(n, np.int64)

    def add(self, tokens: _Tokens) -> None:
        """Add the addresses of some pages."""
        begin = tokens.length.cumsum() - tokens.length
        parts = np.zeros((len(tokens.row), self.hashes.shape[1]), np.uint64)
        for level in range(parts.shape[1]):
            deep = tokens.length > level
            parts[deep, level] = tokens.hashes[begin[deep] + level]
        self.hashes[tokens.row] = prefix_hashes(parts).view(np.int64)
        self.depth[tokens.row] = tokens.length


def _read(
    path: Path,
    separators: bytes,
    fids: np.ndarray,
    prefixes: _Prefixes | None,
    progress: Progress | None,
) -> _Tokens:
    """The tokens of the pages that are visited, one line after another."""
    seen = np.zeros(len(fids), bool)
    rows, lengths = GrowingArray(np.int64), GrowingArray(np.int32)
    hashes = GrowingArray(np.uint64)
    for first, block in byte_blocks(path, progress):
        data = np.frombuffer(block, np.uint8)
        tokens = _visited(_Lines(path, first, data), separators, fids, seen)
        if prefixes is not None:
            prefixes.add(tokens)
        rows.extend(tokens.row)
        lengths.extend(tokens.length)
        hashes.extend(tokens.hashes)
    return _Tokens(rows.finish(), lengths.finish(), hashes.finish())


class _Lines:
    """A block of lines `fid,text`: where each begins, ends and has its comma."""

    def __init__(self, path: Path, first: int, data: np.ndarray) -> None:
        self.path, self.first, self.data = path, first, data
        self.end = np.flatnonzero(data == NEWLINE)
        self.begin = np.concatenate([[0], self.end + 1])[:-1]
        commas = np.append(np.flatnonzero(data == COMMA), len(data))
        self.comma = commas[np.searchsorted(commas, self.begin)]
        self.check(self.comma < self.end, "expected 'fid,text'")

    def check(self, good: np.ndarray, message: str) -> None:
        """Raise ValueError for the first line that is not good."""
        if not good.all():
            i = int(np.argmin(good))
            text = self.data[self.begin[i] : self.end[i]].tobytes()[:60]
            raise line_error(self.path, self.first + i, f"{message}, got {text!r}")

    def fids(self) -> np.ndarray:
        """(k,) int64."""
        digits = self.comma - self.begin
        self.check((digits > 0) & (digits < 19), "expected a whole number and a comma")
        numbers = np.zeros(len(digits), np.int64)
        for place in range(int(digits.max(initial=0))):
            open_ = digits > place
            digit = self.data[self.begin[open_] + place].astype(np.int64) - ord("0")
            good = np.ones(len(digits), bool)
            good[open_] = (digit >= 0) & (digit <= 9)
            self.check(good, "expected a whole number and a comma")
            numbers[open_] = numbers[open_] * 10 + digit
        return numbers


def _visited(lines: _Lines, separators: bytes, fids: np.ndarray, seen: np.ndarray) -> _Tokens:
    numbers = lines.fids()
    row = np.searchsorted(fids, numbers)
    row[row == len(fids)] = 0
    kept = fids[row] == numbers if len(fids) else np.zeros(len(numbers), bool)
    _check_new(lines, row, kept, seen)

    cut = np.zeros(256, bool)
    cut[[NEWLINE, RETURN, *separators]] = True
    separator = cut[lines.data]
    separator[lines.comma] = True
    ends, lengths, hashes = hashed_runs(lines.data, separator)
    line = np.searchsorted(lines.end, ends)
    token = (lengths > 0) & (ends > lines.comma[line]) & kept[line]
    counts = np.bincount(line[token], minlength=len(kept))
    return _Tokens(row[kept], counts[kept], hashes[token])


def _check_new(lines: _Lines, row: np.ndarray, kept: np.ndarray, seen: np.ndarray) -> None:
    """Raise ValueError for a page that has two lines."""
    where = np.flatnonzero(kept)
    again = seen[row[where]]
    again[np.setdiff1d(np.arange(len(where)), np.unique(row[where], return_index=True)[1])] = True
    good = np.ones(len(row), bool)
    good[where] = ~again
    lines.check(good, "expected one line for each fid, but this one has another before")
    seen[row[where]] = True


def _joined(sources: list[_Tokens], n: int) -> Ragged:
    """The words of n pages, from all sources, numbered."""
    lengths = np.zeros(n, np.int64)
    for tokens in sources:
        lengths[tokens.row] += tokens.length
    offset = lengths.cumsum() - lengths
    words = np.empty(int(lengths.sum()), np.int64)
    while sources:  # each is let go as soon as its tokens are in place
        tokens = sources.pop(0)
        begin = 0
        for start in range(0, len(tokens.row), LINES):
            row = tokens.row[start : start + LINES]
            count = tokens.length[start : start + LINES].astype(np.int64)
            place = np.repeat(offset[row] - (count.cumsum() - count), count)
            place += np.arange(len(place))
            words[place] = tokens.hashes[begin : begin + len(place)].view(np.int64)
            offset[row] += count
            begin += len(place)
    number_in_place(words, distinct(words))
    return Ragged.from_lengths(torch.from_numpy(lengths), torch.from_numpy(words))
