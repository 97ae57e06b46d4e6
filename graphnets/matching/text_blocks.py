"""Large text files, plain or gzipped, read in blocks of whole lines and written whole or not."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO, cast

import numpy as np

from sparsetorch.whole_files import replacing

Progress = Callable[[str, int, int], None]
BLOCK = 1 << 22  # bytes: enough for NumPy's speed, little beside the arrays that are made of it
NEWLINE = 10


def find_file(folder: str | Path, name: str) -> Path:
    """The file `name` of a folder, or `name` with .gz behind it.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: there are both.
    """
    plain, packed = Path(folder) / name, Path(folder) / f"{name}.gz"
    if plain.is_file() and packed.is_file():
        raise ValueError(f"{name}: found both {plain} and {packed}; remove the one not to be read")
    if plain.is_file() or packed.is_file():
        return plain if plain.is_file() else packed
    raise FileNotFoundError(f"{name}: no file {plain}, nor with .gz behind it")


def line_error(path: Path, line: int, message: str) -> ValueError:
    """What is wrong with a line, counted from 1."""
    return ValueError(f"{path}, line {line}: {message}")


def lines(path: Path, progress: Progress | None = None) -> Iterator[bytes]:
    """The lines of a file, without their ends.

    Args:
        path: of a file, gzipped if its name ends in .gz.
        progress: called now and then with the file's name, the bytes of it that were read and its
            size, both as they are on the disk.

    Raises:
        ValueError: a gzipped file is damaged or cut off.
    """
    for _, block in byte_blocks(path, progress):
        yield from (line.rstrip(b"\r\n") for line in io.BytesIO(block))


def byte_blocks(
    path: Path, progress: Progress | None = None, size: int = BLOCK
) -> Iterator[tuple[int, bytes]]:
    """Blocks of about `size` bytes: the number of a block's first line, from 1, and whole lines.

    Every line ends in a newline, which the last one of the file gets if it has none. Arguments and
    errors as in `lines`.
    """
    total, first, rest = path.stat().st_size, 1, b""
    with path.open("rb") as raw:
        opened = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        file = cast(IO[bytes], opened)
        while piece := _read(path, file, size):
            whole, newline, behind = piece.rpartition(b"\n")
            if not newline:
                rest += behind
                continue
            block = rest + whole + newline
            yield first, block
            first, rest = first + block.count(b"\n"), behind
            if progress is not None:
                progress(path.name, raw.tell(), total)
    if rest:
        yield first, rest + b"\n"
    if progress is not None:
        progress(path.name, total, total)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file to write, which comes under its name once it is whole, and else not at all.

    It is gzipped if its name ends in .gz.
    """
    with replacing(path) as partial, partial.open("wb") as raw:
        # no time and no name in the file: the same text is the same file
        packed = gzip.GzipFile("", "wb", 6, raw, 0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(cast(IO[bytes], packed), "utf-8", newline="\n") as file:
            yield file


def _read(path: Path, file: IO[bytes], size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error})") from None


class GrowingArray:
    """A one-dimensional array that is added to at its end, at little more than its own memory."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._data, self._length = np.empty(1024, dtype), 0

    def extend(self, values: np.ndarray) -> None:
        """Add values (k,)."""
        end = self._length + len(values)
        if end > len(self._data):  # resize moves large arrays without a second copy of them
            self._data.resize(max(end, len(self._data) * 5 // 4), refcheck=False)
        self._data[self._length : end] = values
        self._length = end

    def finish(self) -> np.ndarray:
        """What was added; nothing can be added afterwards."""
        self._data.resize(self._length, refcheck=False)
        return self._data
