"""The table of inference beside set-up."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_inference


@pytest.mark.usefixtures("gmsh")
def test_each_size_has_a_row(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["bench_inference.py", "--short", "--out", str(out)])
    bench_inference.main()
    rows = [line for line in out.with_suffix(".md").read_text().splitlines() if line[:1] == "|"]
    assert len(rows) == 4
    for row in rows[2:]:
        cells = [float(cell) for cell in row.strip("|").split("|")]
        assert len(cells) == len(bench_inference.COLUMNS)
        assert min(cells) > 0
