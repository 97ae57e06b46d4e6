"""The table of large problems: every method solves what it is given."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import large_problems


@pytest.mark.usefixtures("gmsh")
@pytest.mark.filterwarnings("ignore:the learned method is refused")
def test_every_method_solves_its_problem(tmp_path, monkeypatch):
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["large_problems.py", "--short", "--out", str(out)])
    large_problems.main()
    text = out.with_suffix(".md").read_text()
    assert text.count("PyAMG, smoothed aggregation") == 3
    assert text.count("PyAMG, Ruge-Stueben") == 2
    assert "not solved" not in text
