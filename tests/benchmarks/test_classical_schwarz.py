"""The classical table: it has every method, goes on where it stopped, and says what it refused."""

import csv
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import classical_schwarz
import resumable
from classical_methods import STUDIES, Ground, Method, weight

from ddm.problems import random_problem

pytestmark = pytest.mark.usefixtures("gmsh")
TINY = ["--short", "--studies", "interface", "kinds", "--kinds", "helmholtz", "elasticity"]


def run(monkeypatch, out: Path, *more: str) -> str:
    monkeypatch.setattr(sys, "argv", ["classical_schwarz.py", *TINY, "--out", str(out), *more])
    classical_schwarz.main()
    return out.with_suffix(".md").read_text()


def rows(path: Path) -> list[dict[str, str]]:
    with path.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_that_was_stopped_goes_on_and_gives_the_same_table(tmp_path, monkeypatch):
    text = run(monkeypatch, tmp_path / "whole")
    found = rows(tmp_path / "whole")
    for method in STUDIES["interface"]:
        ours = [r for r in found if r["method"] == method.name and r["study"] == "interface"]
        assert len(ours) == 2
        assert all(int(r["krylov"]) < 40 for r in ours)
        assert f"| {method.name} " in text
    # CG and GenEO are for symmetric positive definite matrices.
    assert {r["krylov"] for r in found if r["kind"] == "helmholtz" and r["method"] == "RAS"}
    assert not [r for r in found if r["kind"] == "helmholtz" and r["method"].startswith("AS")]
    assert {r["unknowns"] for r in found if r["kind"] == "elasticity"} != {""}

    lines = (tmp_path / "whole.csv").read_text().splitlines(keepends=True)
    (tmp_path / "part.csv").write_text("".join(lines[:13]))
    made: list[object] = []
    original = classical_schwarz.run
    monkeypatch.setattr(
        classical_schwarz, "run", lambda *args: made.append(args) or original(*args)
    )
    assert run(monkeypatch, tmp_path / "part") == text
    assert len(made) == len(found) - 12
    assert rows(tmp_path / "part") == found


def test_a_csv_of_something_else_is_not_overwritten(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"out: .*mine\.csv has other columns"):
        run(monkeypatch, tmp_path / "mine")
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_means_say_how_many_failed():
    assert resumable.mean_and_spread([10, 12, None]) == "11.0 (10-12), 1 of 3 fail"
    assert resumable.mean_and_spread(["10", "11"]) == "10.5 (10-11)"
    assert resumable.mean_and_spread([None, ""]) == "-"


def test_what_a_method_refuses_is_a_remark():
    problem = random_problem("poisson", 1, 200)
    case = classical_schwarz.Case("kinds", "poisson", 200, 1, 40, 50)
    # A negative weight.
    row = classical_schwarz.run(case, Method("x", interface=weight(-1.0)), Ground(problem, 40))
    assert "theta" in row["remark"]
    assert row["krylov"] is None
