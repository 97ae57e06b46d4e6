"""The benchmarks, made tiny: every result is right, and a wrong one ends the run."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_csr
import bench_direct
import bench_memory
import bench_triangular
import side_by_side
from matrices import poisson, power_law

RUNS = [  # script, arguments, rows
    (bench_csr, "--grid 6 --nodes 40", 2 * len(bench_csr.CASES)),
    (bench_triangular, "--grid 6 --nodes 40", 2 * len(bench_triangular.CASES)),
    (bench_direct, "--sizes 6x5 3x3x4", 2 * 10),
]


@pytest.mark.parametrize(("script", "arguments", "rows"), RUNS)
def test_a_script_verifies_times_and_writes_its_rows(
    script, arguments, rows, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(sys, "argv", ["bench", *arguments.split(), "--repeats", "3"])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "table.md")])
    if hasattr(script, "copy_rate"):
        monkeypatch.setattr(script, "copy_rate", lambda clock: 1e9)  # needs 0.5 GB
    script.main()
    written = (tmp_path / "table.md").read_text()
    assert written == capsys.readouterr().out
    table = [line for line in written.splitlines() if line.startswith("|")]
    assert len(table) == 2 + rows
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.parametrize("wrong", [1e-3, float("nan")])
def test_a_wrong_result_ends_the_run(wrong):
    want = (np.ones(3),)
    side_by_side.verify("right", (torch.ones(3),), want, torch.float32)
    got = torch.tensor([1.0, 1.0, 1.0 + wrong])
    with pytest.raises(SystemExit, match=r"SpMV, result 0: relative error .*; no times"):
        side_by_side.verify("SpMV", (got,), want, torch.float32)


def test_contenders_take_turns_and_the_first_turns_do_not_count():
    calls = []
    ticks = iter(range(100))
    contenders = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    seconds = side_by_side.times(contenders, 3, lambda: float(next(ticks)), warmup=2)
    assert seconds == {"a": [1.0] * 3, "b": [1.0] * 3}
    assert all(set(calls[i : i + 2]) == {"a", "b"} for i in range(0, 10, 2))


def test_the_ratio_is_to_the_best_peer():
    seconds = {"sparsetorch": [1.0, 2.0, 9.0], "torch": [4.0] * 3, "scipy": [8.0] * 3}
    assert side_by_side.to_best_peer(seconds) == 0.5
    assert side_by_side.quartiles([0.001, 0.002, 0.003]) == "2.00 (1.00-3.00)"


def test_the_matrices_are_laplacians():
    A = poisson(5)
    assert A.shape == (25, 25)
    assert A.nnz == 25 * 5 - 4 * 5
    assert A.diagonal().tolist() == [4.0] * 25
    graph = power_law(300)
    assert abs(graph - graph.T).max() == 0
    np.testing.assert_allclose(graph.sum(1), 1)  # Laplacian plus identity
    assert 2 * 300 < (graph.nnz - 300) / 2 <= 21 * 300 / 8


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read in /proc")
def test_memory_is_measured_in_processes_of_their_own(monkeypatch, tmp_path):
    arguments = ["bench", "--grid", "40", "--small", "500", "--nodes", "1000", "--out"]
    monkeypatch.setattr(sys, "argv", [*arguments, str(tmp_path / "table.md")])
    bench_memory.main()
    rows = (tmp_path / "table.md").read_text().splitlines()[4:]
    assert len(rows) == 3
    assert rows[0].startswith("| Poisson, 40 x 40 |")
    none = SimpleNamespace(stdout="0")
    monkeypatch.setattr(bench_memory.subprocess, "run", lambda *args, **options: none)
    bench_memory.main()  # where nothing was taken there is no ratio
    assert (tmp_path / "table.md").read_text().splitlines()[4].endswith("| 0 | 0 | - |")
