"""The benchmark of the coarse solve on a small grid."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import bench_coarse

from ddm.table import Table


def test_all_ways_converge_and_the_exact_one_needs_the_fewest_iterations():
    table = Table(bench_coarse.COLUMNS)
    bench_coarse.compare((30, 30), 16, 20, table)
    exact, symmetric, _ = (row["iterations"] for row in table.rows)
    assert exact <= symmetric < 2 * exact
    assert {row["coarse"] for row in table.rows} == {56}
