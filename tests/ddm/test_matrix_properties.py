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
