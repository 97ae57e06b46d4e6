"""Files: what is written is read back to the last bit, and nothing half-written stays."""

import gzip
import os

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp
import torch
from random_matrices import random_csr

from sparsetorch import io, load, save


@pytest.mark.parametrize("ending", ["mtx", "npz"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128], ids=str)
def test_round_trip(tmp_path, ending, dtype):
    A = random_csr(7, 5, dtype=dtype)
    save(A, tmp_path / f"a.{ending}")
    B = load(tmp_path / f"a.{ending}", dtype)
    assert torch.equal(A.pattern.crow, B.pattern.crow)
    assert torch.equal(A.pattern.col, B.pattern.col)
    assert torch.equal(A.values.detach(), B.values)
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{ending}"]


def test_symmetric_pattern_and_compressed_files(tmp_path):
    matrix = sp.csr_array(np.array([[2.0, 1, 0], [1, 0, 3], [0, 3, 4]]))
    scipy.io.mmwrite(tmp_path / "s.mtx", matrix, symmetry="symmetric")
    np.testing.assert_array_equal(load(tmp_path / "s.mtx").to_dense(), matrix.toarray())
    (tmp_path / "s.mtx.gz").write_bytes(gzip.compress((tmp_path / "s.mtx").read_bytes()))
    np.testing.assert_array_equal(load(tmp_path / "s.mtx.gz").to_dense(), matrix.toarray())
    scipy.io.mmwrite(tmp_path / "p.mtx", matrix, field="pattern", symmetry="general")
    loaded = load(tmp_path / "p.mtx")
    assert loaded.dtype == torch.float64
    assert loaded.values.tolist() == [1.0] * 6


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load(tmp_path / "none.mtx")
    (tmp_path / "a.txt").write_text("1")
    with pytest.raises(ValueError, match=r"ends in \.mtx, \.mtx\.gz or \.npz"):
        load(tmp_path / "a.txt")
    save(random_csr(9, 9), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        load(tmp_path / "a.npz")
    (tmp_path / "a.mtx").write_text("%%MatrixMarket matrix coordinate real general\n3 3 2\n1 1 2\n")
    with pytest.raises(ValueError, match=r"cannot be read as \.mtx"):
        load(tmp_path / "a.mtx")


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.mtx or \.npz"):
        save(random_csr(3, 3), tmp_path / "a.h5")
    with pytest.raises(ValueError, match="expected one matrix, got a batch"):
        save(random_csr(3, 3, batch=(2,)), tmp_path / "a.npz")


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
@pytest.mark.parametrize("ending", [".npz", ".mtx"])
def test_a_file_has_the_permissions_of_new_files(tmp_path, ending):
    (tmp_path / "new").touch()
    save(random_csr(3, 3), tmp_path / f"a{ending}")
    assert (tmp_path / f"a{ending}").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_an_interrupted_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    A = random_csr(3, 3)
    save(A, tmp_path / "a.npz")

    def interrupted(path, matrix):
        raise KeyboardInterrupt

    monkeypatch.setattr(io.sp, "save_npz", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(-A, tmp_path / "a.npz")
    assert torch.equal(load(tmp_path / "a.npz").values, A.values.detach())
    assert len(list(tmp_path.iterdir())) == 1
