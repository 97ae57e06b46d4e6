"""The Helmholtz example at low wavenumbers: absorbing conditions help, and waves solve the rest."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.linalg
from matplotlib import image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import helmholtz

pytestmark = pytest.mark.usefixtures("gmsh")


def test_the_whole_at_two_wavenumbers(tmp_path, monkeypatch):
    out = ["--out", str(tmp_path), "--subdomain", "100"]
    monkeypatch.setattr(sys, "argv", ["x", "--wavenumbers", "25", "10", *out])
    helmholtz.main()
    rows = list(csv.DictReader((tmp_path / "helmholtz.csv").open()))
    assert [float(row["wavenumber"]) for row in rows] == [10.0] * 5 + [25.0] * 5
    count = {row["method"]: int(row["iterations"]) for row in rows[5:]}
    assert count["ORAS, 12 plane waves"] < count["ORAS"] < count["RAS"]
    coarse = {row["method"]: int(row["coarse"]) for row in rows[5:]}
    assert coarse["ORAS"] == 0
    assert coarse["ORAS, constants"] == int(rows[-1]["subdomains"])
    assert np.asarray(image.imread(tmp_path / "helmholtz.png")).std() > 0.05


def test_the_wave_is_that_of_a_direct_solve():
    _, (_, problem, _, u) = helmholtz.run([10.0], 100, 100)
    exact = np.asarray(scipy.sparse.linalg.spsolve(problem.A.tocsc(), problem.b))
    assert np.linalg.norm(u - exact) < 1e-4 * np.linalg.norm(exact)
    assert abs(u.imag).max() > 0.1 * abs(u).max()


def test_plane_waves_solve_the_equation_inside():
    """In the limit of small elements; `-div grad u - k^2 u = 0` to second order."""
    problem = helmholtz.problem_at(10.0)
    waves = helmholtz.plane_waves(problem, 10.0, 4)
    assert np.allclose(abs(waves), 1)
    inside = ~np.isin(
        problem.interior, np.unique(problem.mesh.facets[:, problem.mesh.boundary_facets()])
    )
    x, y = problem.coordinates.T
    deep = inside & (np.hypot(x - 0.62, y - 0.5) > 0.25) & (np.minimum(x, 1 - x) > 0.1)
    deep &= np.minimum(y, 1 - y) > 0.1
    residual = abs(problem.A @ waves)[deep]
    assert residual.max() < 0.1 * abs(problem.A).dot(abs(waves))[deep].max()
