"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """An empty file beside `path` that takes its place at the end, or is removed after an error.

    Args:
        path: the file to write; an earlier one stays as it was until then.
        ending: of the temporary name, for writers that go by it.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial{ending}")
    # As `open` would: with the permissions that the user wants for new files.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
