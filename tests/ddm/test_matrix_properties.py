"""Symmetry and signs of a matrix, of SciPy's and as a tensor, up to rounding."""

import numpy as np
import pytest
import scipy.sparse as sp
from small_problems import laplacian

from ddm.matrix_properties import (
    has_nonnegative_rows,
    is_hermitian,
    is_symmetric,
    is_z_matrix,
    positive_share,
)
from sparsetorch import CSRTensor

A = laplacian(6)


def changed(row: int, col: int, by: complex) -> sp.csr_array:
    return sp.csr_array(A + sp.coo_array(([by], ([row], [col])), shape=A.shape))


@pytest.mark.parametrize("convert", [lambda M: M, sp.csr_matrix, CSRTensor.from_scipy])
def test_up_to_rounding(convert):
    for by in (0.0, 1e-12):
        M = convert(changed(0, 9, by))
        assert is_symmetric(M)
        assert is_hermitian(M)
        assert is_z_matrix(M)
        assert has_nonnegative_rows(M)
    M = convert(changed(0, 9, 1e-6))
    assert not is_symmetric(M)
    assert not is_hermitian(M)
    assert not is_z_matrix(M)
    assert not has_nonnegative_rows(convert(changed(0, 1, -5.0)))


@pytest.mark.parametrize("penalty", [1e9, 1e30])
def test_one_large_entry_hides_nothing(penalty):
    """As a penalty for a boundary condition, or another scale of some unknowns."""
    large = sp.diags_array(np.where(np.arange(16) == 3, penalty, 0.0))
    M = sp.csr_array(changed(0, 9, 0.3) + large)
    assert is_symmetric(A + large)
    assert is_z_matrix(A + large)
    assert not is_symmetric(M)
    assert not is_hermitian(M)
    assert not is_z_matrix(M)
    assert not has_nonnegative_rows(sp.csr_array(changed(0, 1, -5.0) + large))
    both = sp.csr_array(sp.block_diag([penalty * A, changed(0, 9, 0.3)]))
    assert not is_symmetric(both)
    scale = sp.diags_array(np.logspace(0, 12, 16))
    assert is_symmetric(sp.csr_array(scale @ A @ scale))
    assert not is_symmetric(sp.csr_array(scale @ A))


def test_complex_matrices():
    phase = np.exp(1j * np.arange(A.shape[0]))
    hermitian = sp.csr_array(A * phase[:, None] * phase.conj())
    symmetric = sp.csr_array(A * phase[:, None] * phase)
    assert is_hermitian(hermitian)
    assert not is_symmetric(hermitian)
    assert is_symmetric(symmetric)
    assert not is_hermitian(symmetric)


def test_the_share_of_positive_couplings():
    off = A.toarray() - np.diag(A.diagonal())
    assert positive_share(A) == pytest.approx(0, abs=1e-15)
    with_one = changed(0, 9, 2.0)
    assert positive_share(with_one) == pytest.approx(2 / (abs(off).sum() + 2))
    assert positive_share(sp.csr_array(sp.eye_array(3))) == 0
