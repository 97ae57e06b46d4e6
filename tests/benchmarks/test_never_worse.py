"""The table of the promise "never worse": it counts what is worse, and goes on where it was."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import never_worse

from ddm.table import Table


def run(monkeypatch, out: Path) -> str:
    monkeypatch.setattr(sys, "argv", ["never_worse.py", "--short", "--out", str(out)])
    never_worse.main()
    return out.with_suffix(".md").read_text()


@pytest.mark.usefixtures("gmsh")
def test_nothing_is_worse_and_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch):
    text = run(monkeypatch, tmp_path / "out")
    last = text.rstrip().splitlines()[-1].split("|")
    assert [cell.strip() for cell in (last[1], last[2], last[-2])] == ["all", "4", "0"]
    assert [cell.strip() for cell in last if "/" in cell] == ["0 / 0 / 0", "0 / 0 / 0"]
    path = tmp_path / "out.csv"
    whole = path.read_text()
    path.write_text("".join(whole.splitlines(keepends=True)[:3]))
    made = []
    original = never_worse.run
    monkeypatch.setattr(never_worse, "run", lambda case: made.append(case) or original(case))
    assert run(monkeypatch, tmp_path / "out") == text
    assert len(made) == 2
    assert path.read_text() == whole


def test_what_is_worse_is_counted():
    table = Table(never_worse.COLUMNS)

    def add(learned, classical, used):
        row = dict.fromkeys(never_worse.COLUMNS) | {"kind": "poisson", "used": used}
        for what in never_worse.COUNTS:
            row |= {f"learned, {what}": learned, f"network, {what}": learned}
            row[f"classical, {what}"] = classical
        table.add(**row)

    add(10, 20, "network")
    add(20, 20, "classical")
    add(23, 20, "network")
    add(None, 20, "network")
    add(None, None, "classical")
    found = never_worse.summary(table).rows[-1]
    assert (found["problems"], found["network used"], found["worse than allowed"]) == (5, 3, 2)
    assert np.isinf(found["stationary, worst"])
    assert np.isinf(found["FGMRES, network alone"])
    assert found["FGMRES, fails: classical / learned / network"] == "1 / 2 / 2"


def test_problems_on_which_the_baseline_fails_are_left_out_of_means():
    table = Table(never_worse.COLUMNS)
    for learned, classical in ((10, 20), (None, None), (30, None)):
        row = dict.fromkeys(never_worse.COLUMNS) | {"kind": "poisson", "used": "network"}
        for what in never_worse.COUNTS:
            row |= {f"learned, {what}": learned, f"classical, {what}": classical}
        table.add(**row)
    found = never_worse.summary(table).rows[-1]
    assert (found["stationary, mean"], found["stationary, worst"]) == (0.5, 0.5)
    assert found["stationary, fails: classical / learned / network"] == "2 / 1 / 3"
    assert found["worse than allowed"] == 0
    table.rows[:] = table.rows[1:]
    assert never_worse.summary(table).rows[-1]["stationary, mean"] is None
