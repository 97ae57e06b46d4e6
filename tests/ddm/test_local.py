"""Local solves: batches by size class and the block-diagonal factorization, against dense ones."""

import numpy as np
import pytest
import torch
from dense_elements import helmholtz
from small_problems import laplacian, random_matrix

from ddm.local import DenseBlocks, SparseBlocks, local_solver
from ddm.partition import Decomposition, decompose, partition
from ddm.size_classes import RATIO, size_classes
from sparsetorch import CSRTensor
from sparsetorch.linalg.cholesky import LDLT, Cholesky
from sparsetorch.linalg.lu import LU


def uneven(A) -> Decomposition:
    """Parts of 1, 1, 3, 8, 20 and all other unknowns."""
    n = A.shape[0]
    ends = np.cumsum([1, 1, 3, 8, 20, n - 33])
    return decompose(A, np.searchsorted(ends, np.arange(n), side="right"))


@pytest.mark.parametrize("sizes", [[5], [3, 3, 3], [1, 2, 3, 100, 99, 70, 71], [10**6, 1]])
def test_classes_hold_every_subdomain_once_with_little_padding(sizes):
    sizes = np.array(sizes)
    classes = size_classes(sizes)
    assert sorted(np.concatenate([members for members, _ in classes])) == list(range(len(sizes)))
    for members, largest in classes:
        assert (np.diff(members) > 0).all()
        assert sizes[members].max() == largest
        assert sizes[members].min() * RATIO >= largest
    assert len(classes) <= 2 + np.log(sizes.max() / sizes.min()) / np.log(RATIO)


@pytest.mark.parametrize("layout", [DenseBlocks, SparseBlocks])
@pytest.mark.parametrize("kind", ["real", "not symmetric", "complex"])
def test_each_subdomain_is_solved_with_its_matrix(layout, kind):
    A = helmholtz(10).A if kind == "complex" else laplacian(12)
    d = uneven(A)
    values = torch.from_numpy(A.data)[torch.from_numpy(d.block_source)]
    if kind == "not symmetric":
        generator = torch.Generator().manual_seed(0)
        values = values + 0.1 * torch.rand(len(values), generator=generator, dtype=values.dtype)
    dense = torch.zeros(len(d.node), len(d.node), dtype=values.dtype)
    dense[torch.from_numpy(d.block_row), torch.from_numpy(d.block_col)] = values
    blocks = layout(d)
    factors = blocks.factor(values)
    if layout is DenseBlocks:
        assert len(factors) > 2
        stored = sum(x.numel() for x in factors)
        assert stored <= 2 * sum(int(size) ** 2 for size in d.sizes)
    r = random_matrix(len(d.node), 3).to(values.dtype)
    torch.testing.assert_close(blocks.solve(factors, r), torch.linalg.solve(dense, r))
    torch.testing.assert_close(
        blocks.solve(factors, r, transpose=True), torch.linalg.solve(dense.T, r)
    )


def test_large_subdomains_are_not_inverted_off_the_cpu(monkeypatch):
    A = laplacian(12)
    d = uneven(A)
    monkeypatch.setattr("ddm.local.LARGEST_DENSE", int(d.sizes.max()))
    local_solver(d, device="meta")
    monkeypatch.setattr("ddm.local.LARGEST_DENSE", int(d.sizes.max()) - 1)
    message = r"local: the largest subdomain has \d+ unknowns; on meta .* take more subdomains"
    for make in (lambda: local_solver(d, device="meta"), lambda: SparseBlocks(d).to("meta")):
        with pytest.raises(ValueError, match=message):
            make()
    DenseBlocks(d)  # on the CPU whoever asks for them gets them


def test_the_factorization_suits_the_matrices():
    A = laplacian(12)
    d = decompose(A, partition(A, 6))
    values = torch.from_numpy(A.data)[torch.from_numpy(d.block_source)]
    blocks = SparseBlocks(d)
    on_diagonal = torch.from_numpy(d.block_row == d.block_col)
    skew = values + 0.1 * torch.arange(len(values)) / len(values) * ~on_diagonal
    for given, kind in (
        (values, Cholesky), (values - 3.1 * on_diagonal, LDLT), (-values, LDLT), (skew, LU),
    ):  # fmt: skip
        assert isinstance(blocks.factor(given).factors, kind)


def test_one_singular_subdomain_is_named():
    A = laplacian(12)
    d = uneven(A)
    values = torch.from_numpy(A.data)[torch.from_numpy(d.block_source)].clone()
    values[torch.from_numpy(d.subdomain[d.block_row] == 3)] = 0
    with pytest.raises(ValueError, match="interface: the local matrix of subdomain 3 is singular"):
        DenseBlocks(d).factor(values)
    with pytest.raises(ValueError, match=r"interface: the local matrix of .* is singular"):
        SparseBlocks(d).factor(values)


def test_a_matrix_with_explicit_zeros_and_jumps():
    A = laplacian(9)
    d = uneven(A)
    matrix = CSRTensor.from_scipy(A)
    jump = 10.0 ** torch.linspace(-8, 8, d.n, dtype=torch.float64)
    scaled = matrix.scale_rows(jump).scale_cols(jump)
    values = scaled.values[torch.from_numpy(d.block_source)]
    dense, sparse = DenseBlocks(d), SparseBlocks(d)
    r = random_matrix(len(d.node), 1) * jump[torch.from_numpy(d.node)][:, None]
    x = dense.solve(dense.factor(values), r) * jump[torch.from_numpy(d.node)][:, None]
    y = sparse.solve(sparse.factor(values), r) * jump[torch.from_numpy(d.node)][:, None]
    torch.testing.assert_close(x, y, rtol=1e-6, atol=1e-8)
