"""The basis that GMRES keeps: rows of several matrices, as if they were one."""

import numpy as np
import pytest
import torch

from sparsetorch.linalg.arnoldi import Basis


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("size", [1, 16, 17, 33, 100])
def test_a_basis_of_several_matrices_is_one_matrix(size, dtype):
    generator = torch.Generator().manual_seed(size)
    vectors = torch.randn(size, 7, generator=generator, dtype=dtype)
    w = torch.randn(7, generator=generator, dtype=dtype)
    basis = Basis()
    for vector in vectors:
        basis.append(vector)
    torch.testing.assert_close(basis.components(w), vectors.conj() @ w)
    for count in {0, 1, size // 2, size}:
        y = torch.randn(count, generator=generator, dtype=dtype)
        torch.testing.assert_close(basis.combine(y), y @ vectors[:count])


def test_what_is_kept_is_never_moved():
    """Growing by copies took three quarters of orthogonalisation's time at a million unknowns."""
    basis, places = Basis(), []
    for i in range(70):
        basis.append(torch.full((3,), float(i)))
        places.append(basis._matrices[0].data_ptr())
    assert len(set(places)) == 1
    assert np.allclose(torch.cat(basis._matrices)[:, 0], np.arange(70))
    assert len(basis._matrices) == 4  # of 16, 16, 32 and 64 rows
