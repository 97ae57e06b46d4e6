"""Vectors of tokens and pages from the order of visits, and the sequences that they come from."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnets.assignment import by_gap
from graphnets.cooccurrence import cooccurrence_vectors
from graphnets.matching.logs import HOUR, Logs
from graphnets.matching.vocabulary import Vocabulary
from graphnets.ragged import Ragged


def check_vectors(vectors: Tensor | None, known: Vocabulary, width: int) -> None:
    """Raise ValueError unless `vectors` are what a matcher takes that was made for this width.

    Float32 of shape (n_tokens, width), or None where width is 0.
    """
    if not width:
        if vectors is not None:
            raise ValueError(
                f"vectors: this matcher takes none, got some of shape {tuple(vectors.shape)}; "
                "leave them out, or make one of their width"
            )
        return
    expected = (len(known.kinds), width)
    if vectors is None:
        raise ValueError(
            f"vectors: this matcher takes those of the vocabulary's tokens, {expected}, got None; "
            "see token_vectors"
        )
    if vectors.shape != expected or vectors.dtype != torch.float32:
        raise ValueError(
            f"vectors: expected float32 of shape {expected}, one for each token of the vocabulary, "
            f"of the width that the matcher was made for, got {vectors.dtype} of shape "
            f"{tuple(vectors.shape)}"
        )


def check_finite(vectors: Tensor | None) -> None:
    """Raise ValueError if a vector has NaN or infinity."""
    if vectors is not None and not bool(vectors.isfinite().all()):
        token = int((~vectors.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"vectors: that of token {token} has NaN or infinity")


def check_levels(known: Vocabulary, levels: int) -> None:
    """Raise ValueError unless the prefixes of a vocabulary's pages have so many levels."""
    if known.n_levels != levels:
        raise ValueError(
            f"known: prefixes of these logs have {known.n_levels} levels, the matcher was made for "
            f"{levels}"
        )


def prefix_sequences(logs: Logs, known: Vocabulary, level: int, gap: int = HOUR // 2) -> Ragged:
    """For each device the prefixes of its visits, each once a session, as tokens of `known`.

    Sessions end with a pause longer than `gap`, ms; within one, tokens come in the order of their
    first visits. Visits without this level are left out.
    """
    token = prefix_tokens(known, level)[logs.page.values]
    session, _ = by_gap(gap)(logs.page, logs.time)
    kept = (token >= 0).nonzero()[:, 0]
    keys = session[kept] * max(len(known.kinds), 1) + token[kept]
    found, inverse = keys.unique(return_inverse=True)
    first = torch.full((len(found),), len(token)).scatter_reduce(0, inverse, kept, "amin")
    visits = first.sort().values
    return Ragged.from_rows(logs.page.row[visits], token[visits], len(logs))


def prefix_tokens(known: Vocabulary, level: int) -> Tensor:
    """The token of each page's prefix of this level, (n_pages,) int64; -1 where it has none."""
    found = torch.full((len(known.tokens),), -1)
    chosen = known.kinds[known.tokens.values] == level
    found[known.tokens.row[chosen]] = known.tokens.values[chosen]
    return found


def token_vectors(logs: Logs, known: Vocabulary, width: int, window: int = 5) -> Tensor:
    """Vectors (n_tokens, width) of the prefixes of each level, without labels; zeros for words."""
    found = torch.zeros(len(known.kinds), width)
    for level in range(known.n_levels):
        sequences = prefix_sequences(logs, known, level)
        of_level = (known.kinds == level).nonzero()[:, 0]
        if not len(of_level):
            continue
        start = int(of_level[0])  # the tokens of a kind are one after another
        numbered = sequences.with_values(sequences.values - start)
        found[of_level] = cooccurrence_vectors(numbered, len(of_level), width, window)
    return found


def page_vectors(pages: Tensor, known: Vocabulary, vectors: Tensor) -> Tensor:
    """The mean of the vectors (n_tokens, width) of the prefixes of pages (k,): (k, width)."""
    found, _ = known.tokens.select(pages)
    prefix = known.kinds[found.values] < known.n_levels
    row, token = found.row[prefix], found.values[prefix]
    sums = vectors.new_zeros(len(pages), vectors.shape[1]).index_add_(0, row, vectors[token])
    return sums / torch.bincount(row, minlength=len(pages)).clamp(min=1)[:, None]
