"""Make a notebook, with its outputs, from a page of the documentation.

    python examples/notebook_from_page.py docs/tuning.md examples/tune_a_solver.ipynb

Python blocks become cells that are run one after the other; the rest is text.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl

BLOCK = re.compile(r"```python\n(.*?)```\n", re.DOTALL)


def cells(page: str) -> list[dict[str, Any]]:
    """The cells of a page, in the notebook format 4.5, without outputs."""
    found: list[dict[str, Any]] = []
    for number, text in enumerate(BLOCK.split(page)):
        if not text.strip():
            continue
        cell: dict[str, Any] = {
            "cell_type": "code" if number % 2 else "markdown",
            "id": f"cell-{number}",
            "metadata": {},
            "source": text.strip().splitlines(keepends=True),
        }
        if number % 2:
            cell |= {"execution_count": None, "outputs": []}
        found.append(cell)
    return found


def run(notebook: list[dict[str, Any]]) -> None:
    """Run the code cells in a folder of their own, and keep what they print and draw."""
    from matplotlib import pyplot as plt

    names: dict[str, Any] = {}
    code = [cell for cell in notebook if cell["cell_type"] == "code"]
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        try:
            os.chdir(folder)
            for count, cell in enumerate(code, 1):
                printed, open_before = io.StringIO(), set(plt.get_fignums())
                with contextlib.redirect_stdout(printed):
                    exec(compile("".join(cell["source"]), f"cell {count}", "exec"), names)
                cell["execution_count"] = count
                drawn = [n for n in plt.get_fignums() if n not in open_before]
                cell["outputs"] = [*_stream(printed.getvalue()), *map(_image, drawn)]
                for figure in drawn:
                    plt.close(figure)
        finally:
            os.chdir(before)


def _stream(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines(keepends=True)
    return [{"output_type": "stream", "name": "stdout", "text": lines}] if text else []


def _image(number: int) -> dict[str, Any]:
    from matplotlib import pyplot as plt

    png = io.BytesIO()
    plt.figure(number).savefig(png, format="png", dpi=72)
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": ["<Figure>"]}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def main() -> None:
    """Read the page, run it, write the notebook."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("notebook", type=Path)
    args = parser.parse_args()
    mpl.use("Agg")
    found = cells(args.page.read_text())
    run(found)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {
        "cells": found,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    partial = args.notebook.with_name(args.notebook.name + ".partial")
    partial.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
    partial.replace(args.notebook)


if __name__ == "__main__":
    main()
