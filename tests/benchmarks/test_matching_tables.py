"""One command makes every table of matching, in short."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch_geometric", reason="no PyG: matching_tables is NOT tested")
ROOT = Path(__file__).parents[2]
for folder in ("benchmarks", "tests/graphnets/matching"):
    sys.path.insert(0, str(ROOT / folder))

import matching_tables  # noqa: E402
from small_logs import write_xdt  # noqa: E402


def test_every_table_in_short(tmp_path, capsys):
    data = write_xdt(tmp_path / "xdt.npz", n_users=15)
    out = tmp_path / "out"
    matching_tables.main(["--data", str(data), "--config", "short", "--out", str(out)])
    shown = capsys.readouterr().out
    for name, kept in (
        ("matching_xdt", "matching_xdt/table.md"),
        ("matching_synthetic", "matching_synthetic.md"),
        ("matching_scale", "matching_scale.md"),
        ("bench_ragged", "bench_ragged"),
        ("load_logs", "load_logs.log"),
    ):
        text = (out / kept).read_text().strip()
        assert len(text) > 100
        assert text.splitlines()[-1] in shown
        assert text.splitlines()[-1] in (out / f"{name}.log").read_text()


def test_a_script_that_fails_ends_the_run(tmp_path):
    with pytest.raises(SystemExit, match="nothing ended with status 3"):
        matching_tables.run("nothing", [sys.executable, "-c", "raise SystemExit(3)"], tmp_path)
    with pytest.raises(SystemExit):
        matching_tables.main(["--data", str(tmp_path / "none.npz")])
