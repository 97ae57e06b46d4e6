"""Vectors of tokens from the company that they keep, without labels."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

from graphnets.ragged import Ragged


def cooccurrence_vectors(
    sequences: Ragged, n_tokens: int, width: int, window: int = 5, seed: int = 0
) -> Tensor:
    """Vectors (n_tokens, width) float32 of tokens that come near each other in sequences.

    The singular vectors, times the roots of the singular values, of the positive pointwise mutual
    information of tokens at most `window` places apart: what skip-gram with negative sampling
    factorizes, O. Levy and Y. Goldberg, NIPS 2014. Lengths are at most one; a token that has no
    neighbour gets zeros.

    Args:
        sequences: for each member its tokens, int64 from 0 to n_tokens - 1, in order.
        n_tokens: of the vocabulary.
        width: of the vectors; those beyond the rank are zeros.
        window: largest distance between tokens.
        seed: of the iteration's first vector; the signs of the vectors depend on it.

    Raises:
        ValueError: width or window is less than one, or a token is out of range.
    """
    if min(width, window) < 1:
        raise ValueError(f"width and window: expected at least 1, got {width} and {window}")
    values = sequences.values
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < n_tokens:
        raise ValueError(
            f"sequences: expected tokens from 0 to {n_tokens - 1}, got {int(values.min())} to "
            f"{int(values.max())}"
        )
    M = _mutual_information(_together(sequences, n_tokens, window))
    vectors = np.zeros((n_tokens, width), dtype=np.float32)
    present = np.flatnonzero(np.diff(M.indptr))
    k = min(width, len(present) - 1)
    if k > 0:
        start = np.random.default_rng(seed).standard_normal(len(present))
        U, s, _ = scipy.sparse.linalg.svds(M[present][:, present], k=k, v0=start)
        vectors[present, :k] = (U * np.sqrt(s))[:, ::-1]
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(vectors / np.maximum(lengths, 1.0))


def _together(sequences: Ragged, n: int, window: int) -> sp.csr_array:
    """How often tokens are at most `window` places apart, both ways, (n, n)."""
    row, token = sequences.row.numpy(), sequences.values.numpy()
    total = sp.csr_array((n, n), dtype=np.float64)
    for distance in range(1, window + 1):
        near = row[distance:] == row[:-distance]
        a, b = token[:-distance][near], token[distance:][near]
        total = sp.csr_array(total + sp.csr_array((np.ones(len(a)), (a, b)), shape=(n, n)))
    total = sp.csr_array(total + total.T)
    total.setdiag(0)
    total.eliminate_zeros()
    return total


def _mutual_information(C: sp.csr_array) -> sp.csr_array:
    """max(0, log of how much oftener two tokens are together than by chance)."""
    total, alone = C.sum(), C.sum(1)
    coo = C.tocoo()
    row, col = coo.coords
    information = np.log(coo.data * total / (alone[row] * alone[col]))
    return sp.csr_array((np.maximum(information, 0), (row, col)), shape=C.shape).tocsr()
