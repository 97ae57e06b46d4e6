"""What tables of many long runs share: rows that are kept, and what is written of them."""

from __future__ import annotations

import csv
import datetime
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import cpu_name, versions

FIRST_SEED = 55_000_000  # of held-out problems


def kept_rows(
    path: Path, columns: Sequence[str], settings: Sequence[str]
) -> dict[tuple[str, ...], dict[str, Any]]:
    """The rows that an earlier run has written, by their settings.

    Raises:
        ValueError: the file is another one.
    """
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError(f"out: {path} has other columns than {columns}; name another file")
        return {tuple(row[c] for c in settings): row for row in reader}


def append_row(path: Path, columns: Sequence[str], row: Mapping[Any, Any]) -> None:
    """Add a row to the file that `kept_rows` reads, with its columns' names if it is the first."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(columns))
        if new:
            writer.writeheader()
        writer.writerow(row)


def markdown_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], note: str) -> str:
    """Rows as a table, and what made it."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in rows]
    return "\n".join(lines) + f"\n\n({note})\n"


def machine() -> str:
    """What ran it, and when."""
    return (
        f"{cpu_name()}, torch on {torch.get_num_threads()} of its cores; "
        f"Python {platform.python_version()}, {versions()}; {datetime.date.today().isoformat()}."
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def iterations(solution: Any) -> int | None:
    """The count of a solve that converged."""
    return solution.iterations if solution.converged else None


def mean_and_spread(values: Sequence[Any]) -> str:
    """Mean (smallest-largest) of those that converged, and how many if some did not."""
    numbers = [int(v) for v in values if v not in (None, "")]
    if not numbers:
        return "-"
    text = f"{np.mean(numbers):.1f} ({min(numbers)}-{max(numbers)})"
    missing = len(values) - len(numbers)
    return text if not missing else f"{text}, {missing} of {len(values)} fail"
