"""The table of graph benchmarks, on small files: both libraries learn the same, runs go on."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "graphnets")]

import graph_benchmarks  # noqa: E402
from graph_costs import memory  # noqa: E402
from graph_files import tu_files, write_heterophilous, write_planetoid, write_tu  # noqa: E402
from graph_training import judged, network, roc_auc, task_of  # noqa: E402
from torch import tensor  # noqa: E402

pytest.importorskip("torch_geometric", reason="needs sparsetorch[graph]")


@pytest.fixture
def data(tmp_path) -> Path:
    write_heterophilous(tmp_path / "data" / "heterophilous" / "minesweeper.npz")
    write_planetoid(tmp_path / "data" / "planetoid" / "Cora" / "raw", "cora")
    write_tu(tmp_path / "data" / "tu" / "MUTAG.zip", tu_files())
    return tmp_path / "data"


@pytest.mark.parametrize(("task", "name"), [("node", "minesweeper"), ("graph", "MUTAG")])
def test_both_libraries_learn_the_same_and_a_run_goes_on(data, tmp_path, monkeypatch, task, name):
    out = tmp_path / "out" / "table"
    options = ["--task", task, "--data", str(data), "--quick", "--sets", name, "--out", str(out)]
    graph_benchmarks.main([*options, "--epochs", "20"])
    path, text = out.with_suffix(".csv"), out.with_suffix(".md").read_text()
    whole = path.read_text()
    assert len(whole.splitlines()) == 1 + 3 * 2 * 2  # models, seeds, libraries
    rows = [line.split("|") for line in text.splitlines() if line.startswith(f"| {name}")]
    assert [row[2].strip() for row in rows] == ["GCN", "TAG", "GAT"]
    for row in rows:
        ours, theirs, difference = (cell.strip() for cell in row[3:6])
        assert ours == theirs
        assert float(ours.split()[0]) > 60  # a feature tells the class
        assert float(difference) == 0
    path.write_text("".join(whole.splitlines(keepends=True)[:9]))
    made = []
    original = graph_benchmarks.run
    monkeypatch.setattr(graph_benchmarks, "run", lambda *a: made.append(a) or original(*a))
    graph_benchmarks.main([*options, "--epochs", "20"])
    assert len(made) == 4
    assert path.read_text() == whole
    assert out.with_suffix(".md").read_text() == text


@pytest.mark.parametrize("model", graph_benchmarks.MODELS)
def test_sparse_words_are_scored_as_dense_ones(data, model):
    first, *others = (
        judged(network(who, model, "Cora", task, 0), "Cora", (task.validation, task.test))
        for who in graph_benchmarks.contenders(model)
        for task in [task_of(who, model, "Cora", data, 0)]
    )
    for other in others:
        assert other[1].loss == pytest.approx(first[1].loss, rel=1e-5)


def test_memory_is_that_of_training(data):
    assert 0 < memory("sparsetorch", "GCN", "minesweeper", data) < 1e8


def test_the_area_under_the_curve():
    logits = tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 1.0], [2.0, 2.0]])
    assert roc_auc(logits, tensor([1, 1, 0, 0])) == 3.5 / 4  # a tie counts half


def test_strange_options(data, capsys):
    for options, match in (
        (
            ["--task", "node", "--data", str(data), "--sets", "MUTAG"],
            "MUTAG is not for --task node",
        ),
        (["--task", "node", "--data", str(data / "absent")], "--data: no folder"),
    ):
        with pytest.raises(SystemExit):
            graph_benchmarks.arguments(options)
        assert match in capsys.readouterr().err
