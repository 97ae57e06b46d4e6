"""Synthetic coefficients and problems."""

import numpy as np
import pytest
from manufactured import cube, square

from ddm.problems import channels, checkerboard, inclusions, random_problem, rotated_anisotropy
from ddm.problems.samples import NAMES, Boundary

MESHES = [pytest.param(square(20), id="2D"), pytest.param(cube(5), id="3D")]


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize("field", [checkerboard, channels, inclusions])
def test_scalar_fields_lie_between_one_and_the_contrast(mesh, field):
    values = field(mesh, 3, contrast=1e6)
    assert values.shape == (mesh.nelements,)
    assert 1 <= values.min() < values.max() <= 1e6
    assert np.array_equal(values, field(mesh, 3, contrast=1e6))
    assert not np.array_equal(values, field(mesh, 4, contrast=1e6))
    assert np.array_equal(field(mesh, 3, contrast=1.0), np.ones(mesh.nelements))


def test_a_checkerboard_is_constant_in_its_boxes():
    mesh = square(20)
    values = checkerboard(mesh, 0, cells=3)
    x, y = (mesh.p[:, mesh.t].mean(axis=1) * 3).astype(int)
    pairs = {(3 * i + j, value) for i, j, value in zip(x, y, values)}
    assert len(pairs) == len(np.unique(values)) == 9


@pytest.mark.parametrize("cells", [1, 3])
@pytest.mark.parametrize("mesh", MESHES)
def test_rotated_tensors_have_the_ratio(mesh, cells):
    K = rotated_anisotropy(mesh, 1, ratio=50.0, cells=cells)
    d = mesh.dim()
    assert np.allclose(np.linalg.eigvalsh(K), [1 / 50] * (d - 1) + [1.0])
    assert len(np.unique(K.round(12), axis=0)) == cells**d


@pytest.mark.parametrize("field", [checkerboard, channels, inclusions])
def test_bad_contrasts_are_refused(field):
    with pytest.raises(ValueError, match="contrast: expected a ratio of at least 1, got 0"):
        field(square(4), 0, contrast=0.5)
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        field(square(4), 0, **{"cells" if field is checkerboard else "count": 0})


@pytest.mark.usefixtures("gmsh")
@pytest.mark.parametrize(
    "kind", [*NAMES, "poisson_3d", "elasticity_3d", "helmholtz_3d", "diffusion_mixed_3d"]
)
def test_random_problems_have_the_wanted_size_and_a_seed(kind):
    problem, again = (random_problem(kind, 5, 400) for _ in range(2))
    assert len(problem.b) == pytest.approx(400, rel=0.25)
    assert abs(problem.A - again.A).max() == 0
    assert np.array_equal(problem.b, again.b)
    assert np.isfinite(problem.A.data).all()
    assert np.linalg.norm(problem.b) > 0


@pytest.mark.parametrize("seed", range(6))
def test_values_are_given_on_the_wanted_share_of_the_boundary(seed):
    mesh, rng = square(20), np.random.default_rng(seed)
    boundary = Boundary.draw(rng, "diffusion_mixed")
    facets = mesh.facets[:, mesh.boundary_facets()]
    held = boundary.part(mesh, rng)(*mesh.p[:, facets].mean(axis=1))
    assert 0.05 <= boundary.held <= 0.95
    assert held.mean() == pytest.approx(boundary.held, abs=0.1)


@pytest.mark.usefixtures("gmsh")
def test_mixed_problems_have_boundaries_of_all_kinds():
    found = {"fixed": 0, "robin": 0, "reaction": 0}
    for seed in range(24):
        A = random_problem("poisson_mixed", seed, 200).A
        sums = np.asarray(A.sum(axis=1)).ravel() / A.diagonal()
        assert np.linalg.eigvalsh(A.toarray()).min() > 0
        some = sums > 1e-9
        weak = bool((some & (sums < 0.05)).any())
        found["reaction" if some.all() else "robin" if weak else "fixed"] += 1
    assert min(found.values()) >= 3


def test_a_random_graph_needs_no_mesh():
    problem = random_problem("graph_laplacian", 1, 200)
    assert problem.coordinates.shape == (200, 2)
    assert np.linalg.eigvalsh(problem.A.toarray()).min() > 0


def test_other_kinds_are_refused_with_the_list():
    with pytest.raises(ValueError, match=r"kind: expected one of poisson, .*; got 'stokes'"):
        random_problem("stokes", 0, 100)
    with pytest.raises(ValueError, match="n: expected at least 50 unknowns, got 3"):
        random_problem("poisson", 0, 3)
