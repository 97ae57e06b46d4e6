"""Texts to train on, as documents: files of a folder, and the Python standard library."""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from pathlib import Path

STANDARD_LIBRARY = "stdlib"
"""Stands for the source of this interpreter's standard library, some 11 MB."""


def documents(sources: Sequence[str]) -> list[Path]:
    """The files of some sources, sorted, each once.

    Args:
        sources: files, folders, whose .py, .txt and .md files are taken, or `STANDARD_LIBRARY`.

    Raises:
        FileNotFoundError: there is no such file or folder, or no text in one.
    """
    found: dict[Path, None] = {}
    for source in sources:
        library = source == STANDARD_LIBRARY
        path = Path(sysconfig.get_paths()["stdlib"] if library else source)
        if path.is_file():
            found[path] = None
            continue
        files = [
            file
            for pattern in ("*.py", "*.txt", "*.md")
            for file in path.rglob(pattern)
            if file.stat().st_size and not (library and "site-packages" in file.parts)
        ]
        if not files:
            raise FileNotFoundError(f"sources: {source} is no file, and no folder with texts")
        found |= dict.fromkeys(sorted(files))
    return list(found)


def read(path: Path) -> str:
    """The text of a file; what is no UTF-8 becomes U+FFFD."""
    return path.read_bytes().decode(errors="replace")


def split(files: Sequence[Path], share: float) -> tuple[list[Path], list[Path]]:
    """Files for training and for validation, by what is in them: the same on every machine.

    Args:
        files: some.
        share: about so many of them are for validation.
    """
    parts: tuple[list[Path], list[Path]] = ([], [])
    for file in files:
        number = int.from_bytes(hashlib.sha256(file.read_bytes()).digest()[:8], "big")
        parts[number < share * 2**64].append(file)
    return parts


def key(files: Sequence[Path]) -> str:
    """The same for files with the same texts in the same order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
