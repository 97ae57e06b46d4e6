"""Problems that are singular, and input that makes none."""

from typing import Any

import numpy as np
import pytest
from manufactured import cube, solved, square
from skfem import MeshTri, MeshTri2
from small_problems import delaunay, unit_square

from ddm.problems import (
    convection_diffusion,
    diffusion,
    elasticity,
    helmholtz,
    poisson,
    rigid_body_modes,
)


def wave(x, y):
    return np.cos(np.pi * x) * np.cos(2 * np.pi * y)


SINGULAR: dict[str, Any] = {
    "diffusion": lambda **o: diffusion(
        square(8), 1.0, lambda x, y: 5 * np.pi**2 * wave(x, y), dirichlet={}, **o
    ),
    "elasticity": lambda **o: elasticity(square(6), source=(0.0, 1.0), dirichlet={}, **o),
    "sliding": lambda **o: elasticity(
        square(6), source=(0.0, 1.0), dirichlet={"left": (0.0, None)}, **o
    ),
    "solid": lambda **o: elasticity(cube(2), dirichlet={"front": (None, None, 0.0)}, **o),
}
NULL = {"diffusion": 1, "elasticity": 3, "sliding": 1, "solid": 3}


@pytest.mark.parametrize("name", SINGULAR)
def test_a_singular_system_is_refused_with_the_remedy(name):
    with pytest.raises(ValueError, match=rf"has {NULL[name]} null vector.*singular='ground'"):
        SINGULAR[name]()


@pytest.mark.parametrize("name", SINGULAR)
def test_a_null_space_is_complete_and_orthogonal_to_the_right_hand_side(name):
    problem = SINGULAR[name](singular="nullspace")
    N = problem.nullspace
    assert N.shape == (len(problem.b), NULL[name])
    assert abs(problem.A @ N).max() < 1e-12
    assert abs(N.T @ problem.b).max() < 1e-13
    sizes = np.linalg.eigvalsh(problem.A.toarray())
    assert np.count_nonzero(sizes < 1e-10) == NULL[name]
    assert problem.kind == "symmetric"


@pytest.mark.parametrize("name", SINGULAR)
def test_grounding_gives_a_definite_matrix_and_a_solution_of_the_singular_one(name):
    grounded, singular = (SINGULAR[name](singular=s) for s in ("ground", "nullspace"))
    A = grounded.A.toarray()
    assert np.allclose(A, A.T)
    assert np.linalg.eigvalsh(A).min() > 1e-8
    assert grounded.kind == "spd"
    difference = grounded.elements.assemble(len(A)) - grounded.A
    assert abs(difference).max() < 1e-12
    # A right-hand side in the range: both systems have the same solution up to the null space.
    b = singular.A @ np.random.default_rng(0).standard_normal(len(A))
    pins = ((A != 0).sum(axis=1) == 1) & ((singular.A.toarray() != 0).sum(axis=1) > 1)
    assert pins.sum() == NULL[name]
    u = np.linalg.solve(A, np.where(pins, 0, b))
    assert np.allclose(singular.A @ u, b, atol=1e-9)


def test_a_pure_neumann_solution_is_known_up_to_a_constant():
    problem = SINGULAR["diffusion"](singular="ground")
    u = solved(problem)
    exact = wave(*problem.coordinates.T)
    assert np.std(u - exact) < 0.06 * np.std(exact)


def test_convection_has_no_null_space_to_give():
    options = {"dirichlet": {}, "velocity": (1.0, 0.0)}
    assert len(convection_diffusion(square(5), singular="ground", **options).b) > 0
    with pytest.raises(ValueError, match="singular: 'nullspace' needs a symmetric matrix"):
        convection_diffusion(square(5), singular="nullspace", **options)


def test_a_reaction_or_an_elastic_bedding_makes_it_regular():
    assert diffusion(square(5), dirichlet={}, reaction=1e-3).nullspace is None
    assert diffusion(square(5), dirichlet={}, robin={"top": (1e-3, 0.0)}).nullspace is None


OTHER: Any = "other"


def refuses(build, message, error: type[Exception] = ValueError):
    with pytest.raises(error, match=message):
        build()


def test_a_boundary_that_is_not_there_is_refused_with_those_that_are():
    refuses(
        lambda: poisson(square(5), dirichlet={"inlet": 0.0}),
        "boundary: the mesh has no boundary 'inlet'; it has: bottom, left, right, top",
    )
    refuses(
        lambda: poisson(delaunay(5), neumann={"inlet": 0.0}),
        "has no boundary 'inlet'; it has: none; give a function of the coordinates",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neumann": {lambda x, y: x > 2: 0.0}}, "boundary: no facet of the boundary belongs"),
        ({"neumann": {lambda x, y: x: 0.0}}, "boundary: expected a function that gives a boolean"),
        (
            {"neumann": {"left": 0.0}, "robin": {lambda x, y: x < 0.1: (1.0, 0.0)}},
            r"robin\['function'\]: it shares facets with neumann\['left'\]",
        ),
        ({"robin": {"left": 1.0}}, "robin: expected a pair"),
        ({"neumann": {"left": lambda x, y: np.nan * x}}, "neumann: some of its values are not fin"),
        ({"dirichlet": {"left": np.ones(3)}}, "dirichlet: expected a number at each point"),
        ({"dirichlet": 1j}, "dirichlet: expected real values, got complex128"),
        ({"source": 1j}, "source: expected real values, got complex128"),
        ({"neumann": {"left": 1j}}, "neumann: expected real values, got complex128"),
        ({"robin": {"left": (1.0, 1j)}}, "robin: g: expected real values, got complex128"),
        ({"robin": {"left": (-1.0, 1.0)}}, "robin: expected alpha of at least 0, got -1"),
        ({"robin": {"left": (lambda x, y: 1j * x, 1.0)}}, "robin: alpha: expected real values"),
        ({"reaction": 1j}, "reaction: expected real values, got complex128"),
        ({"degree": 3}, "degree: expected 1 or 2, got 3"),
        ({"reaction": -1.0}, "reaction: expected values of at least 0, got -1"),
        ({"singular": "drop"}, r"singular: expected one of .*'regular'\), got 'drop'"),
        ({"source": np.ones(3)}, r"source: .*an array of shape \(32,\): one an element"),
        ({"source": lambda x, y: np.ones(3)}, "source: expected a number at each point"),
        ({"source": np.inf}, "source: some of its values are not finite"),
        ({"coefficient": -1.0}, "coefficient: expected positive values, got -1 in element 0"),
        ({"coefficient": 0.0}, "coefficient: expected positive values, got 0"),
        ({"coefficient": 1j}, "coefficient: expected real values"),
        ({"coefficient": np.eye(3)}, "coefficient: .*got shape"),
        ({"coefficient": [[1.0, 2.0], [2.0, 1.0]]}, "coefficient: eigenvalues of the tensor"),
        ({"coefficient": [[1.0, 0.5], [0.0, 1.0]]}, "coefficient: expected symmetric tensors"),
    ],
)
def test_bad_arguments_are_named(options, message):
    refuses(lambda: diffusion(square(5), **options), message)


@pytest.mark.parametrize("name", ["coefficient", "source", "reaction", "dirichlet"])
@pytest.mark.parametrize("value", ["one", lambda x, y: None, np.array([None])])
def test_values_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(TypeError, match=f"{name}: expected numbers or a function that gives some"):
        diffusion(square(5), **{name: value})


def test_values_that_are_no_mapping_and_meshes_that_are_none_are_refused():
    number: Any = 1.0
    refuses(lambda: diffusion(square(5), neumann=number), "neumann: expected a map", TypeError)
    refuses(
        lambda: diffusion(square(5), dirichlet={3: 1.0}), "boundary: expected a name", TypeError
    )
    refuses(lambda: poisson(None), "mesh: expected a MeshTri or a MeshTet", TypeError)
    refuses(lambda: poisson(unit_square(0)), "mesh: every node lies on the boundary")


def damaged(name: str) -> Any:
    mesh = delaunay(8)
    points, cells = mesh.p.copy(), mesh.t
    inner = mesh.interior_nodes()[0]
    if name == "inverted":
        points[:, inner] += 0.4
    elif name == "flat":
        points = np.concatenate([points, 0.5 * points[:, cells[:2, :1]].sum(axis=1)], axis=1)
        cells = np.concatenate([cells, [[cells[0, 0]], [cells[1, 0]], [points.shape[1] - 1]]], 1)
    elif name == "NaN":
        points[0, inner] = np.nan
    else:
        points = np.concatenate([points, [[2.0], [2.0]]], axis=1)
    return MeshTri(points, np.ascontiguousarray(cells), validate=False)


DAMAGE = {
    "inverted": "lie on one side of the facet .* inverted",
    "flat": "1 triangles have no area, the first is",
    "NaN": "some coordinates are not finite",
    "isolated": "1 nodes belong to no element, the first is",
}


@pytest.mark.parametrize("problem", [poisson, elasticity, convection_diffusion, helmholtz])
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_meshes_are_refused(name, problem):
    options = {"wavenumber": 1.0} if problem is helmholtz else {}
    refuses(lambda: problem(damaged(name), **options), f"mesh: .*{DAMAGE[name]}")


def test_curved_meshes_are_refused():
    refuses(lambda: poisson(MeshTri2().refined(2)), "one node a vertex, got MeshTri2", TypeError)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: elasticity(square(5), 0.0), "young: expected positive values"),
        (lambda: elasticity(square(5), 1.0, 0.5), "poisson_ratio: expected values between -1"),
        (lambda: elasticity(square(5), plane=OTHER), "plane: expected 'strain' or 'stress'"),
        (lambda: elasticity(square(5), source=(1.0,)), r"source: expected shape \(2,\)"),
        (lambda: elasticity(square(5), dirichlet={"left": (1.0,)}), "dirichlet: expected 2 comp"),
        (lambda: elasticity(square(5), dirichlet={"left": None}), "dirichlet: .*got None"),
        (lambda: elasticity(square(5), neumann={"left": 1.0}), r"neumann: expected shape \(2,\)"),
        (lambda: helmholtz(square(5), 0.0), "wavenumber: expected positive values"),
        (lambda: helmholtz(square(5), 1.0, absorption=-1.0), "absorption: expected a number of"),
        (
            lambda: convection_diffusion(square(5), velocity=(1.0,)),
            r"velocity: expected shape \(2,\)",
        ),
        (
            lambda: convection_diffusion(square(5), stabilisation=OTHER),
            "stabilisation: expected 'auto' or 'none'",
        ),
        (
            lambda: convection_diffusion(square(5), 1e-4, degree=2),
            "degree: quadratic elements are not stabilised.*stabilisation='none'",
        ),
        (lambda: rigid_body_modes(np.ones((3, 4))), r"points: expected \(n, 2\) or \(n, 3\)"),
        (lambda: poisson(square(5)).extend(np.ones(3)), r"u: expected shape \(9,\), got \(3,\)"),
    ],
)
def test_bad_arguments_of_other_problems_are_named(build, message):
    refuses(build, message)


def test_plane_stress_of_a_solid():
    with pytest.raises(ValueError, match="plane: 'stress' is for triangles"):
        elasticity(cube(1), plane="stress")
