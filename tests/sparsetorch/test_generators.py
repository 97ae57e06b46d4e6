"""Identity, diagonals, random entries and stencils against SciPy and PyAMG."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from sparsetorch import diags, eye, poisson, random


@pytest.mark.parametrize(
    ("m", "n", "k"), [(4, None, 0), (3, 5, 1), (5, 3, -2), (1, 1, 0), (0, 0, 0)]
)
def test_eye(m, n, k):
    expected = sp.eye_array(m, n, k=k).toarray() if m else np.zeros((0, 0))
    np.testing.assert_array_equal(eye(m, n, k, dtype=torch.float64).to_dense(), expected)


def test_diags():
    upper, main = torch.arange(1.0, 4.0).requires_grad_(), torch.arange(4.0).requires_grad_()
    A = diags([upper, main, -1.0], [1, 0, -2])
    expected = np.diag(upper.detach(), 1) + np.diag(main.detach()) - np.eye(4, k=-2)
    np.testing.assert_array_equal(A.to_dense().detach(), expected)
    (A @ torch.arange(4.0)).sum().backward()
    assert upper.grad is not None
    assert upper.grad.tolist() == [1, 2, 3]
    assert main.grad is not None
    assert main.grad.tolist() == [0, 1, 2, 3]


def test_one_diagonal_needs_no_lists():
    """As in `scipy.sparse.diags_array`."""
    d = torch.arange(1.0, 4.0)
    assert torch.equal(diags(d).to_dense(), d.diag())
    assert torch.equal(diags(d, -1).to_dense(), d.diag(-1))
    assert torch.equal(diags([d], 1).to_dense(), d.diag(1))


def test_diags_of_a_batch():
    d = torch.randn(2, 3)
    assert torch.equal(diags([d, 1.0], [0, 1]).to_dense()[1].diagonal(), d[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], [0]), ValueError, "shape: expected one"),
        (([1.0, 2.0], [0, 0], (3, 3)), ValueError, "offsets: expected different diagonals"),
        (([1.0], [0, 1], (3, 3)), ValueError, "offsets: expected 1 like diagonals, got 2"),
        (([1.0], [3], (3, 3)), ValueError, "diagonal 3 is outside"),
        (([torch.ones(2)], [0], (3, 3)), ValueError, "expected length 3 for diagonal 0"),
        (([torch.ones(3), torch.ones(2).double()], [0, 1]), TypeError, "expected one dtype"),
        (([torch.ones(3)], [0], None, torch.float64), TypeError, "dtype: expected torch.float32"),
        (([np.ones(3)],), TypeError, "diagonals: expected tensors and numbers, got ndarray"),
        (([[1.0, 2.0]], [0], (2, 2)), TypeError, "expected tensors and numbers, got list"),
    ],
)
def test_diagonals_that_do_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        diags(*arguments)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.5, 0.9, 1.0])
def test_random_has_the_density_asked_for_and_is_reproducible(density):
    A, B = (random(30, 20, density, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert A.shape == (30, 20)
    assert A.nnz == round(density * 600)
    assert torch.equal(A.to_dense(), B.to_dense())
    dense = A.to_dense()
    assert ((dense >= 0) & (dense < 1)).all()


def test_random_places_are_spread_evenly():
    A = random(400, 300, 0.1, generator=torch.Generator().manual_seed(0))
    per_column = torch.bincount(A.pattern.col, minlength=300).double()
    assert abs(per_column.mean() - 40) < 1e-9
    assert 4 < per_column.std() < 8  # of a hypergeometric draw: 5.99


def test_random_refuses_a_density_that_is_none():
    with pytest.raises(ValueError, match="density: expected a number from 0 to 1"):
        random(3, 3, 1.5)


@pytest.mark.parametrize("sizes", [(7,), (4, 5), (3, 4, 2), (1, 4), (1,)])
def test_poisson_is_pyamgs(sizes):
    gallery = pytest.importorskip("pyamg", reason="needs sparsetorch[ddm]").gallery
    expected = gallery.poisson(sizes).toarray()
    np.testing.assert_array_equal(poisson(*sizes, dtype=torch.float64).to_dense(), expected)


@pytest.mark.parametrize("sizes", [(), (2, 2, 2, 2), (0, 3), ([3, 3],), (3.0,)])
def test_poisson_in_other_dimensions(sizes):
    with pytest.raises(ValueError, match="sizes: expected one to three"):
        poisson(*sizes)
