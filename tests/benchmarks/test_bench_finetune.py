"""The table of fine-tuning: a row for each kind, never worse than its start."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_finetune

pytestmark = pytest.mark.usefixtures("gmsh")


def test_a_row_for_each_kind(monkeypatch, tmp_path, capsys):
    out = tmp_path / "table.md"
    arguments = ["--seconds", "600", "--steps", "12", "--unknowns", "600"]
    arguments += ["--kinds", "elasticity", "poisson"]
    monkeypatch.setattr(sys, "argv", ["bench_finetune.py", *arguments, "--out", str(out)])
    bench_finetune.main()
    text = out.read_text()
    assert text in capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()[-2:]]
    assert [row[1] for row in rows] == ["elasticity", "poisson"]
    for row in rows:
        start, tuned = (int(row[k].split("/")[0]) for k in (7, 8))
        assert tuned <= start  # the best is kept
        assert int(row[9]) == 12
        assert int(row[11].split("/")[0]) < tuned
        assert int(row[13]) > int(row[6]) > 0
