"""The demo's parts: its problems with and without gmsh, and the whole in a few seconds' form."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

import demo  # noqa: E402

from ddm.learned import InterfaceNet  # noqa: E402
from ddm.mesh import GmshUnavailableError, build_mesh  # noqa: E402
from ddm.problems import poisson  # noqa: E402


def test_without_gmsh_the_mesh_files_of_the_repository_serve():
    problems = {case.name: len(case.problem.b) for case in demo.cases(with_gmsh=False)}
    sizes = list(problems.values())
    assert len(problems) == 4
    assert 1_000 < sizes[0] < 3_000
    assert 5_000 < sizes[1] < 15_000
    assert 70_000 < sizes[2] < 200_000
    assert "airfoil, refined" in problems


def test_the_airfoil_is_the_real_geometry_refined():
    assert len(poisson(demo.airfoil()).b) > 15_000


def test_table_and_pictures(tmp_path):
    net = InterfaceNet.load(demo.CHECKPOINT)
    mesh = demo.load_mesh(demo.SMALL_MESHES[0])
    table = demo.solve_all(net, [demo.Case("small", poisson(mesh), overview=True)], tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert list(rows[0]) == [
        "problem",
        "unknowns",
        "method",
        "stationary_iterations",
        "krylov_iterations",
        "setup_s",
        "solve_s",
    ]
    assert len(rows) == len(table.rows) == 6
    counts = {row["method"]: int(row["stationary_iterations"]) for row in rows}
    assert counts["MG-GNN"] < counts["RAS"]
    for name in ("results.md", "small.png", "overview.png"):
        assert (tmp_path / name).stat().st_size > 100


def test_training_reports_and_draws_its_loss(tmp_path, capsys):
    # Seconds are too few to learn in; tests/ddm/test_lightning.py checks that training does.
    net = demo.train(0.05, tmp_path, with_gmsh=False)
    assert "stationary iterations to 1e-8" in capsys.readouterr().out
    assert (tmp_path / "training.png").exists()
    assert isinstance(net, InterfaceNet)


def test_what_ships():
    assert (EXAMPLES / "train_mggnn.yaml").exists()
    assert demo.CHECKPOINT.exists()


def test_the_whole_runs_without_gmsh(tmp_path, capsys, monkeypatch):
    """`main`, with tiny problems in the place of large ones and no training."""

    def no_gmsh():
        raise GmshUnavailableError("libGLU is missing: apt-get install -y libglu1-mesa")

    square = build_mesh(demo.plate()[[0, 2, 4, 5]], np.array([[0, 1, 3], [1, 2, 3]])).refined(2)
    monkeypatch.setattr(demo, "load_gmsh", no_gmsh)
    monkeypatch.setattr(demo, "load_mesh", lambda path: square)
    monkeypatch.setattr(demo, "airfoil", lambda: square)
    trained: list[tuple[float, bool]] = []
    monkeypatch.setattr(
        demo, "train", lambda minutes, folder, with_gmsh: trained.append((minutes, with_gmsh))
    )
    monkeypatch.setattr(sys, "argv", ["demo.py", "--minutes", "0.5", "--out", str(tmp_path / "d")])
    demo.main()
    out = capsys.readouterr().out
    assert "apt-get install -y libglu1-mesa\nGoing on with the 5 mesh files" in out
    assert trained == [(0.5, False)]
    assert set(csv.DictReader((tmp_path / "d" / "results.csv").open()).fieldnames or []) == set(
        demo.COLUMNS
    )
    written = {path.name for path in (tmp_path / "d").iterdir()}
    assert {"results.csv", "results.md", "cost.md", "cost.png", "overview.png"} <= written
    assert "airfoil_refined.png" in written


def test_a_missing_checkpoint_is_named_before_anything_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "demo.py",
            "--out",
            str(tmp_path / "out"),
            "--checkpoint",
            str(tmp_path / "x.safetensors"),
        ],
    )
    with pytest.raises(FileNotFoundError, match=r"path: no checkpoint .*x\.safetensors"):
        demo.main()
