"""A table of results that prints itself as Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsetorch.whole_files import replacing


class Table:
    """Rows with the same columns; None is a value that is missing, and prints as nothing.

    Raises:
        ValueError: a row with other columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = list(columns)
        self.rows: list[dict[str, Any]] = []

    def add(self, **row: Any) -> None:
        """Append a row with a value, or None, for each column."""
        if set(row) != set(self.columns):
            raise ValueError(f"row: expected the columns {self.columns}, got {sorted(row)}")
        self.rows.append({name: row[name] for name in self.columns})

    def to_markdown(self) -> str:
        """The table in Markdown, numbers to the right, columns aligned."""
        cells = [self.columns, *([_text(row[c]) for c in self.columns] for row in self.rows)]
        widths = [max(2, *(len(row[i]) for row in cells)) for i in range(len(self.columns))]
        numeric = [
            all(isinstance(row[c], (int, float, type(None))) for row in self.rows)
            for c in self.columns
        ]
        rule = ["-" * (w - 1) + ":" if n else "-" * w for w, n in zip(widths, numeric)]
        lines = [
            "| "
            + " | ".join(x.rjust(w) if n else x.ljust(w) for x, w, n in zip(row, widths, numeric))
            + " |"
            for row in [cells[0], rule, *cells[1:]]
        ]
        return "\n".join(lines) + "\n"

    def to_csv(self, path: str | Path) -> None:
        """Write the table as CSV, floats in full; the file appears whole or not at all."""
        with replacing(Path(path)) as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(self.columns)
            writer.writerows([row[c] for c in self.columns] for row in self.rows)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
