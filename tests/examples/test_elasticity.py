"""The elasticity example on a small block: all methods converge, and to a direct solution."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import elasticity
from matplotlib import image

from ddm.table import Table

pytestmark = pytest.mark.usefixtures("gmsh")


def test_the_whole_on_a_block(tmp_path, monkeypatch, capsys):
    # A block: the assembly of the gmsh wheel needs seconds to be meshed.
    monkeypatch.setattr(
        sys,
        "argv",
        ["x", "--cad", "none.step", "--nodes", "400", "--subdomain", "150", "--out", str(tmp_path)],
    )
    elasticity.main()
    assert "no file none.step: a block with two holes" in capsys.readouterr().out
    rows = {r["method"]: r for r in csv.DictReader((tmp_path / "elasticity.csv").open())}
    assert len(rows) == 8
    counts = {name: int(row["iterations"]) for name, row in rows.items()}  # all converge
    assert counts["RAS, rigid-body modes"] < counts["RAS, one level"]
    assert {rows[n]["solver"] for n in rows if n.startswith(("AS", "SORAS", "Py"))} == {"CG"}
    modes = int(rows["RAS, rigid-body modes"]["coarse"])
    assert modes % 6 == 0
    assert int(rows["AS, balanced, GenEO"]["coarse"]) == modes
    assert np.asarray(image.imread(tmp_path / "elasticity.png")).std() > 0.05
    assert (tmp_path / "elasticity.md").read_text().count("\n") == 10


def test_the_displacement_is_that_of_a_direct_solve():
    problem = elasticity.problem_on(elasticity.solid(Path("none.step"), 300))
    ground = elasticity.Ground.of(problem, 150)
    u, histories = elasticity.solve_all(ground, Table(elasticity.COLUMNS))
    exact = np.asarray(scipy.sparse.linalg.spsolve(problem.A.tocsc(), problem.b))
    assert np.linalg.norm(u - exact) < 1e-6 * np.linalg.norm(exact)
    assert all(history[-1] < 1e-7 * history[0] for history in histories.values())


def test_the_largest_part_is_the_soft_one():
    class Parts:
        nelements = 5
        subdomains = {"a": np.array([0, 1, 2]), "b": np.array([3]), "c": np.array([4])}  # noqa: RUF012

    assert elasticity.young(Parts()).tolist() == [70.0] * 3 + [210.0] * 2
