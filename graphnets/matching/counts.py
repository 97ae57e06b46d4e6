"""How often each device visits each prefix and word: counts in CSR, made in blocks of devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from graphnets.matching.logs import Logs, Pages

BLOCK = 4096  # devices
Family = tuple[np.ndarray, np.ndarray]  # pages and their ids in one vocabulary


def families(pages: Pages, levels: Sequence[int] | None = None, words: bool = True) -> list[Family]:
    """The ids of the pages at each level, all when None, and of their words: one family each.

    Raises:
        ValueError: there is no such level.
    """
    n_levels = pages.prefixes.shape[1]
    chosen = range(n_levels) if levels is None else levels
    found = []
    for level in chosen:
        if not 0 <= level < n_levels:
            raise ValueError(f"levels: expected 0 to {n_levels - 1}, got {level}")
        ids = pages.prefixes[:, level].numpy()
        page = np.nonzero(ids >= 0)[0]
        found.append((page, ids[page]))
    if words:
        found.append((pages.words.row.numpy(), pages.words.values.numpy()))
    return found


def page_tokens(
    parts: Sequence[Family], vocabulary: Sequence[np.ndarray], n_pages: int
) -> sp.csr_array:
    """Which page has which token, (n_pages, n_tokens) of ones, float32.

    The columns are those ids of each family that are in its vocabulary, sorted ids, one family
    after another; others are left out.
    """
    rows, columns, first = [], [], 0
    for (page, ids), known in zip(parts, vocabulary):
        place = np.searchsorted(known, ids)
        found = place < len(known)
        found[found] = known[place[found]] == ids[found]
        rows.append(page[found])
        columns.append(first + place[found])
        first += len(known)
    row = np.concatenate([np.zeros(0, np.int64), *rows])
    column = np.concatenate([np.zeros(0, np.int64), *columns])
    ones = np.ones(len(row), np.float32)
    matrix = sp.csr_array(sp.coo_array((ones, (row, column)), shape=(n_pages, first)))
    matrix.data[:] = 1  # a word that a page has twice
    return matrix


def count_blocks(logs: Logs, tokens: sp.csr_array) -> Iterator[sp.csr_array]:
    """Visits of each token, (up to BLOCK, n_tokens) float32, from the first devices to the last."""
    ptr, page = logs.page.ptr.numpy(), logs.page.values.numpy()
    for begin in range(0, len(logs), BLOCK):
        bounds = ptr[begin : begin + BLOCK + 1]
        visited = page[bounds[0] : bounds[-1]]
        ones = np.ones(len(visited), np.float32)
        shape = (len(bounds) - 1, tokens.shape[0])
        visits = sp.csr_array((ones, visited, bounds - bounds[0]), shape=shape, copy=True)
        visits.sum_duplicates()
        yield sp.csr_array(visits @ tokens)


def column_counts(matrix: sp.csr_array) -> np.ndarray:
    """The number of entries of each column, (n_columns,) int64."""
    return np.bincount(matrix.indices, minlength=matrix.shape[1])


def unit_rows(matrix: sp.csr_array) -> sp.csr_array:
    """Rows of length one; rows of zeros stay."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    squares = np.bincount(rows, matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[0])
    scale = 1 / np.sqrt(np.where(squares > 0, squares, 1))
    data = matrix.data * scale[rows].astype(matrix.data.dtype)
    return sp.csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)
