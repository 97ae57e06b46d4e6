"""Files of tokens that are mapped into memory: any size, opened at once."""

from __future__ import annotations

import filecmp
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from sparsetorch.whole_files import replacing


class TokenFile:
    """All tokens of many documents, one after another, and where each begins.

    Two files beside each other: PATH, the tokens as an .npy of uint16 or uint32, and PATH.starts,
    an .npy of int64.

    Args:
        path: that `write_tokens` wrote.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged, or they do not belong together.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.tokens = _opened(self.path)
        self.starts = np.array(_opened(_starts(self.path)))
        whole = len(self.starts) > 0 and self.starts[0] == 0 and np.all(np.diff(self.starts) > 0)
        if self.tokens.dtype not in (np.uint16, np.uint32) or not whole:
            raise ValueError(f"path: {path} is no file of tokens")
        if self.starts[-1] >= len(self.tokens):
            raise ValueError(
                f"path: {path} has {len(self.tokens)} tokens, but a document begins at "
                f"{self.starts[-1]}; write it again"
            )

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.tokens)

    def documents(self, start: int, stop: int) -> np.ndarray:
        """Which document each of the tokens from start to stop is of, (stop - start,) int64."""
        return np.searchsorted(self.starts, np.arange(start, stop), side="right") - 1


def write_tokens(path: str | Path, documents: Iterable[Sequence[int]], vocab_size: int) -> None:
    """Write the tokens of documents, with what ends each; a file that is there is whole.

    Whatever fails before all is written leaves an older file as it was. Several that write the same
    documents to one path at once do not disturb each other.

    Args:
        path: of the file.
        documents: one after another; they need not fit into memory together. Empty ones are left
            out.
        vocab_size: tokens are below it.

    Raises:
        TypeError: a document is no sequence of integers.
        ValueError: a token is not in the vocabulary, or there is no document.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
    with (
        replacing(path) as partial,
        replacing(_starts(path)) as partial_starts,
        TemporaryFile(dir=path.parent) as raw,
    ):
        ends = _write_raw(raw, documents, vocab_size, dtype)
        mapped = np.lib.format.open_memmap(partial, "w+", dtype, (ends[-1],))
        mapped[:] = np.memmap(raw, dtype, "r")
        mapped.flush()
        with partial_starts.open("wb") as file:
            np.save(file, np.array([0, *ends[:-1]], dtype=np.int64))
        # An older file goes first and the new one comes last: neither meets the other's starts.
        if not _same(partial_starts, _starts(path)):
            path.unlink(missing_ok=True)


def _write_raw(
    raw: IO[bytes], documents: Iterable[Sequence[int]], vocab_size: int, dtype: type
) -> list[int]:
    """Write all tokens and nothing else; where each document that has some ends."""
    ends, count = [], 0
    for place, document in enumerate(documents):
        tokens = np.asarray(document)
        if tokens.shape == (0,):
            continue
        if tokens.dtype.kind not in "iu" or tokens.ndim != 1:
            raise TypeError(
                f"documents: expected integers in document {place}, (n,), got {tokens.dtype} of "
                f"shape {tokens.shape}"
            )
        if tokens.min() < 0 or tokens.max() >= vocab_size:
            raise ValueError(
                f"documents: expected tokens from 0 to {vocab_size - 1}, got {tokens.min()} to "
                f"{tokens.max()}"
            )
        tokens.astype(dtype).tofile(raw)
        count += len(tokens)
        ends.append(count)
    if not ends:
        raise ValueError("documents: expected at least one token, got none")
    return ends


def _starts(path: Path) -> Path:
    return path.with_name(path.name + ".starts")


def _same(one: Path, other: Path) -> bool:
    return other.exists() and filecmp.cmp(one, other, shallow=False)


def _opened(path: Path) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(f"path: there is no file {path}")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"path: {path} is damaged ({error})") from error
    if array.ndim != 1:
        raise ValueError(f"path: {path} is no file of tokens")
    return array
