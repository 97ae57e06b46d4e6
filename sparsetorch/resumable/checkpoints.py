"""Whether a file, or a folder of several processes, is a checkpoint that can be gone on from."""

from __future__ import annotations

import zipfile
from pathlib import Path

PARTS = (".metadata", "meta.pt")
"""Files that Lightning writes last into the folder to which each process writes its part."""


def check_checkpoint(path: str | Path) -> None:
    """Refuse a Lightning checkpoint that is not whole, before anything is built for it.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is cut short, damaged, or another one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"checkpoint: no file {path}; start without one, or name another")
    parts = all((path / part).is_file() for part in PARTS)
    if not (parts if path.is_dir() else _is_whole(path)):
        raise ValueError(
            f"checkpoint: {path} is cut short, damaged, or no checkpoint; go on from another one "
            f"in {path.parent}, or start without one"
        )


def _is_whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            return damaged is None and any(n.endswith("data.pkl") for n in archive.namelist())
    except zipfile.BadZipFile:
        return False
