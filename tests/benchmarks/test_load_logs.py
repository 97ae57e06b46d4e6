"""The time and memory of loading logs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import load_logs

from graphnets.matching.synthetic import synthetic_logs


def test_what_is_measured_is_all_there(tmp_path, capsys):
    assert load_logs.write(str(tmp_path), 40, 1)["devices"] == 40
    found = load_logs.main(["--folder", str(tmp_path)])["load"]  # a process of its own
    logs = synthetic_logs(40, seed=1)
    assert found["visits"] == len(logs.time)
    assert found["pages"] == len(logs.pages)
    assert found["gib"] > 0.05
    assert capsys.readouterr().out.startswith("load {")
