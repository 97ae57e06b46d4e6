"""Users' matrices, and files of them: Matrix Market, NumPy's .npz, and PETSc's binary format."""

from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
from manufactured import square
from small_problems import laplacian

from ddm.problems import elasticity, from_matrix, load_petsc

A = laplacian(6)
B = np.arange(16.0)


def petsc_bytes(*objects, integer=">i4", scalar=">f8") -> bytes:
    """Objects as PETSc's manual pages of MatLoad and VecLoad lay them out, in big-endian."""
    parts = []
    for item in objects:
        if sp.issparse(item):
            head = [1211216, *item.shape, item.nnz]
            parts += [np.array(head, integer), np.diff(item.indptr).astype(integer)]
            parts += [item.indices.astype(integer), item.data.astype(scalar)]
        else:
            parts += [np.array([1211214, len(item)], integer), item.astype(scalar)]
    return b"".join(part.tobytes() for part in parts)


@pytest.mark.parametrize("integer", [">i4", ">i8"])
@pytest.mark.parametrize("scalar", [">f8", ">c16"])
def test_petsc_files_are_read_whatever_petsc_was_configured_with(tmp_path, integer, scalar):
    path = tmp_path / "system.dat"
    factor = 1 + 2j if scalar == ">c16" else 1.0
    path.write_bytes(petsc_bytes(A * factor, B, integer=integer, scalar=scalar))
    found: list[Any] = [*load_petsc(path)]
    matrix, vector = found
    assert isinstance(matrix, sp.csr_array)
    assert np.array_equal(matrix.toarray(), (A * factor).toarray())
    assert np.array_equal(vector, B)
    problem = from_matrix(path)
    assert abs(problem.A - A * factor).max() == 0
    assert np.array_equal(problem.b, B)
    assert np.array_equal(from_matrix(path, np.ones(16)).b, np.ones(16))


def test_awkward_petsc_objects(tmp_path):
    path = tmp_path / "objects.bin"
    wide = sp.csr_array((2, 3))
    path.write_bytes(petsc_bytes(np.zeros(0), wide, np.ones(1)))
    found: list[Any] = [*load_petsc(path)]
    first, second, third = found
    assert first.shape == (0,)
    assert second.shape == (2, 3)
    assert second.nnz == 0
    assert third.tolist() == [1.0]


def test_what_petsc_wrote_beside_a_matrix_is_read_or_refused(tmp_path):
    path = tmp_path / "A.petsc"
    path.write_bytes(petsc_bytes(A, B, B))
    with pytest.raises(ValueError, match=r"b: .* has 2 vectors"):
        from_matrix(path)
    assert from_matrix(path, B).block_size == 1
    (tmp_path / "A.petsc.info").write_text("-matload_block_size 2\n-vecload_block_size 1\n")
    assert from_matrix(path, B).block_size == 2
    assert from_matrix(path, B, block_size=4).block_size == 4
    path.write_bytes(petsc_bytes(sp.csr_array(sp.triu(A))))  # as MatView writes SBAIJ
    with pytest.raises(ValueError, match=r"an upper triangle alone.*SBAIJ"):
        from_matrix(path)
    assert from_matrix(sp.csr_array(sp.triu(A))).kind == "general"  # a user's own may be so


def test_free_bodies_are_found_by_their_coordinates():
    free = elasticity(square(4), dirichlet={}, singular="nullspace")
    assert free.nullspace is not None
    assert free.nullspace.shape[1] == 3
    points = free.positions
    with pytest.raises(ValueError, match=r"it has 3 null vector\(s\)"):
        from_matrix(free.A, coordinates=points, block_size=2)
    grounded = from_matrix(free.A, coordinates=points, block_size=2, singular="ground")
    assert np.linalg.eigvalsh(grounded.A.toarray()).min() > 1e-4
    held = elasticity(square(4))
    modes = from_matrix(held.A, coordinates=held.positions, block_size=2).near_nullspace
    assert modes is not None
    assert modes.shape[1] == 2  # nothing is said of what it models


def test_a_coordinate_that_is_the_same_for_all_is_none():
    points = np.random.default_rng(0).random((16, 2))
    flat = from_matrix(A, coordinates=np.column_stack([points, np.full(16, 0.5)]))
    assert flat.positions is not None
    assert np.array_equal(flat.positions, points)
    with pytest.raises(ValueError, match="coordinates: all unknowns have the same"):
        from_matrix(A, coordinates=np.ones((16, 2)))


GOOD = petsc_bytes(A, B)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"nothing of the kind", "class id"),
        (GOOD[:3], "it ends within object 0"),
        (GOOD[:40], "it ends within object 0"),
        (GOOD[:-8], "it ends within object 1"),
        (GOOD + b"\0\0\0\7", "object 2 has the class id 7"),
        (np.array([1211216, 2, 2, -1], ">i4").tobytes() + b"\0" * 32, "a dense matrix"),
        (np.array([1211216, 2, 2, 2, 2, 1, 0, 1], ">i4").tobytes() + b"\0" * 16, "do not add up"),
        (np.array([1211216, 2, 2, 2, 1, 1, 0, 9], ">i4").tobytes() + b"\0" * 16, "indices of obj"),
        (np.array([1211216, -2, 2, 0], ">i4").tobytes(), "it ends within object 0"),
        (np.array([1211214, 2**31 - 1], ">i4").tobytes(), "it ends within object 0"),
    ],
)
def test_damaged_petsc_files_are_refused(tmp_path, content, message):
    path = tmp_path / "bad.dat"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"path: .*bad\.dat is not a whole PETSc.*{message}"):
        load_petsc(path)


def test_petsc_arguments_are_checked(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: no file"):
        load_petsc(tmp_path / "nothing")
    (tmp_path / "two.dat").write_bytes(petsc_bytes(A, A))
    with pytest.raises(ValueError, match="scalar: expected 'real', 'complex' or None"):
        load_petsc(tmp_path / "two.dat", scalar="float")
    with pytest.raises(ValueError, match=r"A: expected one matrix in .*, found 2"):
        from_matrix(tmp_path / "two.dat")


def test_matrix_market_and_npz_files(tmp_path):
    scipy.io.mmwrite(tmp_path / "a.mtx", A, precision=17)
    sp.save_npz(tmp_path / "a.npz", A)
    for path in (tmp_path / "a.mtx", str(tmp_path / "a.npz")):
        assert abs(from_matrix(path).A - A).max() < 1e-15


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="A: no file"):
        from_matrix(tmp_path / "none.mtx")
    (tmp_path / "a.mtx").write_text("hello")
    with pytest.raises(ValueError, match=r"A: .*a\.mtx is neither a Matrix Market"):
        from_matrix(tmp_path / "a.mtx")
    scipy.io.mmwrite(tmp_path / "dense.mtx", np.eye(2))
    with pytest.raises(ValueError, match="holds a dense array"):
        from_matrix(tmp_path / "dense.mtx")


def test_what_a_user_says_is_kept():
    x = np.random.default_rng(0).random((8, 2))
    modes = np.ones((16, 3))
    problem: Any = from_matrix(
        A, B, coordinates=np.repeat(x, 2, axis=0), block_size=2, near_nullspace=modes
    )
    assert np.array_equal(problem.coordinates[::2], x)
    assert np.array_equal(problem.near_nullspace, modes)
    assert problem.block_size == 2
    assert len(problem.interior) == 8
    assert np.array_equal(problem.extend(B), B.reshape(8, 2))
    blocks: Any = from_matrix(A, block_size=4)
    assert np.array_equal(blocks.near_nullspace, np.kron(np.ones((4, 1)), np.eye(4)))


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        (A, "spd"),
        (-A, "symmetric"),
        (A - sp.eye_array(16) * 5, "symmetric"),
        (sp.triu(A), "general"),
        (A * (1 + 1j), "symmetric"),
        (A.astype(complex), "spd"),
        (sp.csr_array([[2.0, 1j], [-1j, 2.0]]), "spd"),
        (sp.csr_array([[1.0, 2j], [-2j, 1.0]]), "general"),
    ],
)
def test_the_kind_is_found_out(matrix, kind):
    assert from_matrix(matrix).kind == kind


def test_narrow_types_become_wider_and_the_users_matrix_stays():
    small = sp.csr_array(np.array([[2, 1], [0, 3]], dtype=np.int16))
    assert from_matrix(small).A.dtype == np.float64
    single = A.astype(np.complex64)
    assert from_matrix(single).A.dtype == np.complex128
    doubled = sp.csr_array((np.ones(3), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert np.array_equal(from_matrix(doubled).A.toarray(), np.diag([2.0, 1.0]))
    assert doubled.nnz == 3


def test_singular_matrices_are_settled():
    L = sp.csr_array(np.array([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]]))
    with pytest.raises(ValueError, match="the matrix is singular: it has 1 null vector"):
        from_matrix(L)
    singular: Any = from_matrix(L, singular="nullspace")
    assert singular.nullspace.shape == (3, 1)
    grounded = from_matrix(L, singular="ground")
    assert np.linalg.matrix_rank(grounded.A.toarray()) == 3


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (sp.csr_array((2, 3)), {}, "A: expected a square matrix with rows"),
        (sp.csr_array((0, 0)), {}, "A: expected a square matrix with rows"),
        (sp.csr_array(np.diag([1.0, 0.0])), {}, "A: row 1 is zero"),
        (sp.csr_array([[1.0, 0.0], [1.0, 0.0]]), {}, "A: column 1 is zero"),
        (A * np.nan, {}, "A: some entries are not finite"),
        (A, {"b": np.ones(3)}, r"b: expected shape \(16,\), got \(3,\)"),
        (A, {"b": np.full(16, np.inf)}, "b: some values are not finite"),
        (
            A,
            {"block_size": 3},
            "block_size: expected a divisor of 16, the number of unknowns, got 3",
        ),
        (A, {"near_nullspace": np.ones(16)}, r"near_nullspace: .*\(16, k\), got \(16,\)"),
        (A, {"coordinates": np.ones((16, 2)) * np.nan}, "coordinates: expected finite"),
        (A, {"kind": "nice"}, "kind: expected one of"),
        (-A, {"kind": "spd"}, "kind: A is not spd: it is symmetric"),
        (sp.triu(A), {"kind": "symmetric"}, "kind: A is not symmetric: it is not symmetric"),
    ],
)
def test_bad_matrices_are_refused(matrix, options, message):
    with pytest.raises(ValueError, match=message):
        from_matrix(matrix, **options)


def test_bad_types_are_refused():
    with pytest.raises(TypeError, match="A: expected a SciPy sparse matrix or a path, got ndarray"):
        from_matrix(A.toarray())
    with pytest.raises(TypeError, match="b: complex, but A is real"):
        from_matrix(A, B * 1j)
