"""Dense products within subdomains: slice by slice they are those of all rows at once."""

import numpy as np
import pytest
import torch
from small_problems import laplacian, random_matrix
from torch.utils._python_dispatch import TorchDispatchMode

from ddm.coarse import nicolaides, segments
from ddm.partition import decompose, partition

SEGMENT = torch.tensor([0, 0, 2, 2, 2, 4, 4])
X = torch.complex(random_matrix(7, 3, seed=0), random_matrix(7, 3, seed=1))
Y = torch.complex(random_matrix(7, 2, seed=2), random_matrix(7, 2, seed=3))


@pytest.mark.parametrize("products", [1, 20, 2**18])
def test_products_are_those_of_each_segment(products, monkeypatch):
    monkeypatch.setattr(segments, "PRODUCTS", products)
    grams = segments.gram(X, Y, SEGMENT, 5)
    turned = segments.turned(X, grams, SEGMENT)
    sums = segments.segment_sums(X, SEGMENT, 5)
    for i in range(5):
        here = torch.nonzero(SEGMENT.eq(i))[:, 0]
        torch.testing.assert_close(grams[i], X[here].mH @ Y[here])
        torch.testing.assert_close(turned[here], X[here] @ grams[i])
        torch.testing.assert_close(sums[i], X[here].sum(0))


class Largest(TorchDispatchMode):
    """Keeps the number of elements of the largest tensor that an operation makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numel = max(self.numel, out.numel())
        return out


@pytest.mark.parametrize("weights", ["shared", "owned"])
def test_many_vectors_take_memory_for_themselves_and_not_for_their_products(weights, monkeypatch):
    A, k = laplacian(24), 12
    d = decompose(A, partition(A, 10), 2)
    monkeypatch.setattr(segments, "PRODUCTS", 1000)
    with Largest() as largest:
        nicolaides(d, np.random.default_rng(0).standard_normal((d.n, k)), weights=weights)
    rows = d.n if weights == "owned" else len(d.node)
    assert rows * k <= largest.numel <= 2 * rows * k
