"""The time and memory of loading logs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import load_logs

from graphnets.matching.synthetic import synthetic_logs


def test_what_is_measured_is_all_there(capsys):
    results = load_logs.main(["--devices", "40", "--seed", "1"])
    logs = synthetic_logs(40, seed=1)
    assert results["load"]["visits"] == len(logs.time)
    assert results["load"]["pages"] == len(logs.pages)
    assert results["write"]["gib"] > 0.05
    assert len(capsys.readouterr().out.splitlines()) == 2
