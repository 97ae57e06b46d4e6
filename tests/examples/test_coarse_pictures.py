"""The pictures of docs/coarse_spaces.md: drawn, not blank, and what is said of them holds."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import coarse_spaces

import ddm
from ddm.coarse import geneo
from ddm.partition import decompose, partition
from ddm.table import Table
from sparsetorch import CSRTensor

pytestmark = pytest.mark.usefixtures("gmsh")
PAGE = (Path(__file__).parents[2] / "docs" / "coarse_spaces.md").read_text()


def test_every_picture_of_the_page_is_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--nodes", "300", "--out", str(tmp_path)])
    coarse_spaces.main()
    named = set(re.findall(r"\(images/([a-z_]+\.png)\)", PAGE))
    assert {path.name for path in tmp_path.iterdir()} == named
    for name in named:
        assert np.asarray(image.imread(tmp_path / name)).std() > 0.05, name
    assert "learned" in capsys.readouterr().out


def test_learned_values_and_space_gain_together(tmp_path):
    table = Table(("coarse space", "energy", "interface values", "iterations"))
    problem = ddm.poisson(ddm.random_mesh(seed=77_000_001, n_nodes=600))
    coarse_spaces.learned_pictures(problem, tmp_path, table)
    count = {(r["coarse space"], r["interface values"]): r["iterations"] for r in table.rows}
    assert count["learned", "learned"] < count["smoothed", "constant weight"]
    assert count["partition of unity", "RAS"] == max(count.values())
    energy = {r["coarse space"]: r["energy"] for r in table.rows}
    assert energy["partition of unity"] == pytest.approx(1)
    assert energy["smoothed"] < 0.7


def test_the_columns_of_one_subdomain():
    problem = ddm.poisson(ddm.random_mesh(seed=1, n_nodes=300))
    parts = decompose(problem.A, partition(problem.A, 5))
    P = geneo(CSRTensor.from_scipy(problem.A), parts, threshold=None, count=2)
    found = [coarse_spaces.columns_of(P, parts, k) for k in range(parts.n_subdomains)]
    assert sorted(k for columns in found for k in columns) == list(range(P.shape[1]))
    dense = P.to_dense()
    for k, columns in enumerate(found):
        inside = torch.zeros(parts.n, dtype=torch.bool)
        inside[parts.node[parts.subdomain == k]] = True
        assert not dense[~inside][:, columns].any()
