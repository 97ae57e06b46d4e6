"""Index arrays that lie, through every public way in: an error, never a read beyond an array.

SciPy's compiled conversions follow such indices out of bounds (three of these cases ended the
process before they were checked), so a test that comes back at all is half of the point.
"""

import io
import pickle
import re
from collections import OrderedDict
from pickle import BUILD, NEWOBJ, REDUCE
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sparsetorch import CSRTensor, Pattern, assembly, load, poisson, save

FAR = 10**8
INVALID = "matrix: its index arrays are not valid"


def damaged(kind: str, array: str, place: int, value: int) -> Any:
    matrix = getattr(sp, f"{kind}_array")(sp.eye_array(6))
    target = matrix.coords[int(array)] if kind == "coo" else getattr(matrix, array)
    target[place] = value
    return matrix


DAMAGE = [
    ("csr", "indices", 2, FAR),
    ("csr", "indices", 2, -7),
    ("csr", "indptr", 2, FAR),
    ("csr", "indptr", -1, FAR),
    ("csr", "indptr", 0, 3),
    ("csr", "indptr", 3, 0),
    ("csc", "indices", 2, FAR),
    ("csc", "indptr", 2, FAR),
    ("bsr", "indices", 1, FAR),
    ("bsr", "indptr", 1, FAR),
    ("coo", "0", 2, FAR),
    ("coo", "1", 2, -3),
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: " ".join(map(str, d)))
def test_scipy_matrices(damage):
    with pytest.raises(ValueError, match=INVALID):
        CSRTensor.from_scipy(damaged(*damage))


def test_scipy_arrays_of_different_lengths():
    for kind in ("csr", "csc", "coo"):
        matrix = getattr(sp, f"{kind}_array")(sp.eye_array(5))
        matrix.data = matrix.data[:2]
        with pytest.raises(ValueError, match=INVALID):
            CSRTensor.from_scipy(matrix)
    lil = sp.lil_array(sp.eye_array(5))
    lil.data[1] = []  # SciPy would shift the values of all later rows
    with pytest.raises(ValueError, match="as many columns as values in each row"):
        CSRTensor.from_scipy(lil)
    lil = sp.lil_array(sp.eye_array(5))
    lil.rows[1] = [FAR]
    with pytest.raises(ValueError, match="integers from 0 to 4 as columns"):
        CSRTensor.from_scipy(lil)
    dia = sp.dia_array(sp.eye_array(5))
    dia.offsets = np.array([0, 1])
    with pytest.raises(ValueError, match="one offset for each diagonal"):
        CSRTensor.from_scipy(dia)


@pytest.mark.parametrize("offsets", [[0.5], [True], ["a"], [2**40], [-(2**63)]], ids=str)
def test_offsets_of_scipy_diagonals_that_are_no_offsets(offsets):
    dia = sp.dia_array((np.ones((1, 2)), [0]), shape=(2, 2))
    dia.offsets = np.array(offsets)
    with pytest.raises(ValueError, match=r"index arrays are not valid: expected .*offsets"):
        CSRTensor.from_scipy(dia)


def test_a_scipy_diagonal_outside_of_its_matrix_is_empty():
    dia = sp.dia_array((np.ones((2, 2)), [0, 5]), shape=(2, 2))
    assert CSRTensor.from_scipy(dia).to_dense().tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("column", [2**40, 2**70, -1, 5, 0.5, True, "1", None], ids=repr)
def test_columns_of_scipy_lists_that_are_no_columns(column):
    lil = sp.lil_array((2, 2))
    lil.rows[0], lil.data[0] = [column], [1.0]
    with pytest.raises(ValueError, match="not valid: expected integers from 0 to 1 as columns"):
        CSRTensor.from_scipy(lil)


def test_scipy_values_that_torch_lacks():
    with pytest.raises(TypeError, match=r"longdouble|float128"):
        CSRTensor.from_scipy(sp.csr_array(np.eye(3, dtype=np.longdouble)))


@pytest.mark.parametrize(
    "damage", [d for d in DAMAGE if d[0] != "bsr"], ids=lambda d: " ".join(map(str, d))
)
def test_cupy_matrices(damage):
    # SciPy's matrices have the attributes of CuPy's, which need a GPU.
    with pytest.raises(ValueError, match=r"(crow|col|row): expected"):
        CSRTensor.from_cupy(damaged(*damage))


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_cupy_matrices_in_any_order(kind):
    row, col = np.array([2, 0, 2, 0, 2]), np.array([3, 1, 0, 0, 3])
    values = np.arange(1.0, 6)
    matrix = sp.coo_matrix((values, (row, col)), shape=(3, 4))
    expected = matrix.toarray()
    if kind == "csr":  # unsorted, with a duplicate
        matrix = sp.csr_matrix((values[[1, 3, 0, 2, 4]], [1, 0, 3, 0, 3], [0, 2, 2, 5]), (3, 4))
    elif kind == "csc":
        matrix = sp.csc_matrix((values[[3, 2, 1, 0, 4]], [0, 2, 0, 2, 2], [0, 2, 3, 3, 5]), (3, 4))
    A = CSRTensor.from_cupy(matrix)
    assert A.nnz == 4
    np.testing.assert_array_equal(A.to_dense(), expected)


def sparse_tensor(crow: list[int], col: list[int]) -> SimpleNamespace:
    arrays = (torch.tensor(crow), torch.tensor(col), torch.ones(len(col)))
    return SimpleNamespace(csr=lambda: arrays, sparse_sizes=lambda: (2, 2))


@pytest.mark.parametrize(
    ("crow", "col", "message"),
    [
        ([0, 5, 2], [0, 1], "crow: expected row pointers that never decrease"),
        ([0, 1, 9], [0, 1], "crow: expected to run from 0 to nnz = 2, got 0 to 9"),
        ([0, 2], [0, 1], "crow: expected 3 row pointers for 2 rows, got 2"),
        ([0, 1, 2], [0, FAR], "col: expected indices from 0 to 1"),
    ],
)
def test_sparse_tensors_of_torch_sparse(crow, col, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CSRTensor.from_sparse_tensor(sparse_tensor(crow, col))


def test_a_sparse_tensor_that_holds_an_entry_twice():
    A = CSRTensor.from_sparse_tensor(sparse_tensor([0, 3, 3], [1, 0, 1]))
    assert A.to_dense().tolist() == [[1, 2], [0, 0]]


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize(
    ("layout", "compressed", "plain", "message"),
    [
        ("csr", [0, 1, 2], [0, FAR], "col: expected indices from 0 to 1"),
        ("csr", [0, 1, 2], [0, -5], "col: expected indices from 0 to 1"),
        ("csr", [0, 9, 2], [0, 1], "crow: expected row pointers that never decrease"),
        ("csr", [0, 2, 2], [1, 0], "col: expected increasing, unique columns"),
        ("csc", [0, 1, 2], [0, FAR], "col: expected indices from 0 to 1"),
        ("csc", [0, 9, 2], [0, 1], "crow: expected row pointers that never decrease"),
    ],
)
def test_compressed_torch_matrices(layout, compressed, plain, message):
    make = getattr(torch, f"sparse_{layout}_tensor")
    arrays = (torch.tensor(compressed), torch.tensor(plain), torch.ones(2))
    with pytest.raises(ValueError, match=message):
        CSRTensor.from_torch(make(*arrays, (2, 2), check_invariants=False))


@pytest.mark.parametrize("index", [FAR, -FAR])
@pytest.mark.parametrize("coalesced", [False, True])
def test_coordinate_torch_matrices(index, coalesced):
    indices = torch.tensor([[0, index], [0, 1]])
    matrix = torch.sparse_coo_tensor(
        indices, torch.ones(2), (2, 2), check_invariants=False, is_coalesced=coalesced
    )
    with pytest.raises(ValueError, match="row: expected indices from 0 to 1"):
        CSRTensor.from_torch(matrix)


COUNT = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CSRTensor.from_coo(COUNT, COUNT - 1, torch.ones(2), (2, 2)), "got -1 to 0"),
        (lambda: CSRTensor.from_coo(COUNT, COUNT + 1, torch.ones(2), (2, 2)), "got 1 to 2"),
        (lambda: CSRTensor.from_coo(COUNT, COUNT[:1], torch.ones(2), (2, 2)), "2 indices on cpu"),
        (
            lambda: CSRTensor.from_coo(COUNT, COUNT.to("meta"), torch.ones(2), (2, 2)),
            "col: expected 2 indices on cpu like row, got 2 on meta",
        ),
        (
            lambda: CSRTensor.from_coo(COUNT, COUNT, torch.ones(2, device="meta"), (2, 2)),
            "values: expected on cpu like row, got meta",
        ),
        (lambda: CSRTensor.from_coo(COUNT, COUNT, torch.ones(3), (2, 2)), "values: expected 2 in"),
        (
            lambda: Pattern(torch.tensor([0, 1, 2], device="meta"), COUNT, (2, 2)),
            "col: expected on meta like crow, got cpu",
        ),
        (
            lambda: Pattern(COUNT.to("meta"), COUNT[:1].to("meta"), (1, 1)),
            "col: expected indices, got a tensor on the meta device",
        ),
        (lambda: CSRTensor.from_edge_index(torch.stack([COUNT - 1, COUNT])), "got -1 to 0"),
        (lambda: CSRTensor.from_edge_index(torch.stack([COUNT, COUNT]), n_nodes=-1), "shape"),
        (
            lambda: CSRTensor.from_edge_index(torch.stack([COUNT, COUNT]), n_nodes=(2, 2, 2)),  # type: ignore
            "n_nodes: expected a number, or (sources, targets), got (2, 2, 2)",
        ),
        (
            lambda: CSRTensor.from_edge_index(torch.stack([COUNT, COUNT]), n_nodes=2.5),  # type: ignore
            "n_nodes: expected a number, or (sources, targets), got 2.5",
        ),
        (
            lambda: CSRTensor.from_edge_index(torch.tensor([[0, 2**62], [0, 1]])),
            "more than 2^63 places",
        ),
        (lambda: assembly(COUNT, COUNT, (2, 2)).sum(torch.ones(3)), "values: expected 2 in"),
        (lambda: assembly(0 * COUNT, COUNT, (2, 2)).sum(torch.ones(1)), "values: expected 2 in"),
        (lambda: assembly(0 * COUNT, 0 * COUNT, (1, 1)).sum(torch.ones(3)), "values: expected 2"),
        (lambda: CSRTensor.diag(torch.tensor(1.0)), "d: expected (*batch, n)"),
        *(
            (
                lambda shape=shape: Pattern(torch.tensor([0, 0]), COUNT[:0], shape),  # type: ignore
                "shape: expected (n_rows, n_cols)",
            )
            for shape in ((1, 2.5), (1, float("nan")), (1, float("inf")), "ab", (1, None))
        ),
        (lambda: Pattern(torch.tensor([0, 0]), COUNT[:0], (1, 2**63)), "more than int64 can count"),
        (
            lambda: Pattern(torch.tensor([0, 2**62, -(2**62), 1]), COUNT[:1], (3, 1)),
            "crow: expected row pointers that never decrease",
        ),
    ],
)
def test_arrays_of_ones_own(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def write_npz(path, kind: str, shape: tuple[int, ...] = (2, 2), **arrays) -> None:
    given = {"indices": [0, 1], "indptr": [0, 1, 2], "data": np.ones(2)} | arrays
    as_int32: Any = {
        name: np.asarray(array, dtype=np.int32) if isinstance(array, list) else array
        for name, array in given.items()
    }
    np.savez(path, format=np.array(kind.encode()), shape=np.array(shape), **as_int32)


@pytest.mark.parametrize("kind", ["csr", "csc", "bsr"])
@pytest.mark.parametrize(
    "arrays",
    [{"indices": [0, FAR]}, {"indices": [0, -FAR]}, {"indptr": [0, FAR, 2]}, {"indptr": [0, 1, 9]}],
    ids=str,
)
def test_npz_files_with_wrong_indices(tmp_path, kind, arrays):
    data = np.ones((2, 1, 1)) if kind == "bsr" else np.ones(2)
    write_npz(tmp_path / "a.npz", kind, data=data, **arrays)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as \.npz"):
        load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("kind", "arrays", "message"),
    [
        ("coo", {"row": [0, FAR], "col": [0, 1]}, "exceeds matrix dimension"),
        ("csr", {"indices": np.array([0, 0.5])}, "indices is float64, not integer"),
        ("csr", {"shape": (-2, 2)}, "negative"),
        ("csr", {"shape": (2, 2, 2)}, "shape"),
        ("csr", {"data": np.ones((2, 2))}, "1-D"),
        ("csr", {"data": np.array(["a", "b"])}, "not numbers"),
        ("zzz", {}, "Unknown format"),
    ],
    ids=str,
)
def test_other_npz_files(tmp_path, kind, arrays, message):
    write_npz(tmp_path / "a.npz", kind, **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz cannot be read as \.npz: .*{message}"):
        load(tmp_path / "a.npz")


def test_files_that_are_no_npz(tmp_path):
    np.savez(tmp_path / "dense.npz", a=np.ones(3))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "object.npz").write_bytes(b"PK\x03\x04" + bytes(range(256)))
    np.savez(tmp_path / "pickle.npz", format=np.array(b"csr"), data=np.array([object()]))
    for name in ("dense", "empty", "object", "pickle"):
        with pytest.raises(ValueError, match=rf"{name}\.npz cannot be read as \.npz"):
            load(tmp_path / f"{name}.npz")


HEADER = "%%MatrixMarket matrix coordinate real general\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        HEADER + "3 3 1\n9 1 2.0\n",
        HEADER + "3 3 1\n0 1 2.0\n",
        HEADER + "3 3 1\n-1 1 2.0\n",
        HEADER + "3 3 1\n1 1 abc\n",
        HEADER + "3 3 1\n1 1 2.0\n2 2 1.0\n",
        HEADER + "-3 3 1\n1 1 1\n",
        HEADER + "3 99999999999999999999999 1\n1 1 1\n",
        HEADER.replace("coordinate", "array") + "2 2\n1\n2\n",
        HEADER.replace(" matrix", " vector") + "3 1\n1 1\n",
    ],
)
def test_matrix_market_files(tmp_path, text):
    (tmp_path / "a.mtx").write_text(text)
    with pytest.raises(ValueError, match=r"a\.mtx cannot be read as \.mtx"):
        load(tmp_path / "a.mtx")


def test_a_dense_matrix_market_file(tmp_path):
    (tmp_path / "a.mtx").write_text(HEADER.replace("coordinate", "array") + "2 2\n1\n2\n0\n4\n")
    assert load(tmp_path / "a.mtx").to_dense().tolist() == [[1, 0], [2, 4]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_what_no_file_holds(tmp_path, dtype):
    with pytest.raises(TypeError, match=r"use A\.to\(torch\.float32\)"):
        save(CSRTensor.eye(2, dtype=dtype), tmp_path / "a.npz")
    with pytest.raises(TypeError, match="A: expected a CSRTensor, got ndarray"):
        save(np.eye(2), tmp_path / "a.npz")  # type: ignore
    with pytest.raises(FileNotFoundError, match=r"path: no folder .*none"):
        save(CSRTensor.eye(2), tmp_path / "none" / "a.npz")
    assert not list(tmp_path.iterdir())


class Raw:
    """What a file holds, in this order: objects, and opcodes of pickle as bytes."""

    def __init__(self, *parts: Any):
        self.parts = parts


PythonPickler: Any = pickle._Pickler  # the one of which a method may be replaced


class Writer(PythonPickler):
    """Writes a `Raw` as it is."""

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if not isinstance(obj, Raw):
            return super().save(obj, save_persistent_id)
        for part in obj.parts:
            self.write(part) if isinstance(part, bytes) else self.save(part)


def checkpoint(content: Any) -> Any:
    """What `torch.load` makes of a file by default."""
    file = io.BytesIO()
    torch.save(content, file, pickle_module=SimpleNamespace(__name__="raw", Pickler=Writer))
    file.seek(0)
    return torch.load(file)


GRID = poisson(4)
ARRAYS = (GRID.pattern.crow, GRID.pattern.col, GRID.pattern.shape)


def test_a_checkpoint_as_it_should_be():
    restored = checkpoint(Raw(CSRTensor, (Raw(Pattern, ARRAYS, REDUCE), GRID.values), REDUCE))
    assert torch.equal(restored.to_dense(), GRID.to_dense())
    assert torch.equal(checkpoint(GRID).to_dense(), GRID.to_dense())


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (Raw(Pattern, ARRAYS, REDUCE, {"_col": ARRAYS[1] + FAR}, BUILD), pickle.UnpicklingError),
        (Raw(Pattern, (), NEWOBJ, {"_col": ARRAYS[1] + FAR}, BUILD), TypeError),
        (
            Raw(CSRTensor, (GRID.pattern, GRID.values), REDUCE, {"values": torch.ones(1)}, BUILD),
            pickle.UnpicklingError,
        ),
        (Raw(CSRTensor, (), NEWOBJ, {"values": torch.ones(1)}, BUILD), TypeError),
        (Raw(CSRTensor, (OrderedDict(), GRID.values), REDUCE), TypeError),
        (Raw(Pattern, (ARRAYS[0], ARRAYS[1] + FAR, (4, 4)), REDUCE), ValueError),
    ],
    ids=["pattern", "new pattern", "matrix", "new matrix", "no pattern", "columns"],
)
def test_checkpoints_that_lie(content, error):
    """PyTorch's restricted unpickler writes to attributes of what it may make."""
    with pytest.raises(error):
        checkpoint(content)


def test_a_checkpoint_that_changes_its_tensors_later():
    col = ARRAYS[1].clone()
    far = (col + FAR)._typed_storage(), 0, tuple(col.shape), col.stride()
    pattern, _ = checkpoint([Raw(Pattern, (ARRAYS[0], col, (4, 4)), REDUCE), Raw(col, far, BUILD)])
    assert torch.equal(pattern.col, ARRAYS[1])
