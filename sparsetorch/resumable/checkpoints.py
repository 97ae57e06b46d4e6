"""Whether a file is a checkpoint that can be gone on from."""

from __future__ import annotations

import zipfile
from pathlib import Path


def check_checkpoint(path: str | Path) -> None:
    """Refuse a Lightning checkpoint that is not whole, before anything is built for it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged, or another one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: no file {path}; start without one, or name another")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            whole = damaged is None and any(n.endswith("data.pkl") for n in archive.namelist())
    except zipfile.BadZipFile:
        whole = False
    if not whole:
        raise ValueError(
            f"checkpoint: {path} is cut short, damaged, or no checkpoint; go on from another one "
            f"in {path.parent}, or start without one"
        )
