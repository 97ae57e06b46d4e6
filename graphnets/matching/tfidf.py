"""TF-IDF vectors of devices over the prefixes and words of the pages that they visit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.counts import (
    column_counts,
    count_blocks,
    families,
    page_tokens,
    unit_rows,
)
from graphnets.matching.logs import Logs
from graphnets.matching.pairs import checked_pairs

Counts = Literal["binary", "log", "linear"]
PAIRS = 20_000  # pairs compared at once


class TfIdf:
    """Unit vectors of devices by which tokens they visit, the rarer the heavier.

    A token is a prefix at a level, or a word. In the vector of a device that visits token t c
    times, it weighs `tf(c) * idf_t ** power`; tf(c) is 1 ("binary"), 1 + log(c) ("log") or c
    ("linear"). With "log" and power 1 this is scikit-learn's `TfidfVectorizer(sublinear_tf=True)`.

    Unsupervised, with d_t of n devices having t: `idf_t = log((n + 1) / (d_t + 1)) + 1`.
    Supervised (M. C. Phan, A. Sun, Y. Tay, SIGIR 2017):
    `idf_t = log(n (match_t + 1) / (pairs_t + 1)) + 1`, at least 0, over the n devices whose users
    are known; pairs_t pairs of them share t, match_t of these are one user's. A token that no two
    of them share gets the mean weight of those shared ones that as many devices of all have, to a
    power of two, or else the unsupervised one.

    Args:
        levels: those of `Pages.prefixes` to take; all when None.
        words: whether to take `Pages.words`.
        min_df: tokens that fewer devices have are left out.
        max_df: tokens that a greater share of devices has are left out: they weigh little, and
            nearest neighbours cost the sum of squares of the numbers of devices.
        counts, power: see above.
    """

    def __init__(
        self,
        levels: Sequence[int] | None = None,
        words: bool = True,
        min_df: int = 2,
        max_df: float = 1.0,
        counts: Counts = "binary",
        power: float = 2.0,
    ) -> None:
        if min_df < 1:
            raise ValueError(f"min_df: expected at least one device, got {min_df}")
        if not 0 < max_df <= 1:
            raise ValueError(f"max_df: expected a share above 0 and to 1, got {max_df}")
        if counts not in get_args(Counts):
            raise ValueError(f"counts: expected one of {get_args(Counts)}, got {counts!r}")
        self.levels, self.words = levels, words
        self.min_df, self.max_df = min_df, max_df
        self.counts: Counts = counts
        self.power = power
        self._idf: np.ndarray | None = None
        self._vocabulary: list[np.ndarray] = []

    @property
    def fitted(self) -> bool:
        """Whether there are weights."""
        return self._idf is not None

    @property
    def idf(self) -> np.ndarray:
        """Of each token, (n_tokens,) float32: levels one after another, then words.

        Raises:
            ValueError: `fit` was not called before.
        """
        if self._idf is None:
            raise ValueError("TfIdf: no weights yet; call fit(logs) first")
        return self._idf

    def fit(
        self, logs: Logs, positive_pairs: Tensor | None = None, devices: Tensor | None = None
    ) -> Self:
        """Find the tokens of `logs` and their weights.

        Args:
            logs: all that is at hand, of known users and others.
            positive_pairs: (k, 2) int64, of all pairs of `devices` those that are one user's; the
                weights are then supervised.
            devices: (m,) int64, the devices whose users are known; all when None.

        Raises:
            ValueError: a level does not exist, or a pair is not of `devices`.
        """
        parts = families(logs.pages, self.levels, self.words)
        everything = [np.unique(ids) for _, ids in parts]
        tokens = page_tokens(parts, everything, len(logs.pages))
        frequency = np.zeros(tokens.shape[1], np.int64)
        for block in count_blocks(logs, tokens):
            frequency += column_counts(block)
        kept = (frequency >= self.min_df) & (frequency <= self.max_df * len(logs))
        splits = np.cumsum([len(ids) for ids in everything])[:-1]
        chosen = np.split(kept, splits) if everything else []
        self._vocabulary = [ids[mask] for ids, mask in zip(everything, chosen)]
        idf = np.log((len(logs) + 1) / (frequency[kept] + 1)) + 1
        if positive_pairs is not None:
            known = torch.arange(len(logs)) if devices is None else devices
            found = sp.csr_array(tokens[:, np.nonzero(kept)[0]])
            idf = _supervised(logs, found, positive_pairs, known, frequency[kept], idf)
        self._idf = idf.astype(np.float32)
        return self

    def transform(self, logs: Logs) -> sp.csr_array:
        """Vectors (n, n_tokens) float32 of unit rows; zero where a device has no token of `fit`.

        Args:
            logs: of pages whose ids mean what they meant in `fit`.

        Raises:
            ValueError: `fit` was not called before.
        """
        weight = self.idf**self.power
        parts = families(logs.pages, self.levels, self.words)
        tokens = page_tokens(parts, self._vocabulary, len(logs.pages))
        blocks = [sp.csr_array((0, len(weight)), dtype=np.float32)]
        for block in count_blocks(logs, tokens):
            tf = _term_frequency(block.data, self.counts)
            data = tf * weight[block.indices]
            vectors = sp.csr_array((data, block.indices, block.indptr), shape=block.shape)
            vectors.sort_indices()  # products of rows are then faster
            blocks.append(unit_rows(vectors))
        return sp.csr_array(sp.vstack(blocks, format="csr"))


def _term_frequency(counts: np.ndarray, kind: Counts) -> np.ndarray:
    if kind == "binary":
        return np.ones_like(counts)
    return counts if kind == "linear" else 1 + np.log(counts)


def _supervised(
    logs: Logs,
    tokens: sp.csr_array,
    positive_pairs: Tensor,
    devices: Tensor,
    frequency: np.ndarray,
    idf: np.ndarray,
) -> np.ndarray:
    """Weights from the pairs that share a token, (n_tokens,); `idf` the unsupervised ones."""
    checked_pairs(positive_pairs, len(logs))
    place = torch.full((len(logs),), -1)
    place[devices] = torch.arange(len(devices))
    pairs = place[positive_pairs]
    if bool((pairs < 0).any()):
        i, j = positive_pairs[(pairs < 0).any(1)][0].tolist()
        raise ValueError(f"positive_pairs: ({i}, {j}) is not a pair of devices")
    blocks = [sp.csr_array((0, tokens.shape[1]), dtype=np.float32)]
    has = sp.csr_array(sp.vstack(blocks + list(count_blocks(logs.select(devices), tokens))))
    match = np.zeros(tokens.shape[1])
    for block in pairs.split(PAIRS):
        first, second = block.numpy().T
        match += column_counts(sp.csr_array(has[first].multiply(has[second])))
    of_known = column_counts(has)
    shared = of_known * (of_known - 1) / 2
    found = np.maximum(np.log(len(devices) * (match + 1) / (shared + 1)) + 1, 0)
    size = np.log2(frequency).astype(np.int64)
    seen = shared > 0
    count = np.bincount(size[seen], minlength=64)
    mean = np.bincount(size[seen], found[seen], minlength=64) / np.maximum(count, 1)
    return np.where(seen, found, np.where(count[size] > 0, mean[size], idf))
