"""The tables of matching, in short."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for folder in ("benchmarks", "tests/graphnets/matching"):
    sys.path.insert(0, str(ROOT / folder))

import matching_scale  # noqa: E402
import matching_synthetic  # noqa: E402
import matching_xdt  # noqa: E402
from small_logs import write_xdt  # noqa: E402


def table_of(path: Path) -> list[dict[str, str]]:
    """The rows of a table in Markdown."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def test_matchers_on_logs_by_folds(tmp_path):
    data = write_xdt(tmp_path / "xdt.npz", n_users=15)
    methods = ("TF-IDF", "linear", "neighbours", "neighbours and linear")
    rows = matching_xdt.run(data, methods, 1, 2, tmp_path / "out", draws=20)
    assert [row["method"] for row in rows] == list(methods)
    precision = {row["method"]: float(row["B AP"]) for row in rows}
    assert precision["TF-IDF"] > 0.5  # far above chance, about 0.06
    assert precision["linear"] > 0.5
    for row in rows:
        for task in ("A", "B", "B1"):
            assert 0 <= float(row[f"{task} F1"]) <= float(row[f"{task} F1*"]) <= 1
    decisions = json.loads((tmp_path / "out" / "decisions.json").read_text())
    assert decisions["TF-IDF"]["B"]["shift"] is True
    assert decisions["neighbours and linear"]["B"]["shift"] is False
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.pt")}
    lines = (tmp_path / "out" / "intervals.md").read_text().splitlines()
    names = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]
    assert names[2:] == [*methods, "neighbours and linear - linear"]
    users = table_of(tmp_path / "out" / "users.md")
    assert [row["method"] for row in users] == list(methods)
    for row in users:
        for name in ("A pair F1", "A B-cubed F1", "B pair F1", "B B-cubed F1"):
            mean, low, high = map(float, re.findall(r"[\d.]+", row[name]))
            assert 0 <= low <= mean <= high <= 1
    assert float(users[-1]["B pair F1"].split()[0]) > 0.3  # far above that of one user for all
    for picture in ("curves.png", "stages.png"):
        assert (tmp_path / "out" / picture).stat().st_size > 1000
    again = matching_xdt.run(data, methods, 1, 2, tmp_path / "out", draws=20)
    assert again == rows
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # nothing was trained again


def test_the_papers_comparison(tmp_path):
    methods = ("TGCE", "shared tokens")
    out = tmp_path / "synthetic"
    rows = matching_synthetic.run(methods, 150, 1, 1, out)
    assert [row["method"] for row in rows] == list(methods)
    for row in rows:
        assert 0.5 < float(row["candidate recall"]) <= 1
        assert 0 < float(row["f1"]) < 1
        assert float(row["epoch_s"]) >= 0
    assert matching_synthetic.run(methods, 150, 1, 1, out) == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]


@pytest.mark.parametrize("matcher", matching_scale.MATCHERS)
def test_seconds_by_size(tmp_path, matcher):
    rows = matching_scale.run([matcher], [60, 120], tmp_path / "scale")
    assert [row["devices"] for row in rows] == [60, 120]
    assert all(row["pairs"] > row["devices"] for row in rows)
    assert (tmp_path / "scale.png").stat().st_size > 1000
