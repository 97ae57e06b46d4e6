"""The table of how much there is to learn, in short."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import headroom


def test_optimised_methods_are_counted_beside_classical_ones(gmsh, tmp_path):
    cases = [
        headroom.Case("poisson", 500, 2, 100),
        headroom.Case("poisson", 500, 2, 100, symmetric=True),
    ]
    rows = headroom.run(cases, 20, tmp_path / "table").rows
    for row in rows:
        assert row["work"] > 1
        few, more = (
            [int(n) for n in row[name].split(" / ")] for name in ("optimised", "classical")
        )
        assert few[0] <= more[0] + 2  # of the best of four weights; it started from one of them
    alone, inside = (int(n) for n in rows[1]["optimised"].split(" / "))
    assert inside < alone
    kept = (tmp_path / "table.csv").read_text()
    headroom.run(cases, 20, tmp_path / "table")
    assert (tmp_path / "table.csv").read_text() == kept  # nothing is measured again
