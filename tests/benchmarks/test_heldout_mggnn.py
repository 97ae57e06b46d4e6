"""The held-out table: nothing classical beats the best classical, and it goes on where it was."""

import csv
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import heldout_mggnn

from ddm.learned import InterfaceNet

pytestmark = pytest.mark.usefixtures("gmsh")


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A network that says what it has seen, and is its start."""
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    kinds = '["poisson", "diffusion", "anisotropic"]'
    InterfaceNet(width=8, layers=1).save(path, kinds=kinds, dimension="2", block_size="1")
    return path


def run(monkeypatch, out: Path, checkpoint: Path, *more: str) -> str:
    arguments = ["--short", "--checkpoint", str(checkpoint), "--out", str(out), *more]
    monkeypatch.setattr(sys, "argv", ["heldout_mggnn.py", *arguments])
    heldout_mggnn.main()
    return out.with_suffix(".md").read_text()


def rows(out: Path) -> list[dict[str, str]]:
    with out.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_best_is_best_and_an_untrained_network_its_start(tmp_path, monkeypatch, checkpoint):
    kinds = ("diffusion", "anisotropic")
    text = run(monkeypatch, tmp_path / "whole", checkpoint, "--kinds", *kinds)
    found = rows(tmp_path / "whole")
    names = list(heldout_mggnn.methods([2]))
    assert len(found) == 2 * 2 * len(names)
    for first in range(0, len(found), len(names)):
        ours = {row["method"]: row for row in found[first : first + len(names)]}
        assert list(ours) == names
        for what in ("stationary", "FGMRES"):
            ras = int(ours["RAS"][what] or 10**9)
            assert int(ours["best classical"][what]) <= ras
            assert int(ours["best without linear"][what]) <= ras
            for name in ("start", "best classical", "MG-GNN"):
                wider = ours[f"{name}, 2 slow errors"]
                assert int(wider[what]) <= int(ours[name][what])
                assert int(wider["coarse"]) > int(ours[name]["coarse"])
            assert ours["MG-GNN"][what] == ours["start"][what]
        assert ours["best classical"]["settings"].startswith("stationary: ")
    for kind in kinds:
        assert text.count(f"| {kind} ") == len(names) + 3  # rows of quotients
    assert "stationary, of best without linear" in text


def test_a_run_that_was_stopped_goes_on(tmp_path, monkeypatch, checkpoint):
    text = run(monkeypatch, tmp_path / "out", checkpoint, "--kinds", "poisson")
    whole = rows(tmp_path / "out")
    path = tmp_path / "out.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:6]))
    made: list[str] = []
    original = heldout_mggnn.methods

    def recorded(enrich):
        def way(name, found):
            return lambda *args: made.append(name) or found(*args)

        return {name: way(name, found) for name, found in original(enrich).items()}

    monkeypatch.setattr(heldout_mggnn, "methods", recorded)
    assert run(monkeypatch, tmp_path / "out", checkpoint, "--kinds", "poisson") == text
    names = list(original([2]))
    assert made == [*names[5:], *names]
    assert rows(tmp_path / "out") == whole

    made.clear()  # other weights: what does not ask for them is kept
    metadata = {"kinds": '["poisson"]', "dimension": "2", "block_size": "1"}
    InterfaceNet(width=8, layers=1).save(checkpoint, **metadata)
    run(monkeypatch, tmp_path / "out", checkpoint, "--kinds", "poisson")
    assert made == ["start", "MG-GNN", "start, 2 slow errors", "MG-GNN, 2 slow errors"] * 2


def test_a_csv_of_something_else_is_not_overwritten(tmp_path, monkeypatch, checkpoint):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"out: .*mine\.csv has other columns"):
        run(monkeypatch, tmp_path / "mine", checkpoint)
    assert (tmp_path / "mine.csv").read_text() == "a,b\n1,2\n"


def test_several_networks_have_one_row(tmp_path, monkeypatch, checkpoint):
    one = run(monkeypatch, tmp_path / "out", checkpoint, "--kinds", "poisson")
    other = tmp_path / "other.safetensors"
    InterfaceNet(width=8, layers=2).save(
        other, kinds='["poisson"]', dimension="2", block_size="1", note="other weights"
    )
    more = ("--checkpoint", str(checkpoint), str(other), "--kinds", "poisson")
    text = run(monkeypatch, tmp_path / "out", checkpoint, *more)
    assert len(text.splitlines()) == len(one.splitlines())
    found = rows(tmp_path / "out")
    assert [row["method"] for row in found].count("MG-GNN") == 4
    assert [row["method"] for row in found].count("best classical") == 2
    line = next(line for line in text.splitlines() if "| MG-GNN" in line and "poisson" in line)
    assert line.count("(1.") == line.count("-1.") >= 1  # both are the start: a range of no width

    InterfaceNet(width=8, layers=1, smoothing=3).save(other)
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path / "out", checkpoint, *more)


def test_ratios_are_taken_problem_by_problem():
    def counts(network="", **by_seed):
        return [{"seed": s, "network": network, "n": n} for s, n in by_seed.items()]

    best = counts(a=20, b="30")
    assert heldout_mggnn.ratio(counts(a=10, b=30), best, "n") == 0.75
    assert heldout_mggnn.ratio(counts(a=None, b=30), best, "n") is None
    several = counts("x", a=10, b=30) + counts("y", a=10, b=15)
    assert heldout_mggnn.ratio(several, best, "n") == "0.625 (0.5-0.75)"
